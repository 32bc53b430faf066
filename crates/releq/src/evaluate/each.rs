//! A batch of questions to an evaluator that may be anybody's.

use std::sync::{Mutex, PoisonError};

use releq_core::BitwidthAssignment;

use super::{Evaluation, Evaluator};
use crate::{ReleqError, guard::guard};

/// As [`Evaluator::evaluate_each`], for whoever keeps the answers: `answered` hears of every place of the batch once,
/// whatever the evaluator tells, and there are as many answers as questions.
///
/// # Errors
/// Those of the evaluator and of `answered`; [`ReleqError::Panicked`], [`ReleqError::Answers`].
pub(crate) fn each(
    evaluator: &dyn Evaluator,
    batch: &[BitwidthAssignment],
    answered: &(dyn Fn(usize, &Evaluation) -> Result<(), ReleqError> + Sync),
) -> Result<Vec<Evaluation>, ReleqError> {
    let piece = || format!("evaluator `{}`", evaluator.name());
    let told = Mutex::new(vec![false; batch.len()]);
    let first = |place: usize| {
        let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
        told.get_mut(place).map(|told| !std::mem::replace(told, true))
    };
    let tell = |place: usize, answer: &Evaluation| match first(place) {
        Some(true) => answered(place, answer),
        Some(false) => Ok(()),
        None => {
            let source = format!("it answers question {place} of {}", batch.len()).into();
            Err(ReleqError::Piece { piece: piece(), source })
        }
    };
    let answers = guard(piece, || evaluator.evaluate_each(batch, &tell))?;
    if answers.len() != batch.len() {
        let (expected, got) = (batch.len(), answers.len());
        return Err(ReleqError::Answers { piece: piece(), expected, got });
    }
    for (place, answer) in answers.iter().enumerate() {
        tell(place, answer)?;
    }
    Ok(answers)
}
