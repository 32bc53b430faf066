//! Proximal policy optimization over whole episodes.

use burn::tensor::Device;
use rand::{
    SeedableRng,
    distr::{Distribution, weighted::WeightedIndex},
};
use rand_chacha::ChaCha8Rng;

use crate::{
    Agent, AgentError, AgentSnapshot, Mode, PpoConfig, UpdateStats, ValueTarget,
    error::check_count,
    gae::gae,
    network::{ActorCritic, Batch, Example, Loss, LossParts, LstmState, Tensors},
    turns::Turns,
};

const NAME: &str = "ppo";
/// Raised whenever the meaning of a field changes.
const VERSION: u32 = 2;
const FIELDS: &[&str] =
    &["config", "observation_len", "action_count", "parameters", "adam_steps", "best", "rng"];

/// The agent of ReLeQ: PPO with an actor-critic that remembers the episode.
///
/// - trunk: LSTM(128), or dense 128 with ReLU
/// - policy: 128 ReLU, 128 ReLU, divided by the temperature, one logit for each action
/// - value: 128 ReLU, 64 ReLU, one number
///
/// Every update makes several passes over the same whole episodes against the policy that played
/// them, so that clipping can act. Everything random follows from the seed, and equal calls give equal
/// bits.
///
/// # Source
/// Schulman et al. 2017 (arXiv 1707.06347), equation 9; sizes and temperature from the ReLeQ
/// authors' code.
#[derive(Debug)]
pub struct Ppo {
    state: PpoState,
    device: Device,
    /// The parameters on the device, made anew after each update.
    tensors: Option<Tensors>,
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
    pub(crate) network: ActorCritic,
    /// The episode of highest return so far.
    pub(crate) best: Option<Example>,
    pub(crate) rng: ChaCha8Rng,
}

