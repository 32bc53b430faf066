//! The long retrains of one assignment, which differ by their seeds.

use releq_train::Hits;

/// What is correct of the validation and the test images, or why nothing is.
pub(super) type Final = Result<[Hits; 2], String>;

/// What the long retrains of one assignment came to, in the order of their seeds.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Seeds(Vec<Final>);

impl From<Final> for Seeds {
    fn from(retrained: Final) -> Self {
        Self(vec![retrained])
    }
}

impl Seeds {
    pub(super) fn add(&mut self, retrained: Final) {
        self.0.push(retrained);
    }

    /// The first one alone.
    pub(super) fn first(&self) -> Self {
        Self(self.0.first().cloned().into_iter().collect())
    }

    /// How many there are.
    pub(super) const fn count(&self) -> usize {
        self.0.len()
    }

    /// Why one of them failed, if one did.
    pub(super) fn failure(&self) -> Option<&String> {
        self.0.iter().find_map(|retrained| retrained.as_ref().err())
    }

    /// Mean accuracy on the validation and the test images; `None` if one failed, or there are none.
    pub(super) fn accuracies(&self) -> Option<[f64; 2]> {
        let mut sums = [0.0; 2];
        for retrained in &self.0 {
            let sets = retrained.as_ref().ok()?;
            for (sum, hits) in sums.iter_mut().zip(sets) {
                *sum += hits.report().accuracy();
            }
        }
        (!self.0.is_empty()).then(|| sums.map(|sum| sum / self.0.len() as f64))
    }

    /// Standard errors of how far the accuracies lie below those of `full_precision`, as far as they come of the choice of
    /// images; `None` where [`accuracies`](Self::accuracies) is, or with fewer than two images.
    pub(super) fn loss_errors(&self, full_precision: &Self) -> Option<[f64; 2]> {
        let error =
            |set: usize| Hits::paired_standard_error(&self.hits(set)?, &full_precision.hits(set)?);
        Some([error(0)?, error(1)?])
    }

    /// What is correct of one of the sets, retrain by retrain; `None` if one failed.
    fn hits(&self, set: usize) -> Option<Vec<&Hits>> {
        self.0.iter().map(|retrained| Some(&retrained.as_ref().ok()?[set])).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retrained(correct: [usize; 2]) -> Final {
        Ok(correct.map(|correct| Hits::new((0..100).map(|image| image < correct).collect())))
    }

    #[test]
    fn accuracies_are_means_unless_a_retrain_failed() {
        let mut seeds = Seeds::default();
        assert_eq!(seeds.accuracies(), None);
        seeds.add(retrained([80, 70]));
        seeds.add(retrained([85, 75]));
        assert_eq!(seeds.accuracies(), Some([0.825, 0.725]));
        assert_eq!((seeds.count(), seeds.failure()), (2, None));
        seeds.add(Err("the loss became NaN".to_owned()));
        assert_eq!(seeds.accuracies(), None);
        assert_eq!(seeds.failure().map(String::as_str), Some("the loss became NaN"));
    }

    #[test]
    fn losses_are_uncertain_by_the_images_that_differ() {
        let (full_precision, mut row) = (Seeds::from(retrained([80, 70])), Seeds::default());
        assert_eq!(row.loss_errors(&full_precision), None);
        row.add(retrained([80, 66]));
        let [validation, test] = row.loss_errors(&full_precision).unwrap();
        assert_eq!(validation, 0.0);
        // 4 images of 100 that one of them alone has: (4 - 16 / 100) / (100 * 99).
        assert!((test - (3.84 / 9900.0_f64).sqrt()).abs() < 1e-12, "{test}");
        row.add(Err("the loss became NaN".to_owned()));
        assert_eq!(row.loss_errors(&full_precision), None);
    }
}
