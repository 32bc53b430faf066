//! What the agents promise, on environments small enough to know the answer.

use releq_core::sealed;

use super::*;

/// `steps` steps; an action pays 1 where it equals the number in the observation.
struct Identity {
    steps: usize,
    actions: usize,
    episodes: usize,
    step: usize,
}

impl Identity {
    const fn new(steps: usize, actions: usize) -> Self {
        Self { steps, actions, episodes: 0, step: 0 }
    }

    fn wanted(&self) -> usize {
        (self.step * 2 + 1) % self.actions
    }

    fn observe(&self) -> Vec<Vec<f32>> {
        let mut observation = vec![0.0; self.actions];
        observation[self.wanted()] = 1.0;
        vec![observation; self.episodes]
    }
}

impl Environment for Identity {
    type Error = AgentError;

    fn reset(&mut self, episodes: usize) -> Result<Vec<Vec<f32>>, AgentError> {
        (self.episodes, self.step) = (episodes, 0);
        Ok(self.observe())
    }

    fn step(&mut self, actions: &[usize]) -> Result<(Vec<Vec<f32>>, Vec<Transition>), AgentError> {
        let terminated = self.step + 1 == self.steps;
        let pay = |&action: &usize| Transition {
            reward: f64::from(u8::from(action == self.wanted())),
            terminated,
        };
        let transitions = actions.iter().map(pay).collect();
        self.step += 1;
        Ok((self.observe(), transitions))
    }
}

/// Shows one of two signs at the start, then nothing; the last action pays 1 if it repeats the sign.
struct Memory {
    blank: usize,
    signs: Vec<usize>,
    step: usize,
}

impl Environment for Memory {
    type Error = AgentError;

    fn reset(&mut self, episodes: usize) -> Result<Vec<Vec<f32>>, AgentError> {
        self.step = 0;
        self.signs = (0..episodes).map(|episode| episode % 2).collect();
        Ok(self.signs.iter().map(|&sign| vec![sign as f32 * 2.0 - 1.0]).collect())
    }

    fn step(&mut self, actions: &[usize]) -> Result<(Vec<Vec<f32>>, Vec<Transition>), AgentError> {
        let terminated = self.step == self.blank;
        let transitions = actions
            .iter()
            .zip(&self.signs)
            .map(|(action, sign)| Transition {
                reward: f64::from(u8::from(terminated && action == sign)),
                terminated,
            })
            .collect();
        self.step += 1;
        Ok((vec![vec![0.0]; actions.len()], transitions))
    }
}

fn learn<E: Environment<Error = AgentError>>(
    agent: &mut dyn Agent,
    environment: &mut E,
    batches: usize,
) -> Vec<UpdateStats> {
    (0..batches)
        .map_while(|_| play(agent, environment, usize::MAX, Mode::Explore).unwrap())
        .collect()
}

fn greedy_return<E: Environment<Error = AgentError>>(agent: &mut dyn Agent, env: &mut E) -> f64 {
    play(agent, env, 8, Mode::Greedy).unwrap().unwrap().mean_return
}

#[test]
fn networks_have_the_sizes_of_the_paper() {
    let count = |config: PpoConfig, inputs| config.init(inputs, 5, 1).unwrap().parameter_count();
    assert_eq!(count(PpoConfig::authors_code(), 7), 59_526);
    assert_eq!(count(PpoConfig::paper(), 8), 128_646);
}

#[test]
fn ppo_solves_the_identity_with_both_trunks() {
    for trunk in [Trunk::Lstm, Trunk::Dense] {
        let mut agent = PpoConfig { trunk, ..PpoConfig::default() }.init(4, 4, 3).unwrap();
        let mut environment = Identity::new(3, 4);
        learn(&mut agent, &mut environment, 80);
        assert_eq!(greedy_return(&mut agent, &mut environment), 3.0, "{trunk:?}");
    }
}

#[test]
fn only_recurrence_remembers() {
    let solved = |trunk| {
        let mut agent = PpoConfig { trunk, ..PpoConfig::default() }.init(1, 2, 5).unwrap();
        let mut environment = Memory { blank: 3, signs: Vec::new(), step: 0 };
        learn(&mut agent, &mut environment, 200);
        greedy_return(&mut agent, &mut environment)
    };
    assert_eq!(solved(Trunk::Lstm), 1.0);
    assert_eq!(solved(Trunk::Dense), 0.5);
}

