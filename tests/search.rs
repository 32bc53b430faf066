//! The search loop and its environment, over evaluators that answer at once.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test may fail loudly")]

use std::{
    collections::BTreeSet,
    num::NonZeroUsize,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use releq::{
    ActionSpace, Budget, Cancel, EvaluationMode, Event, Problem, ProblemBuilder, ReleqError,
    Search, SearchOutcome, Stage, StopReason,
    agent::{Agent, Exhaustive, GreedySearch, PpoConfig, RandomSearch},
    core::{Bitwidth, BitwidthAssignment},
    evaluate::{Cached, Evaluation, Evaluator, Parallel},
    hw::{CostWeighted, MeanBits},
    reward::reward_fn,
    zoo::lenet,
};

/// Accuracy falls by 0.2 for every bit that a layer has fewer than it needs.
struct Needs(Vec<u8>);

impl Evaluator for Needs {
    fn full_precision(&self) -> f64 {
        0.99
    }

    fn evaluate(&self, bits: &BitwidthAssignment) -> Result<Evaluation, ReleqError> {
        let missing: u8 =
            bits.to_bits().iter().zip(&self.0).map(|(&b, &need)| need.saturating_sub(b)).sum();
        Ok(Evaluation::new((0.99 - 0.2 * f64::from(missing)).max(0.0)))
    }
}

fn bits(text: &str) -> BitwidthAssignment {
    text.parse().unwrap()
}

fn builder() -> ProblemBuilder {
    Problem::builder().network(&lenet(), None)
}

fn episodes(episodes: usize) -> Budget {
    Budget { episodes: Some(episodes), ..Budget::default() }
}

fn run(
    problem: &Problem,
    agent: &mut dyn Agent,
    evaluator: &dyn Evaluator,
    budget: Budget,
) -> SearchOutcome {
    Search::new(problem, agent, evaluator, budget).run().unwrap()
}

fn no_limit() -> Budget {
    Budget::default()
}

#[test]
fn exhaustive_search_meets_every_assignment_once_and_stops() {
    let search = builder().actions([2, 4, 8].map(|b| Bitwidth::new(b).unwrap())).build().unwrap();
    let mut agent = Exhaustive::new(search.action_count(), search.episode_len(), 7);
    let outcome = run(&search, &mut agent, &Needs(vec![4, 2, 2, 4]), no_limit());
    assert_eq!(outcome.stop, StopReason::Exhausted);
    assert_eq!((outcome.episodes, outcome.evaluations), (81, 81));
    let distinct: BTreeSet<_> = outcome.scored.iter().map(|s| s.bits.clone()).collect();
    assert_eq!(distinct.len(), 81);
    // Anything short of its need loses at least a fifth of the accuracy.
    assert_eq!(outcome.best_within(0.003).unwrap().bits, bits("4-2-2-4"));
}

#[test]
fn greedy_search_finds_what_layers_need_one_by_one() {
    let search = builder().build().unwrap();
    let mut agent = GreedySearch::new(search.action_count(), search.episode_len());
    let outcome = run(&search, &mut agent, &Needs(vec![5, 2, 3, 4]), no_limit());
    assert_eq!(outcome.stop, StopReason::Exhausted);
    assert_eq!(outcome.best_within(0.003).unwrap().bits, bits("5-2-3-4"));
}

#[test]
fn fixed_layers_keep_their_bits_and_are_not_searched() {
    let search = builder()
        .fix_layer("conv1", Bitwidth::EIGHT)
        .fix_layer("fc2", Bitwidth::new(6).unwrap())
        .build()
        .unwrap();
    assert_eq!(search.episode_len(), 2);
    let outcome = run(&search, &mut RandomSearch::new(7, 3, 4), &Needs(vec![2; 4]), episodes(40));
    assert!(outcome.scored.iter().all(|s| s.bits[0].get() == 8 && s.bits[3].get() == 6));
    // The mean over the searched layers alone.
    let first = &outcome.scored[0];
    let mean = f64::from(first.bits[1].get() + first.bits[2].get()) / 2.0;
    assert!((first.quant_state - mean / 8.0).abs() < 1e-12);
}

#[test]
fn restricted_actions_move_by_one_and_carry_over() {
    let search = builder().action_space(ActionSpace::Restricted).build().unwrap();
    assert_eq!(search.action_count(), 3);
    let outcome = run(&search, &mut RandomSearch::new(3, 5, 1), &Needs(vec![2; 4]), episodes(300));
    let steps = outcome.scored.windows(2).map(|pair| {
        pair[0].bits.iter().zip(pair[1].bits.iter()).map(|(a, b)| a.get().abs_diff(b.get())).max()
    });
    // Seen assignments are not listed again, so a pair may be some episodes apart; the very first
    // one is a single step from all 8.
    assert!(outcome.scored[0].bits.iter().all(|b| b.get() >= 7));
    assert!(steps.count() > 50, "the walk moves on");
    assert!(outcome.scored.iter().any(|s| s.bits.mean() < 6.0), "and gets further than one step");
}

/// Counts questions and how many distinct ones there were.
struct Counting<E>(E, AtomicUsize, Mutex<BTreeSet<BitwidthAssignment>>);

impl<E: Evaluator> Evaluator for Counting<E> {
    fn full_precision(&self) -> f64 {
        self.0.full_precision()
    }
    fn evaluate(&self, bits: &BitwidthAssignment) -> Result<Evaluation, ReleqError> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.2.lock().unwrap().insert(bits.clone());
        self.0.evaluate(bits)
    }
}

