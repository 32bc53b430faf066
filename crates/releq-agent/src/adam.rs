//! The Adam optimizer, and clipping by the norm of the whole gradient.

use crate::parameter::Parameter;

const BETA_1: f32 = 0.9;
const BETA_2: f32 = 0.999;
const EPSILON: f32 = 1e-5;

/// Adam in TensorFlow's form, where epsilon is added to the uncorrected second moment. The betas are
/// TensorFlow's defaults; epsilon is 1e-5, as in the authors' code.
///
/// The moments are in the [`Parameter`]s.
///
/// # Source
/// Kingma and Ba 2015 (arXiv 1412.6980), the reformulation at the end of section 2.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Adam {
    /// Number of steps taken.
    pub(crate) steps: i32,
}

impl Adam {
    /// One step of every parameter along its gradient.
    pub(crate) fn step<'a>(
        &mut self,
        parameters: impl IntoIterator<Item = &'a mut Parameter>,
        gradients: &[Vec<f32>],
        learning_rate: f64,
    ) {
        self.steps += 1;
        let correction_1 = 1.0 - f64::from(BETA_1).powi(self.steps);
        let correction_2 = 1.0 - f64::from(BETA_2).powi(self.steps);
        let rate = (learning_rate * correction_2.sqrt() / correction_1) as f32;
        for (parameter, gradients) in parameters.into_iter().zip(gradients) {
            let moments = parameter.first_moment.iter_mut().zip(&mut parameter.second_moment);
            for ((value, (first, second)), gradient) in
                parameter.values.iter_mut().zip(moments).zip(gradients)
            {
                *first = BETA_1 * *first + (1.0 - BETA_1) * gradient;
                *second = BETA_2 * *second + (1.0 - BETA_2) * gradient * gradient;
                *value -= rate * *first / (second.sqrt() + EPSILON);
            }
        }
    }
}

/// Scales the gradients down to a norm of `limit`, taken over all parameters together.
pub(crate) fn clip_by_global_norm(gradients: &mut [Vec<f32>], limit: f64) {
    let square = |g: &f32| f64::from(*g) * f64::from(*g);
    let norm = gradients.iter().flatten().map(square).sum::<f64>().sqrt();
    if norm > limit {
        let factor = (limit / norm) as f32;
        gradients.iter_mut().flatten().for_each(|gradient| *gradient *= factor);
    }
}