#[test]
fn the_ratio_is_one_before_the_first_step_and_clipping_acts_later() {
    let once = PpoConfig { epochs: 1, ..PpoConfig::default() };
    let mut agent = once.init(4, 4, 1).unwrap();
    let first = learn(&mut agent, &mut Identity::new(5, 4), 1).remove(0);
    assert!(first.approx_kl.abs() < 1e-9 && first.clip_fraction == 0.0, "{first:?}");
    let eager = PpoConfig { learning_rate: 0.01, epochs: 5, ..PpoConfig::default() };
    let mut agent = eager.init(4, 4, 1).unwrap();
    let stats = learn(&mut agent, &mut Identity::new(5, 4), 5);
    assert!(stats.iter().any(|s| s.clip_fraction > 0.0));
}

#[test]
fn a_diverged_policy_is_an_error() {
    let eager = PpoConfig { learning_rate: 1e6, max_grad_norm: None, ..PpoConfig::default() };
    let mut agent = eager.init(4, 4, 1).unwrap();
    let mut play = || play(&mut agent, &mut Identity::new(3, 4), 8, Mode::Explore);
    let error = (0..20).find_map(|_| play().err()).unwrap().to_string();
    assert_eq!(error, "output of the policy or value network is not finite");
}

#[test]
fn equal_seeds_give_equal_runs_and_others_do_not() {
    let run = |seed| {
        let mut agent = PpoConfig::default().init(4, 4, seed).unwrap();
        learn(&mut agent, &mut Identity::new(3, 4), 10)
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

#[test]
fn save_load_continue_equals_not_stopping() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.json");
    let mut environment = Identity::new(3, 4);
    let mut agent = PpoConfig::default().init(4, 4, 9).unwrap();
    learn(&mut agent, &mut environment, 6);
    agent.save(&path).unwrap();
    let straight = learn(&mut agent, &mut environment, 6);
    let mut resumed = Ppo::load(&path).unwrap();
    assert_eq!(learn(&mut resumed, &mut environment, 6), straight);
    assert_eq!(resumed.state(), agent.state());
}

#[test]
fn damaged_and_foreign_files_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.json");
    let check = |expected: &str| {
        let message = Ppo::load(&path).unwrap_err().to_string();
        assert!(message.contains("agent.json") && message.contains(expected), "{message}");
    };
    check("cannot read");
    PpoConfig::default().init(4, 4, 9).unwrap().save(&path).unwrap();
    let good = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, &good[..good.len() / 2]).unwrap();
    check("EOF");
    std::fs::write(&path, "").unwrap();
    check("it is empty");
    std::fs::write(&path, "{}").unwrap();
    check("it has no checksum");
    std::fs::write(&path, good.replace("\"version\":1", "\"version\":99")).unwrap();
    check("its checksum is of other content");
    // Intact, but not of an agent that is made today.
    let resealed = |text: &str| {
        let mut object = serde_json::from_str(text).unwrap();
        sealed::seal(&mut object);
        std::fs::write(&path, serde_json::to_string(&object).unwrap()).unwrap();
    };
    resealed("{}");
    check("missing field `agent`");
    resealed(&good.replace("\"version\":1", "\"version\":99"));
    check("field `version`: 99, expected 1");
    resealed(&good.replace("\"action_count\":4", "\"action_count\":5"));
    check("field `parameters.policy_out.kernel`: shape [128, 4], expected [128, 5]");
    let nowhere = folder.path().join("none/agent.json");
    let error = PpoConfig::default().init(4, 4, 9).unwrap().save(&nowhere).unwrap_err();
    assert!(error.to_string().contains("none"));
}

