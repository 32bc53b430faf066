//! Proximal policy optimization over whole episodes.

use burn::tensor::Device;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, weighted::WeightedIndex};

use crate::{
    Agent, AgentError, AgentSnapshot, Demonstration, Mode, PpoConfig, UpdateStats,
    actor_critic::ActorCritic,
    error::check_count,
    imitation::Example,
    loss::{Batch, LossParts},
    network::{DeviceNetwork, Network},
    rollout::Rollout,
    turns::Turns,
};

const NAME: &str = "ppo";
/// Steps of the optimizer that one call of [`Agent::imitate`] takes.
const IMITATION_STEPS: usize = 12;
/// Raised whenever the meaning of a field changes.
const VERSION: u32 = 1;
const FIELDS: &[&str] =
    &["config", "observation_len", "action_count", "parameters", "adam_steps", "best", "rng"];

/// The agent of ReLeQ: PPO with a recurrent actor-critic.
///
/// - trunk: LSTM of 128 units, or a dense layer of 128 units with ReLU
/// - policy head: 128 units, 128 units, both with ReLU, divided by the temperature, then one logit per
///   action
/// - value head: 128 units, 64 units, both with ReLU, then one number
///
/// An update makes several passes over a batch of whole episodes. The probability ratio of each pass is
/// taken to the policy that played the batch. All randomness comes from the seed, and equal calls give
/// equal bits.
///
/// # Source
/// Schulman et al. 2017 (arXiv 1707.06347), equation 9; sizes and temperature from the ReLeQ
/// authors' code.
#[derive(Debug)]
pub struct Ppo {
    state: PpoState,
    device: Device,
    /// The network on the device, copied again after each update.
    on_device: Option<DeviceNetwork>,
    turns: Turns,
    rollout: Option<Rollout>,
    probabilities: Vec<Vec<f32>>,
}

/// All that a snapshot holds.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PpoState {
    pub(crate) config: PpoConfig,
    pub(crate) observation_len: usize,
    pub(crate) action_count: usize,
    pub(crate) network: Network,
    /// The episode of highest return so far.
    pub(crate) best: Option<Example>,
    pub(crate) rng: ChaCha8Rng,
}

impl Ppo {
    pub(crate) fn new(
        config: PpoConfig,
        observation_len: usize,
        action_count: usize,
        seed: u64,
    ) -> Result<Self, AgentError> {
        config.check()?;
        for (field, value) in [("observation_len", observation_len), ("action_count", action_count)]
        {
            if value == 0 {
                return Err(AgentError::Config { field, reason: "must be at least 1".into() });
            }
        }
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let shapes = ActorCritic::shapes(config.trunk, observation_len, action_count);
        let network = Network::new(&shapes, &mut rng);
        let state = PpoState { config, observation_len, action_count, network, best: None, rng };
        Ok(Self::from_state(state))
    }

    /// An agent that continues exactly as the one that `snapshot` was taken from, with its settings.
    ///
    /// # Errors
    /// [`AgentError::Snapshot`], naming the field, for a snapshot of another agent or version, or a
    /// damaged one.
    pub fn from_snapshot(snapshot: &AgentSnapshot) -> Result<Self, AgentError> {
        snapshot.expect(NAME, VERSION, FIELDS)?;
        let config: PpoConfig = snapshot.get("config")?;
        config.check().map_err(|error| snapshot.error("config", error))?;
        let [observation_len, action_count] =
            ["observation_len", "action_count"].map(|field| match snapshot.get(field)? {
                0 => Err(snapshot.error(field, "must be at least 1")),
                value => Ok(value),
            });
        let (observation_len, action_count) = (observation_len?, action_count?);
        let shapes = ActorCritic::shapes(config.trunk, observation_len, action_count);
        Ok(Self::from_state(PpoState {
            network: Network::load(&shapes, snapshot)?,
            best: Example::load(observation_len, action_count, snapshot)?,
            rng: snapshot.get("rng")?,
            config,
            observation_len,
            action_count,
        }))
    }

    fn from_state(state: PpoState) -> Self {
        Self {
            state,
            device: Device::flex(),
            on_device: None,
            turns: Turns::default(),
            rollout: None,
            probabilities: Vec::new(),
        }
    }

    #[cfg(test)]
    pub(crate) const fn state(&self) -> &PpoState {
        &self.state
    }

    /// The hyperparameters.
    #[must_use]
    pub const fn config(&self) -> &PpoConfig {
        &self.state.config
    }

    /// Number of trainable parameters.
    #[must_use]
    pub fn parameter_count(&self) -> usize {
        self.state.network.parameter_count()
    }

    fn learn(&mut self, rollout: &Rollout) -> UpdateStats {
        let PpoState { config, observation_len, network, best, .. } = &mut self.state;
        *best = rollout.best(best.take(), *observation_len);
        let lessons = rollout.lessons(config);
        let batch = Batch {
            steps: rollout.steps(),
            episodes: rollout.episodes,
            observations: &rollout.observations,
            actions: &rollout.actions,
            old_log_probabilities: &rollout.log_probabilities,
            advantages: &lessons.advantages,
            value_targets: &lessons.value_targets,
        };
        let mut parts = LossParts::default();
        for _ in 0..config.epochs {
            parts = network.update(&batch, best.as_ref(), config);
        }
        UpdateStats {
            mean_return: rollout.mean_return(),
            policy_loss: parts.policy,
            value_loss: parts.value,
            entropy: parts.entropy,
            approx_kl: parts.approx_kl,
            clip_fraction: parts.clip_fraction,
            explained_variance: lessons.explained_variance,
        }
    }
}

