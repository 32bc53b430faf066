//! The conformance suite of the [`Agent`] seam.

use crate::{Agent, AgentError, AgentSnapshot, Environment, Mode, Transition, UpdateStats, play};

/// The episodes that [`check_agent`] plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpisodeShape {
    /// Length of an observation.
    pub observation_len: usize,
    /// Number of actions.
    pub action_count: usize,
    /// Steps in an episode.
    pub episode_len: usize,
}

/// Number of batches that each check plays at most.
const BATCHES: usize = 6;

/// Asserts what every [`Agent`] promises. Run it over an agent of your own; needs the feature
/// `testing`.
///
/// `make` makes a new agent from a seed, with the same settings each time, for episodes of `shape`. The
/// suite checks that
///
/// - calls out of turn, wrong numbers of observations or rewards, and rewards that are not finite are
///   errors that change nothing;
/// - `begin` returns `None` for 0 episodes, and never more episodes than were asked for;
/// - there is one action per episode, and each is below the number of actions;
/// - equal seeds give equal actions and figures;
/// - greedy batches answer the same each time and learn nothing;
/// - where snapshots are supported: an agent restored from one, by way of JSON, continues exactly as the
///   one that was not stopped; unfinished batches, foreign and damaged snapshots are refused, and a
///   refusal changes nothing.
///
/// # Examples
///
/// ```
/// # #[cfg(feature = "testing")] {
/// use releq_agent::{EpisodeShape, RandomSearch, check_agent};
///
/// let shape = EpisodeShape { observation_len: 2, action_count: 3, episode_len: 4 };
/// check_agent(&mut |seed| Box::new(RandomSearch::new(3, seed, 8)), shape);
/// # }
/// ```
///
/// # Panics
/// If a promise is broken, naming it.
pub fn check_agent(make: &mut dyn FnMut(u64) -> Box<dyn Agent>, shape: EpisodeShape) {
    check_turns(&mut *make(1), shape);
    check_batches(&mut *make(1), shape);
    check_seed(make, shape);
    check_greedy(make, shape);
    match make(1).snapshot() {
        Err(AgentError::NoSnapshot { .. }) => {}
        Err(error) => panic!("a new agent has no snapshot: {error}"),
        Ok(_) => check_snapshot(make, shape),
    }
}

/// Episodes whose best action changes from step to step.
struct Course {
    shape: EpisodeShape,
    step: usize,
    episodes: usize,
    /// All actions so far, to compare runs by.
    actions: Vec<Vec<usize>>,
}

impl Course {
    const fn new(shape: EpisodeShape) -> Self {
        Self { shape, step: 0, episodes: 0, actions: Vec::new() }
    }

    fn observations(&self) -> Vec<Vec<f32>> {
        let number = |index: usize| ((self.step * 7 + index * 3) % 11) as f32 / 11.0 - 0.5;
        vec![(0..self.shape.observation_len).map(number).collect(); self.episodes]
    }
}

impl Environment for Course {
    type Error = AgentError;

    fn reset(&mut self, episodes: usize) -> Result<Vec<Vec<f32>>, AgentError> {
        (self.step, self.episodes) = (0, episodes);
        Ok(self.observations())
    }

    fn step(&mut self, actions: &[usize]) -> Result<(Vec<Vec<f32>>, Vec<Transition>), AgentError> {
        let EpisodeShape { action_count, episode_len, .. } = self.shape;
        assert_eq!(actions.len(), self.episodes, "one action per episode");
        for action in actions {
            assert!(*action < action_count, "action {action} is not below {action_count}");
        }
        let best = (self.step * 2 + 1) % action_count;
        self.step += 1;
        let terminated = self.step == episode_len;
        let transition = |action: &usize| Transition {
            reward: -(action.abs_diff(best) as f64) / action_count as f64,
            terminated,
        };
        self.actions.push(actions.to_vec());
        Ok((self.observations(), actions.iter().map(transition).collect()))
    }
}

/// Everything that can be seen of an agent that plays a few batches and then answers greedily.
#[derive(Debug, PartialEq)]
struct Seen {
    actions: Vec<Vec<usize>>,
    stats: Vec<Option<UpdateStats>>,
}

fn watch(agent: &mut dyn Agent, shape: EpisodeShape, batches: usize) -> Seen {
    let mut course = Course::new(shape);
    let mut stats: Vec<_> = (0..batches).map(|_| explore(agent, &mut course, usize::MAX)).collect();
    stats.push(greedy(agent, &mut course));
    Seen { actions: course.actions, stats }
}

