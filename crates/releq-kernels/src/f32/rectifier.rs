//! What becomes of the outputs of a layer before they are stored.

use super::vector::Vector;

/// What becomes of the outputs of a layer before they are stored, so that it needs no pass of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Rectifier {
    /// They stay as they are.
    #[default]
    None,
    /// `max(x, 0)`.
    Relu,
    /// `min(max(x, 0), ceiling)`: ReLU6 has a ceiling of 6.
    Clipped {
        /// Positive.
        ceiling: f32,
    },
}

#[allow(unsafe_code, reason = "vector instructions")]
impl Rectifier {
    /// As [`rectify`](Self::rectify).
    ///
    /// # Safety
    /// The processor has the instructions of `V`.
    #[inline(always)]
    pub(super) unsafe fn apply<V: Vector>(self, values: V) -> V {
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                Self::None => values,
                Self::Relu => values.relu(),
                Self::Clipped { ceiling } => values.relu().at_most(V::splat(ceiling)),
            }
        }
    }

    /// The gradient of what went in, from that of `output`, which came out.
    ///
    /// # Safety
    /// The processor has the instructions of `V`.
    #[inline(always)]
    pub(super) unsafe fn backward<V: Vector>(self, gradient: V, output: V) -> V {
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                Self::None => gradient,
                Self::Relu => gradient.where_positive(output),
                Self::Clipped { ceiling } => {
                    let below = V::splat(ceiling).sub(output);
                    gradient.where_positive(output).where_positive(below)
                }
            }
        }
    }

    /// Applies it to all values; what is not a number stays, so that a diverged network shows.
    pub fn rectify(self, values: &mut [f32]) {
        match self {
            Self::None => {}
            Self::Relu => {
                values
                    .iter_mut()
                    .for_each(|value| *value = if *value < 0.0 { 0.0 } else { *value });
            }
            Self::Clipped { ceiling } => values.iter_mut().for_each(|value| {
                let positive = if *value < 0.0 { 0.0 } else { *value };
                *value = if positive > ceiling { ceiling } else { positive };
            }),
        }
    }

    /// Replaces the gradient of `output`, which came out, by that of what went in. Without rectifier, `output` may
    /// be empty.
    pub fn rectify_backward(self, gradient: &mut [f32], output: &[f32]) {
        let pairs = gradient.iter_mut().zip(output);
        match self {
            Self::None => {}
            Self::Relu => {
                for (gradient, output) in pairs {
                    *gradient = if *output > 0.0 { *gradient } else { 0.0 };
                }
            }
            Self::Clipped { ceiling } => {
                for (gradient, output) in pairs {
                    let inside = *output > 0.0 && *output < ceiling;
                    *gradient = if inside { *gradient } else { 0.0 };
                }
            }
        }
    }
}
