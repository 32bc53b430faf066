//! The long retrains of one assignment, which differ by their seeds.

use releq_train::AccuracyReport;

/// Reports on the validation and the test images, or why there are none.
pub(super) type Final = Result<[AccuracyReport; 2], String>;

/// What the long retrains of one assignment came to, in the order of their seeds.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Seeds(Vec<Final>);

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
            let reports = retrained.as_ref().ok()?;
            for (sum, report) in sums.iter_mut().zip(reports) {
                *sum += report.accuracy();
            }
        }
        (!self.0.is_empty()).then(|| sums.map(|sum| sum / self.0.len() as f64))
    }

    /// Standard error of the mean accuracy on the validation images, as far as it comes of their number; `None` as above.
    pub(super) fn standard_error(&self) -> Option<f64> {
        let [validation, _] = self.0.first()?.as_ref().ok()?;
        self.accuracies().map(|_| validation.standard_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accuracies_are_means_unless_a_retrain_failed() {
        let report = |correct| AccuracyReport { correct, total: 100 };
        let mut seeds = Seeds::default();
        assert_eq!((seeds.accuracies(), seeds.standard_error()), (None, None));
        seeds.add(Ok([report(80), report(70)]));
        assert_eq!(seeds.standard_error(), Some(0.04));
        seeds.add(Ok([report(85), report(75)]));
        assert_eq!(seeds.accuracies(), Some([0.825, 0.725]));
        assert_eq!((seeds.count(), seeds.failure()), (2, None));
        seeds.add(Err("the loss became NaN".to_owned()));
        assert_eq!((seeds.accuracies(), seeds.standard_error()), (None, None));
        assert_eq!(seeds.failure().map(String::as_str), Some("the loss became NaN"));
    }
}
