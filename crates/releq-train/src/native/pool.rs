//! Pooling.

use releq_core::{Pool2d, Shape, Sides};
use releq_kernels::{AvgPool, FloatAxis, FloatPoolShape, Isa, KernelError, MaxPool};

use super::{
    conv::axes,
    layer::{Backward, Layer, Parameters, Pass},
};

/// Windows of which a last one, rounded up, has the padding behind the image that it needs to be whole.
fn shape(pool: Pool2d, input: Shape, output: Shape) -> FloatPoolShape {
    let windows = match output {
        Shape::Image { height, width, .. } => [height, width],
        Shape::Vector { .. } => [1, 1],
    };
    let axes = axes(input, pool.kernel, pool.stride, pool.padding);
    let [rows, columns] = [0, 1].map(|at| {
        let FloatAxis { size, kernel, stride, padding: [before, behind], .. } = axes[at];
        let needed = ((windows[at] - 1) * stride + kernel).saturating_sub(before + size);
        FloatAxis { padding: [before, behind.max(needed)], ..axes[at] }
    });
    FloatPoolShape { channels: input.channels(), rows, columns }
}

/// Largest value of every window.
pub(super) struct Max {
    kernel: MaxPool,
    /// Where each maximum came from.
    places: Vec<f32>,
}

impl Max {
    pub(super) fn new(
        pool: Pool2d,
        [input, output]: [Shape; 2],
        isa: Isa,
    ) -> Result<Self, KernelError> {
        let kernel = MaxPool::new(shape(pool, input, output), isa)?;
        Ok(Self { kernel, places: Vec::new() })
    }
}

impl Layer for Max {
    fn forward(
        &mut self,
        inputs: &[&[f32]],
        _: &mut Parameters,
        pass: &mut Pass<'_>,
        out: &mut [f32],
    ) {
        let places = pass.step.is_some().then(|| {
            self.places.resize(out.len(), 0.0);
            &mut self.places[..]
        });
        self.kernel.forward(inputs[0], out, places);
    }

    fn backward(&mut self, back: Backward<'_>, _: &mut Parameters, pass: &mut Pass<'_>) {
        let Backward { inputs, gradient, mut upstream, .. } = back;
        upstream.write(0, inputs[0].len(), pass.buffers, |into, accumulate| {
            self.kernel.backward(&gradient, &self.places, into, accumulate);
        });
        pass.buffers.give(gradient);
    }
}

/// Mean value of every window.
pub(super) struct Avg(AvgPool);

impl Avg {
    pub(super) fn new(
        pool: Pool2d,
        [input, output]: [Shape; 2],
        isa: Isa,
    ) -> Result<Self, KernelError> {
        let Sides { top, left, bottom, right } = pool.padding;
        let counted =
            if pool.count_include_pad { [[top, bottom], [left, right]] } else { [[0; 2]; 2] };
        AvgPool::new(shape(pool, input, output), counted, isa).map(Self)
    }
}

impl Layer for Avg {
    fn forward(
        &mut self,
        inputs: &[&[f32]],
        _: &mut Parameters,
        _: &mut Pass<'_>,
        out: &mut [f32],
    ) {
        self.0.forward(inputs[0], out);
    }

    fn backward(&mut self, back: Backward<'_>, _: &mut Parameters, pass: &mut Pass<'_>) {
        let Backward { inputs, gradient, mut upstream, .. } = back;
        upstream.write(0, inputs[0].len(), pass.buffers, |into, accumulate| {
            self.0.backward(&gradient, into, accumulate);
        });
        pass.buffers.give(gradient);
    }
}

/// Mean of every channel.
pub(super) struct GlobalAvg {
    pub(super) channels: usize,
    pub(super) area: usize,
}

impl Layer for GlobalAvg {
    fn forward(
        &mut self,
        inputs: &[&[f32]],
        _: &mut Parameters,
        _: &mut Pass<'_>,
        out: &mut [f32],
    ) {
        let share = 1.0 / self.area as f32;
        let images = inputs[0].chunks_exact(self.channels * self.area);
        for (image, out) in images.zip(out.chunks_exact_mut(self.channels)) {
            out.fill(0.0);
            for pixel in image.chunks_exact(self.channels) {
                for (out, value) in out.iter_mut().zip(pixel) {
                    *out += value;
                }
            }
            out.iter_mut().for_each(|out| *out *= share);
        }
    }

    fn backward(&mut self, back: Backward<'_>, _: &mut Parameters, pass: &mut Pass<'_>) {
        let Backward { inputs, gradient, mut upstream, .. } = back;
        let share = 1.0 / self.area as f32;
        upstream.write(0, inputs[0].len(), pass.buffers, |into, accumulate| {
            if !accumulate {
                into.fill(0.0);
            }
            let images = into.chunks_exact_mut(self.channels * self.area);
            for (image, gradient) in images.zip(gradient.chunks_exact(self.channels)) {
                for pixel in image.chunks_exact_mut(self.channels) {
                    for (into, gradient) in pixel.iter_mut().zip(gradient) {
                        *into += gradient * share;
                    }
                }
            }
        });
        pass.buffers.give(gradient);
    }
}
