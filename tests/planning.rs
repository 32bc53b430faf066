//! A search that plans finds what others find with many more measurements, and measures nothing in vain.
#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

use std::sync::{Arc, Mutex};

use releq::{
    ActionSpace, AgentKind, AgentShape, Budget, EvaluationMode, Planning, Problem, ProblemBuilder,
    ReleqError, Search, SearchLayer, SearchOutcome, Sensitivities, StopReason,
    core::{Bitwidth, BitwidthAssignment, LayerProfile},
    evaluate::{Evaluation, Evaluator},
    hw::{Bound, CostLimit, MeanBits},
};
use releq_test_support::Landscape;
use serde_json::json;

fn builder(layers: usize) -> ProblemBuilder {
    let layer = |index| SearchLayer {
        profile: LayerProfile::linear(format!("layer{index}"), 1, 1),
        weight_std: 0.0,
        fixed: None,
    };
    Problem::builder().layers((0..layers).map(layer).collect())
}

fn search(
    kind: &AgentKind,
    problem: &Problem,
    evaluator: &dyn Evaluator,
    evaluations: usize,
    seed: u64,
) -> SearchOutcome {
    let mut agent = kind.build(&AgentShape::new(problem, seed)).unwrap();
    let budget = Budget { evaluations: Some(evaluations), ..Budget::default() };
    let search = Search::new(problem, agent.as_mut(), evaluator, budget);
    search.planning(kind.planning()).run().unwrap()
}

/// The default agent against the rival that a sceptic would write, on landscapes whose layers differ widely and spoil each
/// other.
#[test]
fn it_is_ahead_of_local_search_on_drawn_landscapes() {
    let mut ahead = 0.0;
    for seed in 1..=3 {
        let landscape = Landscape::draw(seed, 8);
        let problem = builder(8).build().unwrap();
        let best = |kind: &AgentKind| {
            let found = search(kind, &problem, &landscape, 32, seed);
            assert_eq!(found.failures, 0);
            found.best.unwrap().reward
        };
        ahead += best(&AgentKind::default()) - best(&AgentKind::Local);
    }
    assert!(ahead > 0.0, "{ahead}");
}

/// What a landscape's layers suffer alone, as if it had been measured.
fn sensitivities(landscape: &Landscape, layers: usize) -> Sensitivities {
    let known = |layer: usize, bits: u8| {
        let divergence = json!({ "value": landscape.damage(layer, bits), "standard_error": 0.0 });
        json!({ "bits": bits, "compared": { "divergence": divergence } })
    };
    let of = |layer: usize| {
        let bits: Vec<_> = (2..=8).map(|bits| known(layer, bits)).collect();
        json!({ "layer": layer, "name": format!("layer{layer}"), "bits": bits })
    };
    let all: Vec<_> = (0..layers).map(of).collect();
    serde_json::from_value(json!({ "images": 1, "layers": all })).unwrap()
}

/// Layers that spoil each other, so that the sum of what they do alone is not all of it.
#[test]
fn what_is_known_of_single_layers_saves_measurements() {
    let mut saved = 0.0;
    for seed in 1..=3 {
        let landscape = Landscape::draw(seed, 12);
        let problem = builder(12).build().unwrap();
        let best = |known: Option<Sensitivities>| {
            let kind = AgentKind::default();
            let mut agent = kind.build(&AgentShape::new(&problem, seed)).unwrap();
            let budget = Budget { evaluations: Some(16), ..Budget::default() };
            let search = Search::new(&problem, agent.as_mut(), &landscape, budget);
            let found = search.planning(kind.planning()).sensitivities(known).run().unwrap();
            found.best.unwrap().reward
        };
        let with = best(Some(sensitivities(&landscape, 12)));
        saved += with - best(None);
        let frontier = sensitivities(&landscape, 12).frontier(&problem).unwrap();
        let proposed = frontier.iter().map(|p| problem.score(&p.bits, &landscape).unwrap().reward);
        let knapsack = proposed.fold(f64::NEG_INFINITY, f64::max);
        assert!(
            with >= 0.97 * knapsack,
            "seed {seed}: {with} of {knapsack} with all of the frontier"
        );
    }
    assert!(saved > 0.0, "{saved}");
}

#[test]
fn the_greedy_answer_is_the_best_that_was_measured() {
    let landscape = Landscape::draw(4, 5);
    let problem = builder(5).build().unwrap();
    let found = search(&AgentKind::default(), &problem, &landscape, 40, 1);
    assert_eq!(found.greedy.unwrap().bits, found.best.unwrap().bits);
}

/// Counts what was asked for.
struct Counting {
    landscape: Landscape,
    asked: Mutex<Vec<BitwidthAssignment>>,
}

impl Evaluator for Counting {
    fn full_precision(&self) -> f64 {
        self.landscape.full_precision()
    }
    fn evaluate(&self, bits: &BitwidthAssignment) -> Result<Evaluation, ReleqError> {
        self.asked.lock().unwrap().push(bits.clone());
        self.landscape.evaluate(bits)
    }
}

