//! The shortcut without parameters: pixels left out, channels of zeros added.

use releq_core::Shape;

use super::layer::{Backward, Layer, Parameters, Pass};

pub(super) struct PaddedShortcut {
    /// Channels, rows and columns that come.
    input: [usize; 3],
    out_channels: usize,
    stride: usize,
}

impl PaddedShortcut {
    pub(super) fn new(input: Shape, out_channels: usize, stride: usize) -> Self {
        let input = match input {
            Shape::Image { channels, height, width } => [channels, height, width],
            Shape::Vector { features } => [features, 1, 1],
        };
        Self { input, out_channels, stride }
    }

    /// For every pixel that is kept, where its channels start in the input of `len` values; in the
    /// order of the output.
    fn kept(&self, len: usize) -> impl Iterator<Item = usize> {
        let [channels, height, width] = self.input;
        let stride = self.stride;
        (0..len).step_by(channels * height * width).flat_map(move |image| {
            (0..height).step_by(stride).flat_map(move |y| {
                let row = image + y * width * channels;
                (0..width).step_by(stride).map(move |x| row + x * channels)
            })
        })
    }

    /// Channels of zeros before those that came.
    fn before(&self) -> usize {
        (self.out_channels - self.input[0]) / 2
    }
}

impl Layer for PaddedShortcut {
    fn forward(
        &mut self,
        inputs: &[&[f32]],
        _: &mut Parameters,
        _: &mut Pass<'_>,
        out: &mut [f32],
    ) {
        let (channels, before) = (self.input[0], self.before());
        let kept = self.kept(inputs[0].len());
        for (from, pixel) in kept.zip(out.chunks_exact_mut(self.out_channels)) {
            let (zeros, rest) = pixel.split_at_mut(before);
            let (values, more) = rest.split_at_mut(channels);
            zeros.fill(0.0);
            values.copy_from_slice(&inputs[0][from..from + channels]);
            more.fill(0.0);
        }
    }

    fn backward(&mut self, back: Backward<'_>, _: &mut Parameters, pass: &mut Pass<'_>) {
        let Backward { inputs, gradient, mut upstream, .. } = back;
        let (channels, before) = (self.input[0], self.before());
        upstream.write(0, inputs[0].len(), pass.buffers, |into, accumulate| {
            if !accumulate {
                into.fill(0.0);
            }
            let kept = self.kept(into.len());
            for (to, pixel) in kept.zip(gradient.chunks_exact(self.out_channels)) {
                let values = into[to..to + channels].iter_mut();
                for (into, gradient) in values.zip(&pixel[before..]) {
                    *into += gradient;
                }
            }
        });
        pass.buffers.give(gradient);
    }
}
