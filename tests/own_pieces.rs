//! Pieces of the user's own that fail, panic, or answer with what is no answer: the run ends with an error
//! that names them, or goes on where it can, and nothing already measured is lost.
#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

use std::sync::atomic::{AtomicUsize, Ordering};

use releq::{
    Budget, Problem, ProblemBuilder, ReleqError, Search, SearchOutcome, StopReason,
    agent::{Agent, AgentError, Mode, RandomSearch, UpdateStats},
    core::{BitwidthAssignment, Cost, CostError, CostModel, LayerBits, LayerProfile, with_causes},
    evaluate::{Evaluation, Evaluator, Measurement, Parallel},
    hw::{CostKind, LimitConfig},
    reward::reward_fn,
    zoo::lenet,
};

fn builder() -> ProblemBuilder {
    Problem::builder().network(&lenet(), None)
}

const EPISODES: Budget =
    Budget { episodes: Some(60), evaluations: None, patience: None, wall_time: None };

fn run(problem: &Problem, evaluator: &dyn Evaluator) -> Result<SearchOutcome, ReleqError> {
    let mut agent = RandomSearch::new(problem.action_count(), 1, 4);
    Search::new(problem, &mut agent, evaluator, EPISODES).run()
}

/// Answers properly a number of times, then as told.
struct Breaks {
    after: usize,
    asked: AtomicUsize,
    how: fn() -> Result<Evaluation, ReleqError>,
}

impl Breaks {
    fn new(after: usize, how: fn() -> Result<Evaluation, ReleqError>) -> Self {
        Self { after, asked: AtomicUsize::new(0), how }
    }
}

impl Evaluator for Breaks {
    fn full_precision(&self) -> f64 {
        0.9
    }
    fn evaluate(&self, _: &BitwidthAssignment) -> Result<Evaluation, ReleqError> {
        let asked = self.asked.fetch_add(1, Ordering::Relaxed);
        if asked < self.after { Ok(Evaluation::new(0.8)) } else { (self.how)() }
    }
    fn name(&self) -> &str {
        "brittle"
    }
}

#[test]
fn an_evaluator_that_breaks_ends_the_search_with_what_there_is() {
    let problem = builder().build().unwrap();
    type Way = fn() -> Result<Evaluation, ReleqError>;
    let ways: [(Way, &str); 2] = [
        (|| panic!("the board is on fire"), "evaluator `brittle` panicked: the board is on fire"),
        (
            || {
                let source: Box<dyn std::error::Error + Send + Sync> = "no route to host".into();
                Err(source.into())
            },
            "evaluator `brittle` failed: no route to host",
        ),
    ];
    for (how, expected) in ways {
        let outcome = run(&problem, &Breaks::new(10, how)).unwrap();
        assert_eq!(outcome.stop, StopReason::Failed);
        assert!(outcome.error.as_ref().unwrap().contains(expected), "{:?}", outcome.error);
        // Two batches of four were whole; the third broke after two more.
        assert_eq!((outcome.scored.len(), outcome.evaluations, outcome.episodes), (10, 10, 8));
        assert!(outcome.best.is_some());
        // Where there is nothing to keep, the error itself comes back.
        let error = with_causes(&run(&problem, &Breaks::new(0, how)).unwrap_err());
        assert_eq!(error, expected);
        let threads = std::num::NonZeroUsize::new(3).unwrap();
        let error = run(&problem, &Parallel::new(Breaks::new(0, how), threads)).unwrap_err();
        assert_eq!(with_causes(&error), expected);
    }
}

#[test]
fn accuracies_that_cannot_be_count_as_failed() {
    let problem = builder().build().unwrap();
    let wrong: [fn() -> Result<Evaluation, ReleqError>; 4] = [
        || Ok(Evaluation::new(f64::NAN)),
        || Ok(Evaluation::new(f64::INFINITY)),
        || Ok(Evaluation::new(-0.1)),
        || Ok(Evaluation::new(80.0)),
    ];
    for how in wrong {
        let outcome = run(&problem, &Breaks::new(10, how)).unwrap();
        assert_eq!(outcome.stop, StopReason::Episodes);
        assert_eq!(outcome.failures, outcome.scored.len() - 10);
        assert!(outcome.scored[10].failure.as_ref().unwrap().contains("accuracy of"));
    }
}

