//! What every evaluator must do.

use std::{
    num::NonZeroUsize,
    sync::{Mutex, PoisonError},
};

use releq_core::BitwidthAssignment;

use super::{Evaluation, Evaluator, Parallel};

/// Checks an evaluator on `assignments`, several distinct ones that it can answer: the same answer every time,
/// in any order, one by one, in a batch, of which it tells each answer, and from several threads; accuracies in 0 to 1.
///
/// # Panics
/// If the evaluator breaks a rule; the message says which, and for which assignment.
pub fn check_evaluator(evaluator: &dyn Evaluator, assignments: &[BitwidthAssignment]) {
    let full_precision = evaluator.full_precision();
    assert!(
        full_precision > 0.0 && full_precision <= 1.0,
        "full precision is above 0 and at most 1, got {full_precision:?}"
    );
    assert_eq!(evaluator.full_precision(), full_precision, "full precision is always the same");
    let ask = |bits: &BitwidthAssignment| match evaluator.evaluate(bits) {
        Ok(answer) => answer,
        Err(error) => panic!("{bits}: {error}"),
    };
    let first: Vec<Evaluation> = assignments.iter().map(ask).collect();
    for (bits, answer) in assignments.iter().zip(&first) {
        if let Some(accuracy) = answer.accuracy() {
            assert!((0.0..=1.0).contains(&accuracy), "{bits}: an accuracy of {accuracy}");
        }
    }
    for (bits, answer) in assignments.iter().zip(&first).rev() {
        assert_eq!(&ask(bits), answer, "{bits}: another answer the second time");
    }
    let batch = |evaluator: &dyn Evaluator, how: &str| {
        let told = Mutex::new(vec![None; assignments.len()]);
        let answered = |place: usize, answer: &Evaluation| {
            let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
            assert!(place < told.len(), "{how}: told of place {place} of {}", told.len());
            assert!(told[place].is_none(), "{how}: told twice of place {place}");
            told[place] = Some(answer.clone());
            Ok(())
        };
        let answers = match evaluator.evaluate_each(assignments, &answered) {
            Ok(answers) => answers,
            Err(error) => panic!("{how}: {error}"),
        };
        let told = told.into_inner().unwrap_or_else(PoisonError::into_inner);
        let told: Vec<Evaluation> = told.into_iter().flatten().collect();
        assert_eq!(told, answers, "{how}: told of every answer");
        assert_eq!(answers.len(), assignments.len(), "{how}: as many answers as questions");
        for ((bits, one), all) in assignments.iter().zip(&first).zip(&answers) {
            assert_eq!(one, all, "{bits}: another answer {how}");
        }
    };
    batch(evaluator, "in a batch");
    let Some(threads) = NonZeroUsize::new(3) else { return };
    batch(&Parallel::new(evaluator, threads), "on three threads");
    match evaluator.evaluate_each(&[], &|_, _| Ok(())) {
        Ok(answers) => assert!(answers.is_empty(), "no questions have no answers"),
        Err(error) => panic!("an empty batch: {error}"),
    }
}