fn explore(agent: &mut dyn Agent, course: &mut Course, max: usize) -> Option<UpdateStats> {
    match play(agent, course, max, Mode::Explore) {
        Ok(stats) => stats,
        Err(error) => panic!("a batch of episodes failed: {error}"),
    }
}

fn greedy(agent: &mut dyn Agent, course: &mut Course) -> Option<UpdateStats> {
    match play(agent, course, 1, Mode::Greedy) {
        Ok(stats) => stats,
        Err(error) => panic!("a greedy episode failed: {error}"),
    }
}

fn check_turns(agent: &mut dyn Agent, shape: EpisodeShape) {
    let mut course = Course::new(shape);
    let mut observe = |episodes| course.reset(episodes).unwrap_or_default();
    for mode in [Mode::Explore, Mode::Greedy] {
        assert_eq!(agent.begin(0, mode), None, "`begin` for 0 episodes in {mode:?} mode");
    }
    assert!(agent.act(&observe(1)).is_err(), "`act` before `begin`");
    assert!(agent.finish(&[vec![0.0]]).is_err(), "`finish` before `begin`");
    assert!(agent.finish(&[]).is_err(), "`finish` before `begin`, without rewards");

    let Some(episodes) = agent.begin(2, Mode::Explore) else {
        panic!("a new agent begins no batch");
    };
    assert!(agent.finish(&[]).is_err(), "`finish` before `act`");
    assert!(agent.act(&observe(episodes + 1)).is_err(), "`act` with too many observations");
    assert!(agent.act(&[]).is_err(), "`act` without observations");
    assert!(agent.act(&observe(episodes)).is_ok(), "`act` after a refused call");
    let row = vec![0.0; episodes];
    let refused: [(&str, &[Vec<f64>]); 6] = [
        ("no rewards", &[]),
        ("too many steps", &[row.clone(), row.clone()]),
        ("too few episodes", &[row[1..].to_vec()]),
        ("too many episodes", &[vec![0.0; episodes + 1]]),
        ("NaN", &[vec![f64::NAN; episodes]]),
        ("infinity", &[vec![f64::INFINITY; episodes]]),
    ];
    for (what, rewards) in refused {
        assert!(agent.finish(rewards).is_err(), "`finish` with {what}");
    }
    // The refused calls left the batch as it was, so the episodes can be played to their end.
    for step in 1..shape.episode_len {
        assert!(agent.act(&observe(episodes)).is_ok(), "`act` at step {step} after refused calls");
    }
    let rewards = vec![row; shape.episode_len];
    assert!(agent.finish(&rewards).is_ok(), "`finish` after refused calls");
    assert!(agent.finish(&rewards).is_err(), "`finish` twice");
    assert!(agent.act(&observe(episodes)).is_err(), "`act` after `finish`");

    if let Some(episodes) = agent.begin(1, Mode::Explore) {
        assert!(agent.act(&observe(episodes)).is_ok(), "`act` in a second batch");
        assert_eq!(agent.begin(0, Mode::Explore), None, "`begin` for 0 episodes");
        assert!(agent.act(&observe(episodes)).is_err(), "`begin` drops an unfinished batch");
    }
}

fn check_batches(agent: &mut dyn Agent, shape: EpisodeShape) {
    for max in [1, 2, 3, usize::MAX] {
        let mut course = Course::new(shape);
        if explore(agent, &mut course, max).is_none() {
            return;
        }
        assert!((1..=max).contains(&course.episodes), "{} of {max} episodes", course.episodes);
        if let Some(probabilities) = agent.probabilities() {
            assert_eq!(probabilities.len(), course.episodes, "probabilities for every episode");
            for probabilities in probabilities {
                let sum: f32 = probabilities.iter().sum();
                assert_eq!(probabilities.len(), shape.action_count, "one probability per action");
                assert!((sum - 1.0).abs() < 1e-3, "the probabilities sum to {sum}");
            }
        }
    }
}

fn check_seed(make: &mut dyn FnMut(u64) -> Box<dyn Agent>, shape: EpisodeShape) {
    for seed in [0, 1, u64::MAX] {
        let first = watch(&mut *make(seed), shape, BATCHES);
        assert_eq!(first, watch(&mut *make(seed), shape, BATCHES), "equal seeds, equal runs");
    }
}

