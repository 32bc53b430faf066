//! What training lowers.

use releq_data::Label;

/// Mean cross-entropy of `[batch, outputs]` logits, and its gradient.
pub(super) fn cross_entropy(logits: &[f32], labels: &[Label], gradient: &mut [f32]) -> f32 {
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