#[test]
fn standard_errors_that_cannot_be_count_as_failed() {
    let problem = builder().build().unwrap();
    let measured = |standard_error| -> Result<Evaluation, ReleqError> {
        Ok(Measurement::new(0.8).with_standard_error(standard_error).into())
    };
    for how in [|| f64::NAN, || f64::INFINITY, || -0.1] {
        let evaluator = Answers { full_precision: 0.9, answer: Box::new(move || measured(how())) };
        let outcome = run(&problem, &evaluator).unwrap();
        assert_eq!(outcome.failures, outcome.scored.len());
        // What is written can be read again: JSON has no NaN.
        let json = serde_json::to_string(&outcome).unwrap();
        assert_eq!(serde_json::from_str::<SearchOutcome>(&json).unwrap(), outcome);
    }
}

#[test]
fn a_full_precision_that_no_accuracy_is_relative_to_is_refused() {
    let problem = builder().build().unwrap();
    for full_precision in [0.0, -1.0, 1.5, f64::NAN] {
        let evaluator = Answers { full_precision, answer: Box::new(|| Ok(Evaluation::new(0.5))) };
        let error = run(&problem, &evaluator).unwrap_err().to_string();
        assert!(error.contains("full precision of the evaluator `evaluator`"), "{error}");
        let bits = "2-2-2-2".parse().unwrap();
        assert!(problem.score(&bits, &evaluator).is_err());
    }
}

/// An evaluator that always answers the same.
struct Answers {
    full_precision: f64,
    answer: Box<dyn Fn() -> Result<Evaluation, ReleqError> + Send + Sync>,
}

impl Evaluator for Answers {
    fn full_precision(&self) -> f64 {
        self.full_precision
    }
    fn evaluate(&self, _: &BitwidthAssignment) -> Result<Evaluation, ReleqError> {
        (self.answer)()
    }
}

/// A cost model that gives what it is told.
struct Odd(fn() -> Result<Cost, CostError>);

impl CostModel for Odd {
    fn name(&self) -> &str {
        "odd"
    }
    fn unit(&self) -> &str {
        "oddities"
    }
    fn layer_cost(&self, _: &LayerProfile, _: LayerBits) -> Result<Cost, CostError> {
        (self.0)()
    }
}

#[test]
fn a_cost_model_that_gives_no_cost_is_named() {
    type Way = fn() -> Result<Cost, CostError>;
    let ways: [(Way, &str); 5] = [
        (|| Ok(Cost(f64::NAN)), "odd"),
        (|| Ok(Cost(-1.0)), "odd"),
        (|| Ok(Cost(0.0)), "odd is 0 oddities"),
        (|| panic!("out of cheese"), "cost model `odd` panicked: out of cheese"),
        (|| Err(CostError::other("odd", "no meter")), "odd failed"),
    ];
    for (how, expected) in ways {
        let error = builder().cost(Odd(how)).build().unwrap_err().to_string();
        assert!(error.contains(expected), "`{error}` lacks `{expected}`");
    }
}

#[test]
fn a_reward_that_gives_no_number_is_named() {
    let evaluator = Breaks::new(usize::MAX, || Ok(Evaluation::new(0.5)));
    // A huge reward is as bad as none: its square is infinite in the agent's arithmetic.
    for value in [f64::NAN, f64::INFINITY, 1e37, -1.1e6] {
        let reward = builder().reward(reward_fn("odd", move |_, _| value)).build().unwrap();
        let error = run(&reward, &evaluator).unwrap_err().to_string();
        assert!(error.contains(&format!("reward `odd`: {value:?} is not between")), "{error}");
    }
    let panics = builder().reward(reward_fn("tired", |_, _| panic!("enough"))).build().unwrap();
    let error = run(&panics, &evaluator).unwrap_err().to_string();
    assert!(error.contains("reward `tired` panicked: enough"), "{error}");
}

/// An agent that does what it is told.
struct Rogue {
    begin: usize,
    act: fn(usize) -> Result<Vec<usize>, AgentError>,
}

