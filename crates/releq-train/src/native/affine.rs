//! Maps of every channel on its own, which a convolution before them can do in evaluation.

/// `(x - mean) * scale + shift`, one of each for every channel.
pub(super) struct Affine {
    pub(super) mean: Vec<f32>,
    pub(super) scale: Vec<f32>,
    pub(super) shift: Vec<f32>,
}

impl Affine {
    /// Weights and bias of a convolution that does this as well.
    pub(super) fn fold(&self, weights: &mut [f32], bias: Option<&[f32]>) -> Vec<f32> {
        let filter = weights.len() / self.scale.len();
        for (filter, scale) in weights.chunks_exact_mut(filter).zip(&self.scale) {
            filter.iter_mut().for_each(|weight| *weight *= scale);
        }
        let of = |channel: usize| {
            let bias = bias.map_or(0.0, |bias| bias[channel]);
            (bias - self.mean[channel]) * self.scale[channel] + self.shift[channel]
        };
        (0..self.scale.len()).map(of).collect()
    }
}
