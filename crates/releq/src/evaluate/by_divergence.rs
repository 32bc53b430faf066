//! Judging assignments by the divergence of their outputs from those in full precision.

use releq_core::BitwidthAssignment;

use super::{Evaluation, Evaluator, Measurement};
use crate::ReleqError;

/// An evaluator whose measurements are judged by their divergence from full precision, in place of the images that are
/// classified correctly.
///
/// Accuracy is a count: to tell assignments apart that differ by a thousandth, it takes a million images. Every image
/// has a say in the divergence, to which the loss of accuracy is proportional; `docs/reproduction.md` has our measurement.
/// Only [`Measurement::estimated`] is set: the accuracy stays what was counted. Measurements that were not compared with
/// full precision are judged by their accuracy.
#[derive(Clone, Copy, Debug)]
pub struct ByDivergence<E> {
    inner: E,
    accuracy_per_nat: f64,
}

impl<E: Evaluator> ByDivergence<E> {
    /// Judges the measurements of `inner`; with every nat of divergence, so much accuracy is lost
    /// ([`Sensitivities::accuracy_per_nat`](crate::Sensitivities::accuracy_per_nat)).
    #[must_use]
    pub const fn new(inner: E, accuracy_per_nat: f64) -> Self {
        Self { inner, accuracy_per_nat }
    }

    fn judged(&self, evaluation: Evaluation) -> Evaluation {
        let Evaluation::Measured(measured) = evaluation else { return evaluation };
        let estimated = measured.compared.as_ref().map(|compared| {
            let loss = self.accuracy_per_nat * compared.divergence.value;
            (self.full_precision() - loss).clamp(0.0, 1.0)
        });
        Evaluation::Measured(Measurement { estimated, ..measured })
    }
}

impl<E: Evaluator> Evaluator for ByDivergence<E> {
    fn full_precision(&self) -> f64 {
        self.inner.full_precision()
    }

    fn evaluate(&self, bits: &BitwidthAssignment) -> Result<Evaluation, ReleqError> {
        Ok(self.judged(self.inner.evaluate(bits)?))
    }

    fn evaluate_each(
        &self,
        batch: &[BitwidthAssignment],
        answered: &(dyn Fn(usize, &Evaluation) -> Result<(), ReleqError> + Sync),
    ) -> Result<Vec<Evaluation>, ReleqError> {
        let answers = self
            .inner
            .evaluate_each(batch, &|place, answer| answered(place, &self.judged(answer.clone())))?;
        Ok(answers.into_iter().map(|answer| self.judged(answer)).collect())
    }

    fn name(&self) -> &str {
        self.inner.name()
    }
}

#[cfg(test)]
mod tests {
    use releq_train::{Compared, Estimate};

    use super::*;
    use crate::evaluate::check_evaluator;

    /// Accuracies are all alike; divergences fall with the bits.
    struct Alike;

    impl Evaluator for Alike {
        fn full_precision(&self) -> f64 {
            0.8
        }

        fn evaluate(&self, bits: &BitwidthAssignment) -> Result<Evaluation, ReleqError> {
            if bits[0].is_float() {
                return Ok(Evaluation::new(0.7));
            }
            let value = 0.5 / f64::from(bits[0].get());
            let divergence = Estimate { value, standard_error: 0.0 };
            let compared: Compared =
                serde_json::from_value(serde_json::json!({ "divergence": divergence })).unwrap();
            Ok(Measurement::new(0.7).with_compared(compared).into())
        }
    }

    #[test]
    fn what_was_compared_is_judged_by_its_divergence_and_the_rest_as_it_was() {
        let evaluator = ByDivergence::new(Alike, 0.4);
        let all = ["2", "5", "8", "float"].map(|bits| bits.parse().unwrap());
        check_evaluator(&evaluator, &all);
        let judged = all.map(|bits| match evaluator.evaluate(&bits).unwrap() {
            Evaluation::Measured(measured) => (measured.accuracy, measured.estimated),
            other => panic!("{other:?}"),
        });
        assert_eq!(judged[0], (0.7, Some(0.8 - 0.4 * 0.25)));
        assert_eq!(judged[1], (0.7, Some(0.8 - 0.4 * 0.1)));
        assert_eq!(judged[3], (0.7, None));
        let worst = ByDivergence::new(Alike, 40.0).evaluate(&"2".parse().unwrap()).unwrap();
        assert!(matches!(worst, Evaluation::Measured(m) if m.estimated == Some(0.0)));
    }
}
