//! Pooling.

use releq_core::{Pool2d, Shape};
use releq_kernels::{AvgPool, Isa, KernelError, MaxPool, PoolShape};

use super::{
    conv::even,
    layer::{Backward, Layer, Parameters, Pass},
};

fn shape(pool: Pool2d, input: Shape) -> Result<PoolShape, KernelError> {
    let (channels, height, width) = match input {
        Shape::Image { channels, height, width } => (channels, height, width),
        Shape::Vector { features } => (features, 1, 1),
    };
    let [kernel, stride, padding] = even(pool.kernel, pool.stride, pool.padding)?;
    if pool.ceil_mode || pool.count_include_pad {
        let reason = "must not be rounded up or counted";
        return Err(KernelError::Shape { what: "padding", got: padding, reason });
    }
    Ok(PoolShape { channels, height, width, kernel, stride, padding })
}

/// Largest value of every window.
pub(super) struct Max {
    kernel: MaxPool,
    /// Where each maximum came from.
    places: Vec<f32>,
}

impl Max {
    pub(super) fn new(pool: Pool2d, input: Shape, isa: Isa) -> Result<Self, KernelError> {
        Ok(Self { kernel: MaxPool::new(shape(pool, input)?, isa)?, places: Vec::new() })
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
    pub(super) fn new(pool: Pool2d, input: Shape, isa: Isa) -> Result<Self, KernelError> {
        AvgPool::new(shape(pool, input)?, isa).map(Self)
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
