//! How good the best assignment is after so many measurements: our agent against the searches that it has to beat, on twenty
//! drawn landscapes of 5 to 30 layers.
//!
//! Every line has the best reward seen after 25, 50 and 100 measurements, mean over the seeds, as a share of the best that
//! any of the searches found on that landscape. `cargo bench --bench searches -- --seeds 3`.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    missing_docs,
    reason = "a benchmark may fail loudly"
)]

use releq::{
    AgentKind, AgentShape, Budget, Problem, Search, SearchLayer, core::LayerProfile,
    evaluate::Evaluator,
};
use releq_test_support::Landscape;

const AFTER: [usize; 3] = [25, 50, 100];

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    // Run by `cargo test`, which does not say `--bench`, it only has to work.
    let test = !arguments.iter().any(|argument| argument == "--bench");
    let seeds = arguments
        .iter()
        .position(|argument| argument == "--seeds")
        .and_then(|place| arguments.get(place + 1))
        .map_or(1, |seeds| seeds.parse().unwrap());
    let (landscapes, most) = if test { (1, 30) } else { (20, 100) };
    let agents = [
        ("planned", AgentKind::default()),
        ("local", AgentKind::Local),
        ("evolution", AgentKind::Evolution),
        ("random", AgentKind::Random),
    ];
    let mut no_worse = [[0; 2]; 3];
    for landscape in 1..=landscapes {
        let layers = usize::try_from(5 + (landscape * 7) % 26).unwrap();
        let accuracy = Landscape::draw(landscape, layers);
        let curves: Vec<Vec<f64>> = agents
            .iter()
            .map(|(_, kind)| mean_curve(kind, &accuracy, layers, seeds, most))
            .collect();
        let best = curves.iter().flatten().copied().fold(f64::MIN, f64::max);
        for ((name, _), curve) in agents.iter().zip(&curves) {
            let shares: Vec<String> =
                curve.iter().map(|reward| format!("{:.4}", reward / best)).collect();
            println!("{landscape:2} {layers:2} layers  {name:10} {}", shares.join("  "));
        }
        for (place, [at_least, more]) in no_worse.iter_mut().enumerate() {
            let (ours, local) = (curves[0][place], curves[1][place]);
            *at_least += i32::from(ours >= local);
            *more += i32::from(ours > local);
        }
    }
    for (after, [at_least, more]) in AFTER.iter().zip(no_worse) {
        println!(
            "after {after:3}: no worse than local search on {at_least} of {landscapes}, better on {more}"
        );
    }
}

/// Best reward after so many measurements, mean over the seeds.
fn mean_curve(
    kind: &AgentKind,
    accuracy: &dyn Evaluator,
    layers: usize,
    seeds: u64,
    most: usize,
) -> Vec<f64> {
    let layer = |index| SearchLayer {
        profile: LayerProfile::linear(format!("layer{index}"), 1, 1),
        weight_std: 0.0,
        fixed: None,
    };
    let problem = Problem::builder().layers((0..layers).map(layer).collect()).build().unwrap();
    let budget = Budget { evaluations: Some(most), ..Budget::default() };
    let mut means = vec![0.0; AFTER.len()];
    for seed in 1..=seeds {
        let mut agent = kind.build(&AgentShape::new(&problem, seed)).unwrap();
        let search = Search::new(&problem, agent.as_mut(), accuracy, budget);
        let scored = search.planning(kind.planning()).run().unwrap().scored;
        for (mean, after) in means.iter_mut().zip(AFTER) {
            let best = scored.iter().take(after).map(|scored| scored.reward);
            *mean += best.fold(f64::MIN, f64::max) / seeds as f64;
        }
    }
    means
}
