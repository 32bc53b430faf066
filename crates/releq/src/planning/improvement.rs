//! How much better than the best an assignment may turn out to be.

use super::surrogate::Guess;

/// Nodes of Gauss-Hermite quadrature with seven points for the standard normal distribution.
///
/// # Source
/// Abramowitz and Stegun, table 25.10, with the nodes times the square root of 2 and the weights over that of pi.
const NODES: [(f64, f64); 7] = [
    (-3.750_439_717_725_742, 0.000_548_268_855_972_218),
    (-2.366_759_410_734_541, 0.030_757_123_967_586_5),
    (-1.154_405_394_739_968, 0.240_123_178_605_012_7),
    (0.0, 0.457_142_857_142_857_1),
    (1.154_405_394_739_968, 0.240_123_178_605_012_7),
    (2.366_759_410_734_541, 0.030_757_123_967_586_5),
    (3.750_439_717_725_742, 0.000_548_268_855_972_218),
];

/// Expected value, over the accuracies that `guess` thinks possible, of what the reward exceeds `best` by.
///
/// # Source
/// Jones, Schonlau and Welch 1998; by quadrature, since rewards are no linear functions of the accuracy.
pub(super) fn expected_improvement<E>(
    guess: Guess,
    best: f64,
    mut reward: impl FnMut(f64) -> Result<f64, E>,
) -> Result<f64, E> {
    let mut sum = 0.0;
    for (node, weight) in NODES {
        let accuracy = (guess.mean + node * guess.deviation).max(0.0);
        sum += weight * (reward(accuracy)? - best).max(0.0);
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nodes_have_the_moments_of_the_normal_distribution() {
        let moment = |power: i32| -> f64 { NODES.iter().map(|(x, w)| w * x.powi(power)).sum() };
        for (power, expected) in [(0, 1.0), (2, 1.0), (4, 3.0), (6, 15.0), (12, 10395.0)] {
            assert!((moment(power) / expected - 1.0).abs() < 1e-9, "{power}: {}", moment(power));
        }
        assert!(moment(1).abs() < 1e-12 && moment(7).abs() < 1e-9);
    }

    #[test]
    fn uncertainty_is_worth_something() {
        let improvement = |mean, deviation| {
            expected_improvement(Guess { mean, deviation }, 0.9, Ok::<f64, ()>).unwrap()
        };
        assert_eq!(improvement(0.8, 0.0), 0.0);
        assert!(improvement(0.8, 0.1) > 0.0);
        assert!((improvement(1.0, 0.0) - 0.1).abs() < 1e-12);
    }
}