#[test]
fn a_cache_asks_once_and_budgets_are_never_exceeded() {
    for mode in [EvaluationMode::PerEpisode, EvaluationMode::PerLayer] {
        for limit in [1, 5, 37, 100] {
            let budget = Budget { evaluations: Some(limit), ..Budget::default() };
            let search = builder().evaluation(mode).build().unwrap();
            let counting = Counting(Needs(vec![3; 4]), AtomicUsize::new(0), Mutex::default());
            let evaluator = Cached::new(counting);
            let outcome = run(&search, &mut RandomSearch::new(7, 1, 8), &evaluator, budget);
            assert_eq!(outcome.stop, StopReason::Evaluations);
            assert!(outcome.evaluations <= limit);
            let per_episode = if mode == EvaluationMode::PerLayer { 4 } else { 1 };
            assert!(
                outcome.evaluations + per_episode > limit,
                "{} of {limit}",
                outcome.evaluations
            );
            let Counting(_, asked, distinct) = evaluator.inner();
            assert_eq!(asked.load(Ordering::Relaxed), distinct.lock().unwrap().len());
        }
    }
}

#[test]
fn the_answer_does_not_depend_on_the_number_of_threads() {
    let outcome = |threads: usize| {
        let search = builder().build().unwrap();
        let mut agent =
            PpoConfig::default().init(search.observation_len(), search.action_count(), 11).unwrap();
        let threads = NonZeroUsize::new(threads).unwrap();
        let evaluator = Parallel::new(Needs(vec![4, 2, 3, 2]), threads);
        let mut outcome = run(&search, &mut agent, &evaluator, episodes(96));
        outcome.times.clear();
        serde_json::to_string(&outcome).unwrap()
    };
    let one = outcome(1);
    assert_eq!(one, outcome(1));
    assert_eq!(one, outcome(2));
    assert_eq!(one, outcome(5));
}

#[test]
fn every_way_to_stop_is_named() {
    let evaluator = Needs(vec![2; 4]);
    let search = builder().build().unwrap();
    let random = || RandomSearch::new(7, 1, 4);
    let wall = Budget { wall_time: Some(Duration::ZERO), ..Budget::default() };
    assert_eq!(run(&search, &mut random(), &evaluator, wall).stop, StopReason::WallTime);
    assert_eq!(run(&search, &mut random(), &evaluator, episodes(8)).stop, StopReason::Episodes);
    // 16 assignments are soon all known to a random search; 50 episodes more bring nothing.
    let patient = Budget { patience: Some(50), ..Budget::default() };
    let narrow = builder().actions([2, 4].map(|b| Bitwidth::new(b).unwrap()));
    let settled =
        run(&narrow.build().unwrap(), &mut RandomSearch::new(2, 1, 4), &evaluator, patient);
    assert_eq!(settled.stop, StopReason::Converged);
    assert!(settled.evaluations <= 16 && settled.episodes > 50);
    // A limit that is above the number of assignments is never reached, and ends the search too.
    let many = Budget { evaluations: Some(17), ..Budget::default() };
    let narrow = builder().actions([2, 4].map(|b| Bitwidth::new(b).unwrap()));
    let settled = run(&narrow.build().unwrap(), &mut RandomSearch::new(2, 1, 4), &evaluator, many);
    assert_eq!((settled.stop, settled.evaluations), (StopReason::Converged, 16));
    let cancel = Cancel::new();
    let on_event = |event: &Event| {
        if event.progress().0 >= 12 {
            cancel.cancel();
        }
    };
    let mut agent = random();
    let cancelled = Search::new(&search, &mut agent, &evaluator, episodes(1000))
        .cancel(&cancel)
        .on_event(Stage::Search, &on_event)
        .run()
        .unwrap();
    assert_eq!((cancelled.stop, cancelled.episodes), (StopReason::Cancelled, 12));
    assert!(cancelled.best.is_some() && cancelled.greedy.is_none());
}

/// Fails for every assignment that starts with 2 bits.
struct Fragile;

impl Evaluator for Fragile {
    fn full_precision(&self) -> f64 {
        0.99
    }
    fn evaluate(&self, bits: &BitwidthAssignment) -> Result<Evaluation, ReleqError> {
        Ok(if bits[0].get() == 2 {
            Evaluation::failed("the loss became NaN at step 3")
        } else {
            Evaluation::new(0.98)
        })
    }
}

