//! Generalized advantage estimation.

/// Advantages of one episode, which ends after its last reward.
///
/// `A_t = delta_t + gamma * lambda * A_{t+1}` with `delta_t = r_t + gamma * V(s_{t+1}) - V(s_t)`. The
/// value and the advantage after the end are 0.
///
/// # Shapes
/// - `rewards` and `values`: `[steps]`; of two lengths, the shorter is used
/// - output: `[steps]`
///
/// # Source
/// Schulman et al. 2015 (arXiv 1506.02438), equation 16.
#[must_use]
pub fn gae(rewards: &[f64], values: &[f64], gamma: f64, lambda: f64) -> Vec<f64> {
    let steps = rewards.len().min(values.len());
    let mut advantages = vec![0.0; steps];
    let (mut next_value, mut next_advantage) = (0.0, 0.0);
    for t in (0..steps).rev() {
        let delta = rewards[t] + gamma * next_value - values[t];
        next_advantage = delta + gamma * lambda * next_advantage;
        advantages[t] = next_advantage;
        next_value = values[t];
    }
    advantages
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::gae;

    #[test]
    fn known_cases() {
        let values = [0.1, 0.2, 0.3, 0.4];
        let check = |rewards: &[f64], gamma, lambda, expected: &[f64]| {
            for (got, expected) in gae(rewards, &values, gamma, lambda).iter().zip(expected) {
                assert!((got - expected).abs() < 1e-6, "{got} is not {expected}");
            }
        };
        check(&[0.0, 0.0, 0.0, 0.5], 0.9, 1.0, &[0.2645, 0.205, 0.15, 0.1]);
        check(&[0.1, 0.2, 0.15, 0.5], 0.99, 0.99, &[0.819_544, 0.634_164, 0.344_010, 0.1]);
    }

    proptest! {
        #[test]
        fn equals_its_double_sum(
            steps in prop::collection::vec((-1.0f64..1.0, -1.0f64..1.0), 1..30),
            gamma in 0.0f64..=1.0,
            lambda in 0.0f64..=1.0,
        ) {
            let (rewards, values): (Vec<f64>, Vec<f64>) = steps.into_iter().unzip();
            let delta = |t: usize| {
                rewards[t] + gamma * values.get(t + 1).copied().unwrap_or(0.0) - values[t]
            };
            let advantages = gae(&rewards, &values, gamma, lambda);
            for (t, advantage) in advantages.iter().enumerate() {
                let sum: f64 = (t..rewards.len())
                    .map(|k| (gamma * lambda).powi((k - t) as i32) * delta(k))
                    .sum();
                prop_assert!((advantage - sum).abs() < 1e-9);
            }
        }
    }
}
