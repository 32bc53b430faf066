//! Giving up a retrain that has no hope.

use serde::{Deserialize, Serialize};

use crate::ReleqError;

/// Ends the short retrain of an assignment that has collapsed, such as 2 bits everywhere without a scale.
///
/// Once, after [`after`](Self::after) of its steps, the network is shown some validation images. Where it
/// names too few of them, the retrain ends, and that accuracy is the answer. The choice depends on the
/// assignment and the seed alone, so equal searches stay equal.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self", default, deny_unknown_fields)]
pub struct EarlyStop {
    /// Share of the steps of a retrain, between 0 and 1.
    pub after: f64,
    /// Share of the full-precision accuracy below which there is no hope, between 0 and 1.
    pub below: f64,
    /// How many validation images are looked at.
    pub images: usize,
}

releq_core::named_fields!(EarlyStop);

/// A quarter of the steps, half of the accuracy, 500 images: with 10 classes, one standard error is two
/// points, far less than what is left to fall.
impl Default for EarlyStop {
    fn default() -> Self {
        Self { after: 0.25, below: 0.5, images: 500 }
    }
}

impl EarlyStop {
    /// The step after which to look, of `steps`; at least the first.
    pub(super) fn step(&self, steps: usize) -> usize {
        ((self.after * steps as f64).ceil() as usize).max(1)
    }

    /// Checks every field.
    ///
    /// # Errors
    /// [`ReleqError::Setting`] for one out of its range.
    pub fn check(&self) -> Result<(), ReleqError> {
        let refuse = |reason| Err(ReleqError::Setting { setting: "early_stop", reason });
        for (field, value) in [("after", self.after), ("below", self.below)] {
            if !(value > 0.0 && value < 1.0) {
                return refuse(format!("`{field}` must be between 0 and 1, got {value:?}"));
            }
        }
        if self.images == 0 {
            return refuse("`images` must be positive, got 0".into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_cannot_be_name_their_field() {
        let good = EarlyStop::default();
        good.check().unwrap();
        for (bad, field) in [
            (EarlyStop { after: 1.0, ..good }, "`after`"),
            (EarlyStop { below: f64::NAN, ..good }, "`below`"),
            (EarlyStop { images: 0, ..good }, "`images`"),
        ] {
            let message = bad.check().unwrap_err().to_string();
            assert!(message.contains("early_stop") && message.contains(field), "{message}");
        }
    }

    #[test]
    fn there_is_always_a_step_before() {
        let of = |after, steps| EarlyStop { after, ..EarlyStop::default() }.step(steps);
        assert_eq!((of(0.25, 60), of(0.25, 61), of(0.001, 60)), (15, 16, 1));
    }
}