impl Agent for Rogue {
    fn name(&self) -> &str {
        "rogue"
    }
    fn begin(&mut self, _: usize, _: Mode) -> Option<usize> {
        Some(self.begin)
    }
    fn act(&mut self, observations: &[Vec<f32>]) -> Result<Vec<usize>, AgentError> {
        (self.act)(observations.len())
    }
    fn finish(&mut self, _: &[Vec<f64>]) -> Result<UpdateStats, AgentError> {
        Ok(UpdateStats::default())
    }
}

#[test]
fn an_agent_that_breaks_the_rules_is_named() {
    let problem = builder().build().unwrap();
    let evaluator = Breaks::new(usize::MAX, || Ok(Evaluation::new(0.5)));
    type Act = fn(usize) -> Result<Vec<usize>, AgentError>;
    let ways: [(usize, Act, &str); 5] = [
        (0, |_| Ok(Vec::new()), "agent `rogue` began 0 episodes"),
        (61, |n| Ok(vec![0; n]), "agent `rogue` began 61 episodes"),
        (2, |_| Ok(vec![0]), "agent `rogue` chose 1 actions for 2 episodes"),
        (1, |_| Ok(vec![99]), "agent `rogue` chose action 99"),
        (1, |_| panic!("no idea"), "agent `rogue` panicked: no idea"),
    ];
    for (begin, act, expected) in ways {
        let mut agent = Rogue { begin, act };
        let search = Search::new(&problem, &mut agent, &evaluator, EPISODES);
        let error = search.run().unwrap_err().to_string();
        assert!(error.contains(expected), "`{error}` lacks `{expected}`");
    }
}

/// Accuracy grows with every bit.
struct MoreIsBetter;

impl Evaluator for MoreIsBetter {
    fn full_precision(&self) -> f64 {
        1.0
    }
    fn evaluate(&self, bits: &BitwidthAssignment) -> Result<Evaluation, ReleqError> {
        Ok(Evaluation::new(bits.mean() / 8.0))
    }
}

#[test]
fn what_exceeds_a_limit_is_never_an_answer() {
    let limit: LimitConfig = "size<=0.6x".parse().unwrap();
    // The more bits the better, so that only the limit keeps the answer down.
    let accuracy_alone = || reward_fn("accuracy", |acc, _| acc);
    let free = builder().reward(accuracy_alone()).build().unwrap();
    let free = run(&free, &MoreIsBetter).unwrap();
    let bound = builder().reward(accuracy_alone()).limit(limit.build().unwrap()).build().unwrap();
    let bound = run(&bound, &MoreIsBetter).unwrap();
    let size = CostKind::Size(Default::default()).build().unwrap();
    let size = |bits: &BitwidthAssignment| {
        let bits: Vec<_> = bits.iter().map(|&b| LayerBits::weights_only(b)).collect();
        size.network_cost(&lenet().profiles(), &bits).unwrap().0
    };
    let at_most = 0.6 * size(&"8-8-8-8".parse().unwrap());
    assert!(size(&free.best.unwrap().bits) > at_most);
    assert!(size(&bound.best.as_ref().unwrap().bits) <= at_most);
    for scored in &bound.scored {
        assert_eq!(scored.over_limit.is_some(), size(&scored.bits) > at_most, "{}", scored.bits);
    }
    let worst_within = bound.scored.iter().filter(|scored| scored.over_limit.is_none());
    let worst_within = worst_within.map(|scored| scored.reward).fold(f64::INFINITY, f64::min);
    let over = bound.scored.iter().filter(|scored| scored.over_limit.is_some());
    assert!(over.clone().count() > 0);
    assert!(over.clone().all(|scored| scored.reward < worst_within));
    assert!(bound.best_within(1.0).unwrap().over_limit.is_none());
    assert!(releq::pareto_frontier(&bound.scored).iter().all(|s| s.over_limit.is_none()));

    let impossible: LimitConfig = "size<=0.01x".parse().unwrap();
    let error = builder().limit(impossible.build().unwrap()).build().unwrap_err().to_string();
    assert!(error.contains("`limits`") && error.contains("is met by no assignment"), "{error}");
}