#[test]
fn a_failed_evaluation_counts_and_the_search_goes_on() {
    let search = builder().build().unwrap();
    let outcome = run(&search, &mut RandomSearch::new(7, 9, 8), &Fragile, episodes(80));
    assert_eq!(outcome.episodes, 80);
    let failed: Vec<_> = outcome.scored.iter().filter(|s| s.failure.is_some()).collect();
    assert!(outcome.failures > 0 && outcome.failures == failed.len());
    assert!(failed.iter().all(|s| s.reward == -1.0 && s.bits[0].get() == 2));
    assert!(outcome.best.unwrap().failure.is_none());
    // Nor is it the best where the reward asks for nothing but bits.
    let search = builder().reward(reward_fn("thrift", |_, quant| -quant)).build().unwrap();
    let outcome = run(&search, &mut RandomSearch::new(7, 9, 8), &Fragile, episodes(80));
    assert!(outcome.failures > 0 && outcome.best.unwrap().failure.is_none());
}

#[test]
fn a_reward_of_ones_own_changes_what_is_best() {
    let evaluator = Needs(vec![4; 4]);
    let best = |builder: ProblemBuilder| {
        let search = builder.build().unwrap();
        let mut agent = Exhaustive::new(search.action_count(), search.episode_len(), 64);
        run(&search, &mut agent, &evaluator, no_limit()).best.unwrap().bits
    };
    assert_eq!(best(builder()), bits("4-4-4-4"));
    assert_eq!(best(builder().reward(reward_fn("thrift", |_, quant| -quant))), bits("2-2-2-2"));
    assert_eq!(best(builder().reward(reward_fn("lavish", |_, quant| quant))), bits("8-8-8-8"));
}

#[test]
fn both_forms_of_state_quantization_are_cost_models() {
    let quant_state =
        |builder: ProblemBuilder| builder.build().unwrap().quant_state(&bits("2-2-3-2")).unwrap();
    assert!((quant_state(builder().cost(MeanBits)) - 0.28125).abs() < 1e-12);
    let weighted = quant_state(builder().cost(CostWeighted::default()));
    assert!((weighted - 0.362_134_636).abs() < 1e-9);
}

#[test]
fn settings_that_cannot_work_are_refused_by_name() {
    let check = |builder: ProblemBuilder, expected: &str| {
        let message = builder.build().unwrap_err().to_string();
        assert!(message.contains(expected), "`{message}` lacks `{expected}`");
    };
    check(Problem::builder(), "no layer");
    check(builder().actions([]), "`actions`: the set of bitwidths to choose from is empty");
    check(
        builder().fix_layer("conv9", Bitwidth::EIGHT),
        "no quantizable layer `conv9`; there are conv1",
    );
    let twice = builder().fix_layer("fc1", Bitwidth::EIGHT).fix_layer("fc1", Bitwidth::ONE);
    check(twice, "fixed twice");
    let all = ["conv1", "conv2", "fc1", "fc2"]
        .into_iter()
        .fold(builder(), |builder, name| builder.fix_layer(name, Bitwidth::EIGHT));
    check(all, "nothing is left");
}

#[test]
fn batches_record_what_the_policy_preferred() {
    let problem = builder().build().unwrap();
    let (steps, actions) = (problem.episode_len(), problem.action_count());
    let mut ppo = PpoConfig::default().init(problem.observation_len(), actions, 5).unwrap();
    let outcome = run(&problem, &mut ppo, &Needs(vec![2; 4]), episodes(200));
    for batch in &outcome.history {
        assert_eq!(batch.action_probabilities.len(), steps);
        for distribution in &batch.action_probabilities {
            assert_eq!(distribution.len(), actions);
            assert!((distribution.iter().sum::<f32>() - 1.0).abs() < 1e-3, "{distribution:?}");
            assert!(distribution.iter().all(|p| format!("{p}").len() <= "0.1234".len()));
        }
    }
    // An untrained policy prefers nothing; two bits are enough everywhere, and it learns that.
    let of_two_bits = |batch: usize| {
        let steps = &outcome.history[batch].action_probabilities;
        steps.iter().map(|step| step[0]).sum::<f32>() / steps.len() as f32
    };
    let last = outcome.history.len() - 1;
    assert!((of_two_bits(0) - 1.0 / actions as f32).abs() < 0.05, "{}", of_two_bits(0));
    assert!(of_two_bits(last) > 2.0 * of_two_bits(0), "{}", of_two_bits(last));

    let mut random = RandomSearch::new(actions, 5, 8);
    let outcome = run(&problem, &mut random, &Needs(vec![2; 4]), episodes(16));
    assert!(outcome.history.iter().all(|batch| batch.action_probabilities.is_empty()));
    let json = serde_json::to_string(&outcome).unwrap();
    assert!(!json.contains("action_probabilities"), "an old report reads and writes as before");
}
