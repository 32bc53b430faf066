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

/// As [`each`], for whoever has answers already: what is `known` is not asked again, and `keep` gets each new answer and
/// gives it as it is to be told.
///
/// # Errors
/// As [`each`], and those of `keep`.
pub(crate) fn each_unknown(
    evaluator: &dyn Evaluator,
    batch: &[BitwidthAssignment],
    known: &dyn Fn(&BitwidthAssignment) -> Option<Evaluation>,
    keep: &(dyn Fn(&BitwidthAssignment, &Evaluation) -> Result<Evaluation, ReleqError> + Sync),
    answered: &(dyn Fn(usize, &Evaluation) -> Result<(), ReleqError> + Sync),
) -> Result<Vec<Evaluation>, ReleqError> {
    let mut answers: Vec<Option<Evaluation>> = Vec::with_capacity(batch.len());
    for (place, bits) in batch.iter().enumerate() {
        let known = known(bits);
        if let Some(known) = &known {
            answered(place, known)?;
        }
        answers.push(known);
    }
    let missing: Vec<usize> = (0..batch.len()).filter(|&place| answers[place].is_none()).collect();
    let asked: Vec<BitwidthAssignment> =
        missing.iter().map(|&place| batch[place].clone()).collect();
    let new = each(evaluator, &asked, &|place, answer| {
        answered(missing[place], &keep(&asked[place], answer)?)
    })?;
    for (place, answer) in missing.into_iter().zip(new) {
        answers[place] = Some(answer);
    }
    Ok(answers.into_iter().flatten().collect())
}
