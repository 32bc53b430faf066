//! What training lowers.

use releq_data::Label;

use crate::Target;

/// Mean loss of `[batch, outputs]` logits, and its gradient.
pub(super) fn loss(logits: &[f32], target: Target<'_>, batch: usize, gradient: &mut [f32]) -> f32 {
    match target {
        Target::Labels(labels) => cross_entropy(logits, labels, gradient),
        Target::Teacher(teacher) => distillation(logits, teacher, batch, gradient),
    }
}

/// Mean cross-entropy between the softmax of the teacher's logits and that of the network's, and its gradient:
/// the difference of the two.
fn distillation(logits: &[f32], teacher: &[f32], batch: usize, gradient: &mut [f32]) -> f32 {
    let outputs = logits.len() / batch;
    let share = 1.0 / batch as f32;
    let mut loss = 0.0f64;
    let mut wanted = vec![0.0; outputs];
    let rows = logits.chunks_exact(outputs).zip(gradient.chunks_exact_mut(outputs));
    for ((logits, gradient), teacher) in rows.zip(teacher.chunks_exact(outputs)) {
        softmax(teacher, &mut wanted);
        let log_sum = softmax(logits, gradient);
        for ((gradient, logit), wanted) in gradient.iter_mut().zip(logits).zip(&wanted) {
            loss += f64::from(wanted * (log_sum - logit));
            *gradient = (*gradient - wanted) * share;
        }
    }
    (loss * f64::from(share)) as f32
}

/// Softmax of one row; gives the logarithm of the sum of the exponentials.
fn softmax(logits: &[f32], probabilities: &mut [f32]) -> f32 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for (probability, logit) in probabilities.iter_mut().zip(logits) {
        *probability = (logit - max).exp();
        sum += *probability;
    }
    probabilities.iter_mut().for_each(|probability| *probability /= sum);
    sum.ln() + max
}

/// Mean cross-entropy of `[batch, outputs]` logits, and its gradient.
fn cross_entropy(logits: &[f32], labels: &[Label], gradient: &mut [f32]) -> f32 {
    let outputs = logits.len() / labels.len();
    let share = 1.0 / labels.len() as f32;
    let mut loss = 0.0f64;
    let rows = logits.chunks_exact(outputs).zip(gradient.chunks_exact_mut(outputs));
    for ((logits, gradient), &label) in rows.zip(labels) {
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let mut sum = 0.0;
        for (gradient, logit) in gradient.iter_mut().zip(logits) {
            *gradient = (logit - max).exp();
            sum += *gradient;
        }
        let label = usize::from(label);
        loss += f64::from(sum.ln() + max - logits[label]);
        gradient.iter_mut().for_each(|gradient| *gradient *= share / sum);
        gradient[label] -= share;
    }
    (loss * f64::from(share)) as f32
}