#[test]
fn a_saved_agent_with_any_bit_flipped_or_any_end_missing_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.json");
    let config = PpoConfig { trunk: Trunk::Dense, ..PpoConfig::default() };
    let saved = config.init(3, 2, 9).unwrap();
    saved.save(&path).unwrap();
    let whole = std::fs::read(&path).unwrap();
    let mut count = 0;
    let mut refused = |bytes: &[u8], what: &str| {
        std::fs::write(&path, bytes).unwrap();
        let message = match Ppo::load(&path) {
            // Another last digit may be the same number.
            Ok(agent) => {
                assert!(agent.state() == saved.state(), "{what} is not seen");
                return;
            }
            Err(error) => error.to_string(),
        };
        assert!(message.contains("agent.json") && message.contains("earlier copy"), "{message}");
        count += 1;
    };
    for case in 0..40 {
        let place = case * (whole.len() - 1) / 39;
        let mut damaged = whole.clone();
        damaged[place] ^= 1 << (case % 8);
        refused(&damaged, &format!("bit {} of byte {place}", case % 8));
        refused(&whole[..place], &format!("an end at byte {place}"));
    }
    assert!(count > 60, "{count}");
}

#[test]
fn hyperparameters_are_named() {
    let config: PpoConfig = serde_json::from_str(r#"{"gamma": 0.5}"#).unwrap();
    assert_eq!(config, PpoConfig { gamma: 0.5, ..PpoConfig::default() });
    assert_eq!(serde_json::from_str::<PpoConfig>("{}").unwrap(), PpoConfig::default());
    for text in ["[]", "[\"lstm\"]", "null", "3"] {
        assert!(serde_json::from_str::<PpoConfig>(text).is_err(), "{text}");
    }
}

#[test]
fn bad_hyperparameters_are_refused_by_name() {
    let check = |change: &dyn Fn(&mut PpoConfig), field: &str| {
        let mut config = PpoConfig::default();
        change(&mut config);
        let message = config.init(4, 4, 1).unwrap_err().to_string();
        assert!(message.starts_with(&format!("`{field}`")), "{message}");
    };
    check(&|c| c.learning_rate = f64::NAN, "learning_rate");
    check(&|c| c.learning_rate = 0.0, "learning_rate");
    check(&|c| c.episodes_per_batch = 0, "episodes_per_batch");
    check(&|c| c.epochs = 0, "epochs");
    check(&|c| c.clip_range = -0.1, "clip_range");
    check(&|c| c.gamma = 1.5, "gamma");
    check(&|c| c.gae_lambda = -1.0, "gae_lambda");
    check(&|c| c.max_grad_norm = Some(0.0), "max_grad_norm");
    check(&|c| c.temperature = 0.0, "temperature");
    assert!(
        PpoConfig::default().init(0, 4, 1).unwrap_err().to_string().contains("observation_len")
    );
    assert!(PpoConfig::default().init(4, 0, 1).unwrap_err().to_string().contains("action_count"));
}

/// One agent of every kind, for observations of 3 numbers, 4 actions and 5 steps.
fn agents(seed: u64) -> Vec<Box<dyn Agent>> {
    let ppo = |trunk| {
        let config = PpoConfig { trunk, episodes_per_batch: 4, epochs: 2, ..PpoConfig::default() };
        config.init(3, 4, seed).unwrap()
    };
    vec![
        Box::new(ppo(Trunk::Lstm)),
        Box::new(ppo(Trunk::Dense)),
        Box::new(RandomSearch::new(4, seed, 6)),
        Box::new(GreedySearch::new(4, 5)),
        // This one finishes within the suite, the next one does not.
        Box::new(Exhaustive::new(4, 5, 300)),
        Box::new(Exhaustive::new(4, 5, 7)),
        Box::new(LocalSearch::new(4, 5, seed, 1)),
        Box::new(LocalSearch::new(4, 5, seed, 3)),
        Box::new(Evolution::new(4, 5, seed, 4)),
        Box::new(LocalSearch::with_actions(coarse(), 5, seed, 3)),
        Box::new(RandomSearch::with_actions(coarse(), seed, 6)),
        Box::new(GreedySearch::with_actions(coarse(), 5)),
        Box::new(Exhaustive::with_actions(coarse(), 5, 7)),
        Box::new(listed()),
    ]
}

/// Four actions, of which the second and the third step tell only some apart.
fn coarse() -> StepActions {
    StepActions::new(4, vec![vec![0, 1, 2, 3], vec![1, 1, 3, 3], vec![2; 4]]).unwrap()
}

/// Plays ten sequences.
fn listed() -> Listed {
    let list = (0..10).map(|i| (0..5).map(|step| (i + step) % 4).collect()).collect();
    Listed::new("listed", 4, 5, list, 4).unwrap()
}

#[test]
fn a_list_is_played_in_its_order_and_must_be_playable() {
    let mut agent = listed();
    let mut first = Vec::new();
    while let Some(episodes) = agent.begin(3, Mode::Explore) {
        let observations = vec![vec![0.0; 3]; episodes];
        first.extend(agent.act(&observations).unwrap());
        (1..5).for_each(|_| drop(agent.act(&observations).unwrap()));
        agent.finish(&vec![vec![1.0; episodes]; 5]).unwrap();
    }
    assert_eq!(first, [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]);
    let refused = |list| Listed::new("listed", 4, 5, list, 4).unwrap_err().to_string();
    assert!(refused(vec![vec![0; 4]]).contains("actions listed"));
    assert!(refused(vec![vec![0, 1, 2, 3, 4]]).contains("a listed action"));
    let other = Listed::new("listed", 4, 5, vec![vec![0; 5]], 4).unwrap();
    let error = agent.restore(&other.snapshot().unwrap()).unwrap_err().to_string();
    assert!(error.contains("`list`"), "{error}");
}

#[test]
fn every_agent_keeps_its_promises() {
    let shape = EpisodeShape { observation_len: 3, action_count: 4, episode_len: 5 };
    for index in 0..agents(0).len() {
        check_agent(&mut |seed| agents(seed).swap_remove(index), shape);
    }
}

/// Random search with one fault.
struct Faulty {
    inner: RandomSearch,
    fault: Fault,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    TooManyEpisodes,
    ActionOutOfRange,
    ActsOutOfTurn,
    IgnoresRewards,
    LearnsFromGreedy,
    KeepsItsRandomState,
    AcceptsUnknownFields,
    SnapshotInABatch,
    HalfRestored,
}

impl Agent for Faulty {
    fn begin(&mut self, max_episodes: usize, mode: Mode) -> Option<usize> {
        if mode == Mode::Greedy && self.fault == Fault::LearnsFromGreedy {
            self.inner.begin(1, Mode::Explore);
            self.inner.act(&[vec![]]).unwrap();
        }
        let begun = self.inner.begin(max_episodes, mode)?;
        if self.fault == Fault::TooManyEpisodes {
            return self.inner.begin(begun + 1, mode);
        }
        Some(begun)
    }

    fn act(&mut self, observations: &[Vec<f32>]) -> Result<Vec<usize>, AgentError> {
        match self.inner.act(observations) {
            Err(_) if self.fault == Fault::ActsOutOfTurn => Ok(vec![0; observations.len()]),
            Ok(actions) if self.fault == Fault::ActionOutOfRange => {
                Ok(actions.iter().map(|action| action + 1).collect())
            }
            other => other,
        }
    }

    fn finish(&mut self, rewards: &[Vec<f64>]) -> Result<UpdateStats, AgentError> {
        match self.inner.finish(rewards) {
            Err(_) if self.fault == Fault::IgnoresRewards => Ok(UpdateStats::default()),
            other => other,
        }
    }

    fn snapshot(&self) -> Result<AgentSnapshot, AgentError> {
        let mut snapshot = match self.inner.snapshot() {
            Err(_) if self.fault == Fault::SnapshotInABatch => {
                RandomSearch::new(4, 1, 6).snapshot()?
            }
            other => other?,
        };
        snapshot.agent = "Faulty".into();
        Ok(snapshot)
    }

    fn restore(&mut self, snapshot: &AgentSnapshot) -> Result<(), AgentError> {
        let mut snapshot = snapshot.clone();
        if snapshot.agent == "Faulty" {
            snapshot.agent = "random".into();
        }
        if self.fault == Fault::AcceptsUnknownFields {
            let known = RandomSearch::new(4, 1, 6).snapshot()?.state;
            snapshot.state.retain(|field, _| known.contains_key(field));
        }
        if self.fault == Fault::HalfRestored {
            self.inner = RandomSearch::new(4, 99, 6);
        }
        if self.fault == Fault::KeepsItsRandomState {
            return self.inner.clone().restore(&snapshot);
        }
        self.inner.restore(&snapshot)
    }
}

#[test]
fn the_suite_finds_every_fault() {
    let passes = |fault: Fault| {
        let shape = EpisodeShape { observation_len: 3, action_count: 4, episode_len: 5 };
        std::panic::catch_unwind(|| {
            let make = |seed| Faulty { inner: RandomSearch::new(4, seed, 6), fault };
            check_agent(&mut |seed| Box::new(make(seed)), shape);
        })
        .is_ok()
    };
    assert!(passes(Fault::None));
    for fault in [
        Fault::TooManyEpisodes,
        Fault::ActionOutOfRange,
        Fault::ActsOutOfTurn,
        Fault::IgnoresRewards,
        Fault::LearnsFromGreedy,
        Fault::KeepsItsRandomState,
        Fault::AcceptsUnknownFields,
        Fault::SnapshotInABatch,
        Fault::HalfRestored,
    ] {
        assert!(!passes(fault), "{fault:?}");
    }
}

/// As small as an agent can be: one action, whatever happens.
struct Constant;

impl Agent for Constant {
    fn begin(&mut self, max_episodes: usize, _: Mode) -> Option<usize> {
        (max_episodes > 0).then_some(1)
    }

    fn act(&mut self, observations: &[Vec<f32>]) -> Result<Vec<usize>, AgentError> {
        Ok(vec![1; observations.len()])
    }

    fn finish(&mut self, _: &[Vec<f64>]) -> Result<UpdateStats, AgentError> {
        Err(AgentError::Other("the tape is full".into()))
    }
}

#[test]
fn the_smallest_agent_has_a_name_no_snapshot_and_errors_of_its_own() {
    let mut agent = Constant;
    assert_eq!(agent.name(), "Constant");
    let refused = agent.snapshot().unwrap_err().to_string();
    assert_eq!(refused, "agent `Constant` does not support snapshots");
    let snapshot = RandomSearch::new(2, 1, 1).snapshot().unwrap();
    assert!(matches!(agent.restore(&snapshot), Err(AgentError::NoSnapshot { .. })));
    let error = play(&mut agent, &mut Identity::new(1, 2), 1, Mode::Explore).unwrap_err();
    assert_eq!(error.to_string(), "the tape is full");
}

#[test]
fn pointers_to_agents_and_environments_are_agents_and_environments() {
    let run = |agent: &mut dyn Agent| {
        let mut environment: Box<dyn Environment<Error = AgentError>> =
            Box::new(Identity::new(3, 4));
        let stats = play(agent, &mut *environment, 8, Mode::Explore).unwrap();
        assert_eq!(play(agent, &mut environment, 0, Mode::Explore).unwrap(), None);
        play(agent, &mut &mut environment, 8, Mode::Explore).unwrap();
        (stats, agent.snapshot().unwrap(), agent.probabilities().map(<[_]>::to_vec))
    };
    let new = || PpoConfig::default().init(4, 4, 2).unwrap();
    let mut boxed: Box<dyn Agent> = Box::new(new());
    let mut plain = new();
    let mut borrowed = &mut plain;
    let expected = run(&mut new());
    assert_eq!(run(&mut boxed), expected);
    assert_eq!(run(&mut borrowed), expected);
    assert_eq!(Agent::name(&boxed), "ppo");
    boxed.restore(&expected.1).unwrap();
}

#[test]
fn snapshots_of_other_settings_and_damaged_weights_are_refused_by_field() {
    let ppo = |config: PpoConfig, inputs, actions| config.init(inputs, actions, 1).unwrap();
    let mut agent = ppo(PpoConfig::default(), 4, 4);
    learn(&mut agent, &mut Identity::new(3, 4), 1);
    let good = agent.snapshot().unwrap();
    let refused = |agent: &mut dyn Agent, snapshot: &AgentSnapshot, expected: &str| {
        let before = agent.snapshot().unwrap();
        let message = agent.restore(snapshot).unwrap_err().to_string();
        assert!(message.contains(expected), "{message} does not contain {expected}");
        assert_eq!(agent.snapshot().unwrap(), before);
    };
    refused(&mut ppo(PpoConfig::default(), 5, 4), &good, "`observation_len`: 4, but");
    refused(&mut ppo(PpoConfig::default(), 4, 3), &good, "`action_count`: 4, but");
    refused(&mut ppo(PpoConfig::quick(), 4, 4), &good, "`config.ent_coef`: differs");
    refused(&mut RandomSearch::new(4, 1, 8), &good, "`agent`: taken from agent `ppo`");
    refused(
        &mut RandomSearch::new(4, 1, 8),
        &RandomSearch::new(4, 1, 9).snapshot().unwrap(),
        "`episodes_per_batch`: 9, but",
    );
    refused(
        &mut Exhaustive::new(4, 3, 8),
        &Exhaustive::new(4, 2, 8).snapshot().unwrap(),
        "`episode_len`: 2, but",
    );

    let change = |pointer: &str, value: serde_json::Value| {
        let mut changed = serde_json::to_value(&good).unwrap();
        *changed.pointer_mut(pointer).unwrap() = value;
        serde_json::from_value::<AgentSnapshot>(changed).unwrap()
    };
    let kernel = "/state/parameters/value_2.kernel";
    let cases: [(String, serde_json::Value, &str); 8] = [
        (format!("{kernel}/values/7"), serde_json::Value::Null, "`parameters.value_2.kernel`"),
        (format!("{kernel}/first_moment/7"), 1e300.into(), "`parameters.value_2.kernel`"),
        (format!("{kernel}/second_moment"), vec![0.0].into(), "`parameters.value_2.kernel`"),
        ("/state/adam_steps".into(), (-1).into(), "`adam_steps`"),
        ("/state/best/actions/0".into(), 4.into(), "`best.actions`"),
        ("/state/best/observations".into(), vec![0.0].into(), "`best.observations`"),
        ("/state/config/gamma".into(), 2.into(), "`config`: `gamma`"),
        ("/state/observation_len".into(), u64::MAX.into(), "`parameters.lstm.kernel`: shape"),
    ];
    for (pointer, value, expected) in cases {
        refused(&mut agent, &change(&pointer, value), expected);
    }
    let mut huge = Exhaustive::new(2, 2, 8);
    huge.begin(1, Mode::Explore);
    for _ in 0..2 {
        huge.act(&[vec![]]).unwrap();
    }
    huge.finish(&[vec![f64::MAX], vec![f64::MAX]]).unwrap();
    let message = huge.snapshot().unwrap_err().to_string();
    assert!(message.contains("`best_return`: inf is not finite"), "{message}");
}

#[test]
fn bad_observations_are_refused() {
    let mut agent = PpoConfig::default().init(2, 3, 1).unwrap();
    agent.begin(1, Mode::Explore);
    assert!(agent.act(&[vec![0.0]]).unwrap_err().to_string().contains("observation length"));
    assert!(agent.act(&[vec![0.0, f32::NAN]]).is_err());
}

#[test]
fn a_dropped_batch_is_played_again_by_searches_that_list() {
    let mut agents: [Box<dyn Agent>; 3] = [
        Box::new(GreedySearch::new(3, 2)),
        Box::new(Exhaustive::new(3, 2, 4)),
        // Without its uniform sequences it would have nothing to start from.
        Box::new(LocalSearch::new(3, 2, 1, 4)),
    ];
    for agent in &mut agents {
        let mut first = || {
            let episodes = agent.begin(3, Mode::Explore).unwrap();
            [0, 1].map(|_| agent.act(&vec![vec![0.0]; episodes]).unwrap())
        };
        assert_eq!(first(), first());
    }
}

/// Pays for each step on its own, so that one step at a time finds the best; remembers what was played.
struct Separable {
    played: Vec<Vec<usize>>,
    finished: Vec<Vec<usize>>,
}

impl Environment for Separable {
    type Error = AgentError;

    fn reset(&mut self, episodes: usize) -> Result<Vec<Vec<f32>>, AgentError> {
        self.played = vec![Vec::new(); episodes];
        Ok(vec![vec![0.0]; episodes])
    }

    fn step(&mut self, actions: &[usize]) -> Result<(Vec<Vec<f32>>, Vec<Transition>), AgentError> {
        let mut transitions = Vec::new();
        for (played, &action) in self.played.iter_mut().zip(actions) {
            let wanted = [1, 3, 0][played.len()];
            played.push(action);
            let terminated = played.len() == 3;
            transitions.push(Transition { reward: -(action.abs_diff(wanted) as f64), terminated });
            if terminated {
                self.finished.push(played.clone());
            }
        }
        Ok((vec![vec![0.0]; actions.len()], transitions))
    }
}

#[test]
fn greedy_finds_the_best_of_separable_steps_and_ends() {
    let mut environment = Separable { played: Vec::new(), finished: Vec::new() };
    let mut agent = GreedySearch::new(4, 3);
    // Two passes of three steps with four actions each: one that improves, one that changes nothing.
    assert!(learn(&mut agent, &mut environment, 1000).len() <= 6);
    play(&mut agent, &mut environment, 1, Mode::Greedy).unwrap();
    assert_eq!(environment.finished.last().unwrap(), &[1, 3, 0]);
}

#[test]
fn searches_choose_among_the_actions_that_differ_at_a_step() {
    // The second step tells only the highest action and the others apart.
    let actions = StepActions::new(4, vec![vec![0, 1, 2, 3], vec![0, 0, 0, 3]]).unwrap();
    let among = || actions.clone();
    let agents: [(usize, Box<dyn Agent>); 5] = [
        (40, Box::new(LocalSearch::with_actions(among(), 3, 1, 1))),
        (400, Box::new(Evolution::with_actions(among(), 3, 1, 1))),
        (400, Box::new(RandomSearch::with_actions(among(), 1, 1))),
        (40, Box::new(GreedySearch::with_actions(among(), 3))),
        (400, Box::new(Exhaustive::with_actions(among(), 3, 5))),
    ];
    for (episodes, mut agent) in agents {
        let mut environment = Separable { played: Vec::new(), finished: Vec::new() };
        learn(&mut *agent, &mut environment, episodes);
        let finished = &environment.finished;
        assert!(finished.iter().all(|actions| [0, 3].contains(&actions[1])), "{}", agent.name());
        assert!(finished.contains(&vec![1, 3, 0]), "{}", agent.name());
        if agent.name() == "exhaustive" {
            assert_eq!(finished.len(), 4 * 2 * 4);
        }
    }
}

#[test]
fn an_action_amounts_to_one_that_amounts_to_itself() {
    let refused = |same| StepActions::new(3, vec![vec![0, 1, 2], same]).unwrap_err().to_string();
    assert_eq!(refused(vec![0, 1]), "actions of a step: got 2, expected 3");
    assert_eq!(
        refused(vec![0, 0, 1]),
        "the action that an action stands for, which stands for itself: got 0, expected 1"
    );
    assert_eq!(refused(vec![0, 0, 3]), "action 3 is not below 3");
    assert_eq!(StepActions::all(0).count(), 1);
}

#[test]
fn exhaustive_plays_every_sequence_once() {
    for per_batch in [1, 5, 64, 1000] {
        let mut environment = Separable { played: Vec::new(), finished: Vec::new() };
        let mut agent = Exhaustive::new(4, 3, per_batch);
        learn(&mut agent, &mut environment, 1000);
        let mut all = environment.finished.clone();
        all.dedup();
        assert!(all.len() == 64 && all.is_sorted(), "{per_batch}");
        play(&mut agent, &mut environment, 1, Mode::Greedy).unwrap();
        assert_eq!(environment.finished.last().unwrap(), &[1, 3, 0]);
    }
}

/// Returns of sequences with one best one, in which two steps matter together.
struct Together {
    step: usize,
    actions: Vec<Vec<usize>>,
}

impl Environment for Together {
    type Error = AgentError;
    fn reset(&mut self, episodes: usize) -> Result<Vec<Vec<f32>>, AgentError> {
        (self.step, self.actions) = (0, vec![Vec::new(); episodes]);
        Ok(vec![vec![0.0]; episodes])
    }
    fn step(&mut self, actions: &[usize]) -> Result<(Vec<Vec<f32>>, Vec<Transition>), AgentError> {
        self.step += 1;
        for (episode, &action) in self.actions.iter_mut().zip(actions) {
            episode.push(action);
        }
        let terminated = self.step == 4;
        // 3-1-2-2, and the sum of the first two must not move.
        let worth = |a: &[usize]| {
            let away = |action: usize, best: i64| (action as i64 - best).abs() as f64;
            -(away(a[0] + a[1], 4) * 3.0 + away(a[0], 3) + away(a[2], 2) + away(a[3], 2))
        };
        let transition = |episode: &Vec<usize>| Transition {
            reward: if terminated { worth(episode) } else { 0.0 },
            terminated,
        };
        let observations = vec![vec![0.0]; actions.len()];
        Ok((observations, self.actions.iter().map(transition).collect()))
    }
}

#[test]
fn local_search_starts_from_the_best_uniform_sequence_and_exchanges() {
    for seed in 0..10 {
        let mut agent = LocalSearch::new(5, 4, seed, 1);
        let mut environment = Together { step: 0, actions: Vec::new() };
        learn(&mut agent, &mut environment, 5);
        assert_eq!(greedy_return(&mut agent, &mut environment), -1.0, "2-2-2-2 after the uniform");
        // Up or down alone makes it worse; eight such moves and at most twelve exchanges.
        learn(&mut agent, &mut environment, 20);
        assert_eq!(greedy_return(&mut agent, &mut environment), 0.0, "seed {seed}");
        // It goes on elsewhere for ever.
        assert_eq!(learn(&mut agent, &mut environment, 500).len(), 500);
    }
}

#[test]
fn evolution_finds_the_best_sequence() {
    let mut agent = Evolution::new(5, 4, 1, 1);
    let mut environment = Together { step: 0, actions: Vec::new() };
    learn(&mut agent, &mut environment, 400);
    assert_eq!(greedy_return(&mut agent, &mut environment), 0.0);
}

#[test]
fn a_demonstrated_episode_becomes_the_greedy_answer() {
    let demonstration = |action: usize| Demonstration {
        observations: (0..3).map(|step| vec![step as f32, 1.0]).collect(),
        actions: vec![action, 3, 1],
        episode_return: 0.5,
    };
    let mut agent = PpoConfig::default().init(2, 4, 1).unwrap();
    for _ in 0..8 {
        agent.imitate(&[demonstration(2), demonstration(0)]).unwrap();
    }
    assert_eq!(agent.begin(1, Mode::Greedy), Some(1));
    let actions: Vec<usize> =
        (0..3).map(|step| agent.act(&[vec![step as f32, 1.0]]).unwrap()[0]).collect();
    // The first demonstration counts most.
    assert_eq!(actions, [2, 3, 1]);
    let error = agent.imitate(&[demonstration(2)]).unwrap_err();
    assert!(matches!(error, AgentError::UnfinishedBatch { .. }), "{error}");
    agent.finish(&vec![vec![0.0]; 3]).unwrap();

    let before = agent.snapshot().unwrap();
    let mut refused = |change: &dyn Fn(&mut Demonstration), expected: &str| {
        let mut changed = demonstration(2);
        change(&mut changed);
        let error = agent.imitate(&[demonstration(1), changed]).unwrap_err().to_string();
        assert!(error.contains(expected), "`{error}` lacks `{expected}`");
    };
    refused(&|d| d.actions[1] = 4, "action 4 is not below 4");
    refused(&|d| d.actions.clear(), "steps demonstrated");
    refused(&|d| drop(d.observations.pop()), "steps demonstrated");
    refused(&|d| d.observations[1].push(0.0), "observation length");
    refused(&|d| d.observations[1][0] = f32::NAN, "observation");
    refused(&|d| d.episode_return = f64::INFINITY, "return of a demonstration");
    assert_eq!(agent.snapshot().unwrap(), before);
    agent.imitate(&[]).unwrap();
    assert_eq!(agent.snapshot().unwrap(), before, "nothing to learn");
}

#[test]
fn random_is_uniform_and_seeded() {
    let actions = |seed| {
        let mut agent = RandomSearch::new(5, seed, 500);
        agent.begin(500, Mode::Explore);
        agent.act(&vec![vec![0.0]; 500]).unwrap()
    };
    assert_eq!(actions(1), actions(1));
    assert_ne!(actions(1), actions(2));
    for action in 0..5 {
        let count = actions(3).iter().filter(|&&a| a == action).count();
        // 100 expected, standard deviation 9.
        assert!((60..140).contains(&count), "{action}: {count}");
    }
    assert_eq!(RandomSearch::new(5, 1, 4).begin(1, Mode::Greedy), None);
}
