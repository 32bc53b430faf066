//! A search stopped between any two batches and resumed from its state ends as if it had never stopped.
#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

use std::time::Duration;

use releq::{
    ActionSpace, Budget, EvaluationMode, Planning, Problem, ProblemBuilder, ReleqError, Search,
    SearchState,
    agent::{Agent, Evolution, Exhaustive, GreedySearch, LocalSearch, PpoConfig, RandomSearch},
    core::{Bitwidth, BitwidthAssignment, sealed},
    evaluate::{Evaluation, Evaluator},
    hw::CostWeighted,
    reward::RewardKind,
    zoo::lenet,
};
use releq_test_support::timeless;
use serde_json::Value;

/// Accuracy falls by 0.2 for every bit that a layer has fewer than it needs.
struct Needs([u8; 4]);

impl Evaluator for Needs {
    fn full_precision(&self) -> f64 {
        0.99
    }
    fn evaluate(&self, bits: &BitwidthAssignment) -> Result<Evaluation, ReleqError> {
        let missing: u8 =
            bits.to_bits().iter().zip(self.0).map(|(&b, need)| need.saturating_sub(b)).sum();
        Ok(Evaluation::new((0.99 - 0.2 * f64::from(missing)).max(0.0)))
    }
}

const NEEDS: Needs = Needs([4, 2, 3, 2]);

fn builder() -> ProblemBuilder {
    Problem::builder().network(&lenet(), None)
}

type Make<'a> = &'a dyn Fn(&Problem) -> Box<dyn Agent>;

fn begin<'a>(
    problem: &'a Problem,
    agent: &'a mut dyn Agent,
    budget: Budget,
    planning: Option<Planning>,
) -> Search<'a> {
    Search::new(problem, agent, &NEEDS, budget).planning(planning)
}

/// Stops after every batch in turn, goes through text, and compares the ends.
fn check(problem: &Problem, budget: Budget, planning: Option<Planning>, make: Make<'_>) {
    let mut agent = make(problem);
    let straight = timeless(&begin(problem, agent.as_mut(), budget, planning).run().unwrap());
    for stop in 0.. {
        let mut first = make(problem);
        let mut search = begin(problem, first.as_mut(), budget, planning);
        let mut over = false;
        for _ in 0..stop {
            over = !search.step().unwrap();
        }
        if over {
            assert!(stop > 2, "a search of {stop} batches shows little");
            break;
        }
        let text = serde_json::to_string(&search.state().unwrap()).unwrap();
        drop(search);
        let state: SearchState = serde_json::from_str(&text).unwrap();
        let mut second = make(problem);
        let resumed = Search::resume(problem, second.as_mut(), &NEEDS, state).unwrap();
        assert_eq!(timeless(&resumed.run().unwrap()), straight, "stopped after {stop} batches");
    }
}

fn ppo(problem: &Problem) -> Box<dyn Agent> {
    let (inputs, actions) = (problem.observation_len(), problem.action_count());
    Box::new(PpoConfig::quick().init(inputs, actions, 5).unwrap())
}

fn random(problem: &Problem) -> Box<dyn Agent> {
    Box::new(RandomSearch::new(problem.action_count(), 3, 4))
}

#[test]
fn every_agent_in_every_mode_ends_the_same() {
    let episodes = Budget { episodes: Some(40), ..Budget::default() };
    let evaluations = Budget { evaluations: Some(30), patience: Some(16), ..Budget::default() };
    let plain = builder().build().unwrap();
    check(&plain, episodes, None, &ppo);
    check(&plain, evaluations, None, &random);
    check(&plain, evaluations, None, &|problem| {
        Box::new(GreedySearch::new(problem.action_count(), problem.episode_len()))
    });
    let few = builder().actions([2, 4].map(|bits| Bitwidth::new(bits).unwrap())).build().unwrap();
    check(&few, Budget::default(), None, &|problem| {
        Box::new(Exhaustive::new(problem.action_count(), problem.episode_len(), 3))
    });
    let planning = Planning { batch: 3, episodes: 16, ..Planning::default() };
    check(&plain, evaluations, Some(planning), &ppo);
    check(&plain, evaluations, None, &|problem| {
        Box::new(LocalSearch::new(problem.action_count(), problem.episode_len(), 2, 2))
    });
    check(&plain, evaluations, None, &|problem| {
        Box::new(Evolution::new(problem.action_count(), problem.episode_len(), 2, 3))
    });
    let restricted = builder().action_space(ActionSpace::Restricted).build().unwrap();
    check(&restricted, episodes, None, &ppo);
    let every_layer = builder().evaluation(EvaluationMode::PerLayer).build().unwrap();
    check(&every_layer, evaluations, None, &random);
}

