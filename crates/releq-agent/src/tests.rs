//! What the agents promise, on environments small enough to know the answer.

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
    std::fs::write(&path, "{}").unwrap();
    check("missing field `format`");
    std::fs::write(&path, good.replace("ppo 1", "ppo 99")).unwrap();
    check("format `releq-agent ppo 99`");
    std::fs::write(&path, good.replace("\"action_count\":4", "\"action_count\":5")).unwrap();
    check("do not fit");
    let nowhere = folder.path().join("none/agent.json");
    let error = PpoConfig::default().init(4, 4, 9).unwrap().save(&nowhere).unwrap_err();
    assert!(error.to_string().contains("none"));
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

#[test]
fn calls_out_of_turn_and_bad_counts_are_refused() {
    let mut agents: Vec<Box<dyn Agent>> = vec![
        Box::new(PpoConfig::default().init(1, 3, 1).unwrap()),
        Box::new(RandomSearch::new(3, 1, 4)),
        Box::new(GreedySearch::new(3, 2)),
        Box::new(Exhaustive::new(3, 2, 4)),
    ];
    let pay = |reward| Transition { reward, terminated: true };
    for agent in &mut agents {
        let name = agent.name().to_owned();
        assert!(agent.act(&[vec![0.0]]).is_err(), "{name}");
        assert!(agent.reward(&[]).is_err() && agent.finish().is_err(), "{name}");
        assert_eq!(agent.begin(0, Mode::Explore), None, "{name}");
        let episodes = agent.begin(2, Mode::Explore).unwrap();
        assert!(agent.act(&vec![vec![0.0]; episodes + 1]).is_err(), "{name}");
        let episodes = agent.begin(2, Mode::Explore).unwrap();
        let actions = agent.act(&vec![vec![0.0]; episodes]).unwrap();
        assert!(actions.len() == episodes && actions.iter().all(|&a| a < 3), "{name}");
        assert!(agent.act(&vec![vec![0.0]; episodes]).is_err(), "{name}");
        assert!(agent.finish().is_err(), "{name}");
        assert!(agent.reward(&vec![pay(f64::NAN); episodes]).is_err(), "{name}");
    }
    let mut agent = PpoConfig::default().init(2, 3, 1).unwrap();
    agent.begin(1, Mode::Explore);
    assert!(agent.act(&[vec![0.0]]).unwrap_err().to_string().contains("observation length"));
    assert!(agent.act(&[vec![0.0, f32::NAN]]).is_err());
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
