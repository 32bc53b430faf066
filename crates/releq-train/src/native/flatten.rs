//! Image to vector, channel by channel.

use super::layer::{Backward, Layer, Parameters, Pass, to_channels_first, to_channels_last};

pub(super) struct Flatten {
    pub(super) channels: usize,
    pub(super) area: usize,
}

impl Layer for Flatten {
    fn forward(
        &mut self,
        inputs: &[&[f32]],
        _: &mut Parameters,
        _: &mut Pass<'_>,
        out: &mut [f32],
    ) {
        to_channels_first(inputs[0], self.channels, self.area, out);
    }

    fn backward(&mut self, back: Backward<'_>, _: &mut Parameters, pass: &mut Pass<'_>) {
        let Backward { gradient, mut upstream, .. } = back;
        if upstream.wants(0) {
            let mut into = pass.buffers.take(gradient.len());
            to_channels_last(&gradient, self.channels, self.area, &mut into);
            upstream.hand_on(0, into, pass.buffers);
        }
        pass.buffers.give(gradient);
    }
}
