//! Values rounded to a grid.

use releq_quant::ActivationGrid;

use super::layer::{Backward, Layer, Parameters, Pass};

/// Rounds where it has a grid, and lets values pass where not.
#[derive(Default)]
pub(super) struct FakeQuantize {
    grid: Option<ActivationGrid>,
    /// The values of the last training step that were not moved to an end of the grid.
    within: Vec<bool>,
}

impl Layer for FakeQuantize {
    fn round_to(&mut self, grid: Option<ActivationGrid>) {
        self.grid = grid;
    }

    fn is_in_place(&self) -> bool {
        true
    }

    fn forward(&mut self, _: &[&[f32]], _: &mut Parameters, pass: &mut Pass<'_>, out: &mut [f32]) {
        let Some(grid) = self.grid else { return };
        if pass.step.is_some() {
            self.within.clear();
            self.within.extend(out.iter().map(|&value| grid.covers(value)));
        }
        grid.fake_quantize(out);
    }

    fn backward(&mut self, back: Backward<'_>, _: &mut Parameters, pass: &mut Pass<'_>) {
        let Backward { mut gradient, mut upstream, .. } = back;
        if self.grid.is_some() {
            for (gradient, within) in gradient.iter_mut().zip(&self.within) {
                *gradient = if *within { *gradient } else { 0.0 };
            }
        }
        upstream.hand_on(0, gradient, pass.buffers);
    }
}