fn check_greedy(make: &mut dyn FnMut(u64) -> Box<dyn Agent>, shape: EpisodeShape) {
    let (mut straight, mut asked) = (make(3), make(3));
    for _ in 0..BATCHES {
        let mut answers = [Course::new(shape), Course::new(shape)];
        let [first, second] = answers.each_mut().map(|course| greedy(&mut *asked, course));
        assert_eq!(first, second, "the greedy answer twice");
        assert_eq!(answers[0].actions, answers[1].actions, "the greedy answer twice");
        let (mut one, mut other) = (Course::new(shape), Course::new(shape));
        let stats = explore(&mut *straight, &mut one, usize::MAX);
        assert_eq!(stats, explore(&mut *asked, &mut other, usize::MAX), "greedy learns nothing");
        assert_eq!(one.actions, other.actions, "greedy learns nothing");
    }
}

fn check_snapshot(make: &mut dyn FnMut(u64) -> Box<dyn Agent>, shape: EpisodeShape) {
    for batches in [0, 1, BATCHES] {
        let mut straight = make(4);
        watch(&mut *straight, shape, batches);
        let snapshot = take(&*straight);
        let mut resumed = make(5);
        // Something to forget.
        watch(&mut *resumed, shape, 1);
        resumed.begin(1, Mode::Explore);
        if let Err(error) = resumed.restore(&snapshot) {
            panic!("a snapshot after {batches} batches is refused: {error}");
        }
        assert_eq!(take(&*resumed), snapshot, "a snapshot of the restored agent");
        let expected = watch(&mut *straight, shape, BATCHES);
        assert_eq!(watch(&mut *resumed, shape, BATCHES), expected, "restored after {batches}");
        assert_eq!(take(&*resumed), take(&*straight), "restored after {batches}");
    }
    check_refusals(make, shape);
}

/// A snapshot that went through JSON.
fn take(agent: &dyn Agent) -> AgentSnapshot {
    let snapshot = match agent.snapshot() {
        Ok(snapshot) => snapshot,
        Err(error) => panic!("no snapshot between batches: {error}"),
    };
    assert_eq!(snapshot.agent, agent.name(), "the snapshot names its agent");
    let read = serde_json::to_string(&snapshot).and_then(|text| serde_json::from_str(&text));
    match read {
        Ok(read) => {
            assert_eq!(snapshot, read, "a snapshot survives JSON");
            read
        }
        Err(error) => panic!("a snapshot cannot be written as JSON: {error}"),
    }
}

fn check_refusals(make: &mut dyn FnMut(u64) -> Box<dyn Agent>, shape: EpisodeShape) {
    let mut agent = make(6);
    watch(&mut *agent, shape, 1);
    let good = take(&*agent);

    let mut refused = Vec::new();
    let mut foreign = good.clone();
    foreign.agent.push_str(" of another kind");
    refused.push(("another agent".to_owned(), foreign));
    let mut newer = good.clone();
    newer.version = newer.version.wrapping_add(1);
    refused.push(("another version".to_owned(), newer));
    let mut extra = good.clone();
    extra.state.insert("a field that nobody reads".into(), serde_json::Value::Null);
    refused.push(("an unknown field".to_owned(), extra));
    for field in good.state.keys() {
        let mut missing = good.clone();
        missing.state.remove(field);
        refused.push((format!("no field `{field}`"), missing));
        let mut damaged = good.clone();
        damaged.state.insert(field.clone(), serde_json::Value::String("damaged".into()));
        refused.push((format!("a damaged field `{field}`"), damaged));
    }
    for (what, snapshot) in &refused {
        assert!(agent.restore(snapshot).is_err(), "a snapshot with {what} is restored");
        assert_eq!(take(&*agent), good, "a refused snapshot with {what} changes the agent");
    }

    if let Some(episodes) = agent.begin(1, Mode::Explore) {
        let observations = Course::new(shape).reset(episodes).unwrap_or_default();
        let open = |agent: &dyn Agent| {
            assert!(
                matches!(agent.snapshot(), Err(AgentError::UnfinishedBatch { .. })),
                "a snapshot during a batch"
            );
        };
        open(&*agent);
        assert!(agent.act(&observations).is_ok(), "`act` after a refused snapshot");
        open(&*agent);
    }
}