#[test]
fn a_state_of_something_else_is_refused_with_the_field_named() {
    let problem = builder().build().unwrap();
    let budget = Budget { episodes: Some(40), ..Budget::default() };
    let mut agent = ppo(&problem);
    let mut search = Search::new(&problem, agent.as_mut(), &NEEDS, budget);
    search.step().unwrap();
    let state = search.state().unwrap();

    let refused = |problem: &Problem, agent: &mut dyn Agent, state: SearchState, field: &str| {
        let before = agent.snapshot().unwrap();
        let error = Search::resume(problem, agent, &NEEDS, state).unwrap_err().to_string();
        assert!(error.contains(field), "`{error}` lacks `{field}`");
        assert_eq!(agent.snapshot().unwrap(), before, "the agent is as it was");
    };
    let other = builder().cost(CostWeighted::default()).build().unwrap();
    refused(&other, ppo(&other).as_mut(), state.clone(), "problem.cost");
    let other = builder().actions([Bitwidth::ONE, Bitwidth::EIGHT]).build().unwrap();
    refused(&other, ppo(&other).as_mut(), state.clone(), "problem.actions");
    let other = builder().fix_layer("fc1", Bitwidth::EIGHT).build().unwrap();
    refused(&other, ppo(&other).as_mut(), state.clone(), "problem.layers");
    // The same names, other settings.
    let other: RewardKind = "shaped:threshold=0.2".parse().unwrap();
    let other = builder().reward(other.build()).build().unwrap();
    refused(&other, ppo(&other).as_mut(), state.clone(), "problem.answers");
    refused(&problem, random(&problem).as_mut(), state.clone(), "ppo");

    let changed = |change: &dyn Fn(&mut serde_json::Value)| -> SearchState {
        let mut value = serde_json::to_value(&state).unwrap();
        change(&mut value);
        serde_json::from_value(resealed(value)).unwrap()
    };
    for (state, field) in [
        (changed(&|v| v["full_precision"] = 0.5.into()), "full_precision"),
        (changed(&|v| drop(v["environment"]["asked"].as_array_mut().unwrap().pop())), "asked"),
        (changed(&|v| v["last_new_at"] = 99.into()), "last_new_at"),
        (changed(&|v| v["episodes"] = usize::MAX.into()), "episodes"),
        (changed(&|v| v["history"] = Vec::<Value>::new().into()), "episodes"),
        (changed(&|v| v["seconds"] = (-1.0).into()), "seconds"),
    ] {
        refused(&problem, ppo(&problem).as_mut(), state, field);
    }
    // What nothing contradicts goes on, however large.
    let endless = changed(&|v| {
        v["episodes"] = usize::MAX.into();
        v["history"][0]["episodes"] = usize::MAX.into();
        v["budget"]["episodes"] = Value::Null;
        v["budget"]["evaluations"] = 9.into();
        v["seconds"] = Duration::MAX.as_secs_f64().next_down().into();
        v["environment"]["evaluation_seconds"] = v["seconds"].clone();
    });
    let mut agent = ppo(&problem);
    let mut search = Search::resume(&problem, agent.as_mut(), &NEEDS, endless).unwrap();
    search.step().unwrap();
    search.state().unwrap();

    let mut unknown = serde_json::to_value(&state).unwrap();
    unknown["surprise"] = 1.into();
    let error = serde_json::from_value::<SearchState>(resealed(unknown)).unwrap_err().to_string();
    assert!(error.contains("surprise"), "{error}");
    let mut old = serde_json::to_value(&state).unwrap();
    old["format"] = "releq search 1".into();
    let error = serde_json::from_value::<SearchState>(old).unwrap_err().to_string();
    assert!(error.contains("format is \"releq search 1\"") && error.contains("anew"), "{error}");
}

/// A state with the checksum of what it has now.
fn resealed(mut state: Value) -> Value {
    sealed::seal(state.as_object_mut().unwrap());
    state
}

#[test]
fn a_state_with_any_bit_flipped_or_any_end_missing_is_refused() {
    let mut refused = 0;
    let problem = builder().build().unwrap();
    let mut agent = random(&problem);
    let budget = Budget { episodes: Some(40), ..Budget::default() };
    let mut search = Search::new(&problem, agent.as_mut(), &NEEDS, budget);
    search.step().unwrap();
    let state = search.state().unwrap();
    let whole = serde_json::to_vec(&state).unwrap();
    assert_eq!(serde_json::from_slice::<SearchState>(&whole).unwrap(), state);
    for case in 0..200 {
        let place = case * (whole.len() - 1) / 199;
        let mut flipped = whole.clone();
        flipped[place] ^= 1 << (case % 8);
        for damaged in [&flipped, &whole[..place]] {
            // Another last digit may be the same number.
            match serde_json::from_slice::<SearchState>(damaged) {
                Ok(read) => assert!(read == state, "bit {} of byte {place}", case % 8),
                Err(_) => refused += 1,
            }
        }
    }
    assert!(refused > 390, "{refused}");
}