#[test]
fn fixed_layers_limits_and_the_budget_are_kept() {
    let limit = CostLimit::new(Arc::new(MeanBits), Bound::Absolute(27.0)).unwrap();
    let problem = builder(6).fix_layer("layer2", Bitwidth::EIGHT).limit(limit).build().unwrap();
    let counting = Counting { landscape: Landscape::draw(5, 6), asked: Mutex::default() };
    let found = search(&AgentKind::default(), &problem, &counting, 30, 1);
    assert!(found.evaluations <= 30 && found.best.as_ref().unwrap().over_limit.is_none());
    let asked = counting.asked.into_inner().unwrap();
    for bits in &asked {
        assert!(problem.admits(bits), "{bits}");
        let uniform = bits.iter().enumerate().all(|(i, b)| i == 2 || *b == bits[0]);
        assert!(uniform || problem.over_limit(bits).unwrap().is_none(), "{bits}");
    }
    let mut distinct = asked.clone();
    distinct.sort();
    distinct.dedup();
    assert_eq!(distinct.len(), asked.len(), "nothing is measured twice");
}

#[test]
fn a_search_that_cannot_improve_has_settled() {
    /// Every assignment is as good as full precision, so two bits everywhere are the best.
    struct Perfect;
    impl Evaluator for Perfect {
        fn full_precision(&self) -> f64 {
            0.9
        }
        fn evaluate(&self, _: &BitwidthAssignment) -> Result<Evaluation, ReleqError> {
            Ok(Evaluation::new(0.9))
        }
    }
    let problem = builder(4).build().unwrap();
    let found = search(&AgentKind::default(), &problem, &Perfect, 500, 1);
    assert_eq!(found.stop, StopReason::Converged);
    assert_eq!(found.best.unwrap().bits.to_string(), "2-2-2-2");
    assert!(found.evaluations < 50, "{}", found.evaluations);
}

#[test]
fn layers_that_collapse_at_bitwidths_of_their_own_are_found_out() {
    struct Cliffs;
    impl Evaluator for Cliffs {
        fn full_precision(&self) -> f64 {
            0.95
        }
        fn evaluate(&self, bits: &BitwidthAssignment) -> Result<Evaluation, ReleqError> {
            let alive = bits.to_bits().iter().zip([4, 7, 3, 5]).all(|(bits, need)| *bits >= need);
            Ok(Evaluation::new(if alive { 0.95 } else { 0.12 }))
        }
    }
    let problem = builder(4).build().unwrap();
    for seed in 1..=4 {
        let found = search(&AgentKind::default(), &problem, &Cliffs, 60, seed);
        assert_eq!(found.best.unwrap().bits.to_string(), "4-7-3-5", "seed {seed}");
    }
}

#[test]
fn evaluations_that_fail_are_counted_and_do_not_end_it() {
    struct Fragile(Landscape);
    impl Evaluator for Fragile {
        fn full_precision(&self) -> f64 {
            self.0.full_precision()
        }
        fn evaluate(&self, bits: &BitwidthAssignment) -> Result<Evaluation, ReleqError> {
            if bits[1].get() < 4 {
                return Ok(Evaluation::failed("the loss became NaN"));
            }
            self.0.evaluate(bits)
        }
    }
    let problem = builder(5).build().unwrap();
    let found = search(&AgentKind::default(), &problem, &Fragile(Landscape::draw(6, 5)), 40, 1);
    assert!(found.failures >= 2 && found.best.unwrap().bits[1].get() >= 4);

    struct Dead;
    impl Evaluator for Dead {
        fn full_precision(&self) -> f64 {
            0.9
        }
        fn evaluate(&self, _: &BitwidthAssignment) -> Result<Evaluation, ReleqError> {
            Ok(Evaluation::failed("the loss became NaN"))
        }
    }
    let found = search(&AgentKind::default(), &problem, &Dead, 20, 1);
    assert_eq!(found.failures, found.evaluations);
}

#[test]
fn what_planning_cannot_do_is_refused_by_name() {
    let refused = |problem: &Problem, planning: Planning, expected: &str| {
        let mut agent = AgentKind::default().build(&AgentShape::new(problem, 1)).unwrap();
        let landscape = Landscape::draw(1, 4);
        let budget = Budget { episodes: Some(8), ..Budget::default() };
        let search = Search::new(problem, agent.as_mut(), &landscape, budget).planning(planning);
        let error = search.run().unwrap_err().to_string();
        assert!(error.contains("planning") && error.contains(expected), "{error}");
    };
    let plain = builder(4).build().unwrap();
    refused(&plain, Planning { batch: 0, ..Planning::default() }, "`batch` is 0");
    let endless = Planning { episodes: 4_000_000_000, ..Planning::default() };
    refused(&plain, endless, "`episodes` is 4000000000; it must lie in 0 to 10000");
    refused(&plain, Planning { imitated: usize::MAX, ..Planning::default() }, "`imitated`");
    refused(&plain, Planning { pessimism: f64::NAN, ..Planning::default() }, "`pessimism`");
    let restricted = builder(4).action_space(ActionSpace::Restricted).build().unwrap();
    refused(&restricted, Planning::default(), "action space flexible");
    let every_layer = builder(4).evaluation(EvaluationMode::PerLayer).build().unwrap();
    refused(&every_layer, Planning::default(), "evaluation mode per-episode");
}