/// One batch of episodes while it is played; rows step by step, episodes within a step.
#[derive(Debug)]
struct Rollout {
    mode: Mode,
    episodes: usize,
    lstm: LstmState,
    observations: Vec<f32>,
    actions: Vec<usize>,
    log_probabilities: Vec<f32>,
    values: Vec<f32>,
    rewards: Vec<f64>,
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
        let network = ActorCritic::new(
            config.trunk,
            config.temperature,
            observation_len,
            action_count,
            &mut rng,
        );
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
        Ok(Self::from_state(PpoState {
            network: ActorCritic::load(&config, observation_len, action_count, snapshot)?,
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
            tensors: None,
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

    /// Keeps the best episode of all batches, the earliest of equals.
    fn remember_best(&mut self, rollout: &Rollout) {
        let (episodes, inputs) = (rollout.episodes, self.state.observation_len);
        for episode in 0..episodes {
            let rows = || (episode..rollout.rewards.len()).step_by(episodes);
            let episode_return: f64 = rows().map(|row| rollout.rewards[row]).sum();
            if self.state.best.as_ref().is_some_and(|b| b.episode_return >= episode_return) {
                continue;
            }
            let observation = |row: usize| &rollout.observations[row * inputs..(row + 1) * inputs];
            self.state.best = Some(Example {
                episode_return,
                observations: rows().flat_map(observation).copied().collect(),
                actions: rows().map(|row| rollout.actions[row]).collect(),
            });
        }
    }

    fn learn(&mut self, rollout: &Rollout) -> UpdateStats {
        self.remember_best(rollout);
        let config = &self.state.config;
        let episodes = rollout.episodes;
        let steps = rollout.rewards.len() / episodes;
        let mut advantages = vec![0.0; rollout.rewards.len()];
        let mut targets = vec![0.0; rollout.rewards.len()];
        let mut returns = vec![0.0; rollout.rewards.len()];
        for episode in 0..episodes {
            let at = |step: usize| step * episodes + episode;
            let rewards: Vec<f64> =
                (0..steps).map(|t| rollout.rewards[at(t)] * config.reward_scale).collect();
            let values: Vec<f64> = (0..steps).map(|t| f64::from(rollout.values[at(t)])).collect();
            let mut to_go = 0.0;
            for t in (0..steps).rev() {
                to_go = rewards[t] + config.gamma * to_go;
                returns[at(t)] = to_go;
            }
            for (t, advantage) in
                gae(&rewards, &values, config.gamma, config.gae_lambda).into_iter().enumerate()
            {
                advantages[at(t)] = advantage;
                targets[at(t)] = match config.value_target {
                    ValueTarget::AdvantagePlusValue => advantage + values[t],
                    ValueTarget::OneStep => {
                        rewards[t] + config.gamma * values.get(t + 1).copied().unwrap_or(0.0)
                    }
                };
            }
        }
        if config.normalize_advantage {
            let (mean, variance) = mean_and_variance(&advantages);
            if variance > 1e-16 {
                let deviation = variance.sqrt() + 1e-8;
                advantages.iter_mut().for_each(|a| *a = (*a - mean) / deviation);
            }
        }
        let residuals: Vec<f64> =
            returns.iter().zip(&rollout.values).map(|(r, &v)| r - f64::from(v)).collect();
        let (spread, unexplained) =
            (mean_and_variance(&returns).1, mean_and_variance(&residuals).1);

        let to_f32 = |values: &[f64]| values.iter().map(|&v| v as f32).collect::<Vec<f32>>();
        let (advantages, targets) = (to_f32(&advantages), to_f32(&targets));
        let batch = Batch {
            steps,
            episodes,
            observations: &rollout.observations,
            actions: &rollout.actions,
            old_log_probabilities: &rollout.log_probabilities,
            advantages: &advantages,
            value_targets: &targets,
        };
        let loss = Loss {
            clip_range: config.clip_range,
            vf_coef: config.vf_coef,
            ent_coef: config.ent_coef,
            imitation_coef: config.imitation_coef,
        };
        let mut parts = LossParts::default();
        for _ in 0..config.epochs {
            parts = self.state.network.update(
                &batch,
                self.state.best.as_ref(),
                &loss,
                config.learning_rate,
                config.max_grad_norm,
            );
        }
        UpdateStats {
            mean_return: rollout.rewards.iter().sum::<f64>() / episodes as f64,
            policy_loss: parts.policy,
            value_loss: parts.value,
            entropy: parts.entropy,
            approx_kl: parts.approx_kl,
            clip_fraction: parts.clip_fraction,
            explained_variance: if spread > 1e-16 { 1.0 - unexplained / spread } else { 0.0 },
        }
    }
}

fn mean_and_variance(values: &[f64]) -> (f64, f64) {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    (mean, values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / values.len() as f64)
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
        let tensors = self.tensors.get_or_insert_with(|| self.state.network.tensors(&self.device));
        self.rollout = Some(Rollout {
            mode,
            episodes,
            lstm: tensors.start(episodes),
            observations: Vec::new(),
            actions: Vec::new(),
            log_probabilities: Vec::new(),
            values: Vec::new(),
            rewards: Vec::new(),
        });
        Some(episodes)
    }

    fn act(&mut self, observations: &[Vec<f32>]) -> Result<Vec<usize>, AgentError> {
        self.turns.step(observations)?;
        let (Some(rollout), Some(tensors)) = (&mut self.rollout, &self.tensors) else {
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
        let (logits, values) = tensors.step(&flat, &mut lstm);
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
            let mean_return = rollout.rewards.iter().sum::<f64>() / rollout.episodes as f64;
            return Ok(UpdateStats { mean_return, ..UpdateStats::default() });
        }
        let stats = self.learn(&rollout);
        self.tensors = None;
        Ok(stats)
    }

    fn snapshot(&self) -> Result<AgentSnapshot, AgentError> {
        self.turns.check_finished(NAME)?;
        let mut snapshot = AgentSnapshot::new(NAME, VERSION);
        let PpoState { config, observation_len, action_count, network, best, rng } = &self.state;
        if let Some(best) = best {
            snapshot.check_finite("best.episode_return", [best.episode_return])?;
        }
        network.save(*observation_len, *action_count, &mut snapshot)?;
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

    fn probabilities(&self) -> Option<&[Vec<f32>]> {
        Some(&self.probabilities)
    }
}