/// Softmax in double precision.
fn softmax(logits: &[f32]) -> Vec<f64> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exponentials: Vec<f64> = logits.iter().map(|&l| f64::from(l - max).exp()).collect();
    let sum: f64 = exponentials.iter().sum();
    exponentials.into_iter().map(|e| e / sum).collect()
}

impl Agent for Ppo {
    fn name(&self) -> &str {
        NAME
    }

    fn begin(&mut self, max_episodes: usize, mode: Mode) -> Option<usize> {
        self.rollout = None;
        let episodes = self.turns.begin(max_episodes.min(self.state.config.episodes_per_batch))?;
        let PpoState { network, config, .. } = &self.state;
        let on_device = self
            .on_device
            .get_or_insert_with(|| network.to_device(config.temperature, &self.device));
        self.rollout = Some(Rollout::new(mode, episodes, on_device.start(episodes)));
        Some(episodes)
    }

    fn act(&mut self, observations: &[Vec<f32>]) -> Result<Vec<usize>, AgentError> {
        self.turns.step(observations)?;
        let (Some(rollout), Some(network)) = (&mut self.rollout, &self.on_device) else {
            return Err(AgentError::OutOfTurn { call: "act", expected: "begin" });
        };
        let mut flat = Vec::with_capacity(rollout.episodes * self.state.observation_len);
        for observation in observations {
            check_count("observation length", observation.len(), self.state.observation_len)?;
            flat.extend_from_slice(observation);
        }
        if !flat.iter().all(|value| value.is_finite()) {
            return Err(AgentError::NotFinite("observation"));
        }
        let mut lstm = rollout.lstm.clone();
        let (logits, values) = network.step(&flat, rollout.episodes, &mut lstm);
        if !logits.iter().chain(&values).all(|value| value.is_finite()) {
            return Err(AgentError::NotFinite("output of the policy or value network"));
        }
        rollout.lstm = lstm;
        self.probabilities.clear();
        let mut actions = Vec::with_capacity(rollout.episodes);
        for logits in logits.chunks_exact(self.state.action_count) {
            let probabilities = softmax(logits);
            let action = match rollout.mode {
                Mode::Greedy => (0..probabilities.len())
                    .rev()
                    .max_by(|&a, &b| probabilities[a].total_cmp(&probabilities[b]))
                    .unwrap_or(0),
                Mode::Explore => WeightedIndex::new(&probabilities)
                    .map_err(|error| AgentError::Other(error.into()))?
                    .sample(&mut self.state.rng),
            };
            actions.push(action);
            rollout.log_probabilities.push(probabilities[action].max(1e-10).ln() as f32);
            self.probabilities.push(probabilities.iter().map(|&p| p as f32).collect());
        }
        self.turns.acted();
        rollout.observations.extend(flat);
        rollout.values.extend(values);
        rollout.actions.extend(&actions);
        Ok(actions)
    }

    fn finish(&mut self, rewards: &[Vec<f64>]) -> Result<UpdateStats, AgentError> {
        self.turns.finish(rewards)?;
        let Some(mut rollout) = self.rollout.take() else {
            return Err(AgentError::OutOfTurn { call: "finish", expected: "begin" });
        };
        rollout.rewards = rewards.concat();
        if rollout.mode == Mode::Greedy {
            let mean_return = rollout.mean_return();
            return Ok(UpdateStats { mean_return, ..UpdateStats::default() });
        }
        let stats = self.learn(&rollout);
        self.on_device = None;
        Ok(stats)
    }

    fn snapshot(&self) -> Result<AgentSnapshot, AgentError> {
        self.turns.check_finished(NAME)?;
        let mut snapshot = AgentSnapshot::new(NAME, VERSION);
        let PpoState { config, observation_len, action_count, network, best, rng } = &self.state;
        if let Some(best) = best {
            snapshot.check_finite("best.episode_return", [best.episode_return])?;
        }
        network.save(&mut snapshot)?;
        snapshot.set("config", config)?;
        snapshot.set("observation_len", observation_len)?;
        snapshot.set("action_count", action_count)?;
        snapshot.set("best", best)?;
        snapshot.set("rng", rng)?;
        Ok(snapshot)
    }

    fn restore(&mut self, snapshot: &AgentSnapshot) -> Result<(), AgentError> {
        let restored = Self::from_snapshot(snapshot)?;
        snapshot.expect_setting("observation_len", self.state.observation_len)?;
        snapshot.expect_setting("action_count", self.state.action_count)?;
        if let Some(field) = self.state.config.first_difference(&restored.state.config) {
            return Err(snapshot.error(
                format!("config.{field}"),
                "differs from this agent's; make the agent with the settings of the snapshot",
            ));
        }
        *self = restored;
        Ok(())
    }

    /// Raises the likelihood of the demonstrated actions, each demonstration counting half as much as the one before
    /// it; the first is the episode to imitate from then on, until a better one is played.
    fn imitate(&mut self, demonstrations: &[Demonstration]) -> Result<(), AgentError> {
        self.turns.check_finished(NAME)?;
        let PpoState { config, observation_len, action_count, network, best, .. } = &mut self.state;
        let mut weight = 1.0;
        let mut examples = Vec::with_capacity(demonstrations.len());
        for demonstration in demonstrations {
            weight /= 2.0;
            examples.push((weight, Example::new(demonstration, *observation_len, *action_count)?));
        }
        let Some((_, first)) = examples.first() else { return Ok(()) };
        *best = Some(first.clone());
        for _ in 0..IMITATION_STEPS {
            network.imitate(&examples, config);
        }
        self.on_device = None;
        Ok(())
    }

    fn probabilities(&self) -> Option<&[Vec<f32>]> {
        Some(&self.probabilities)
    }
}
