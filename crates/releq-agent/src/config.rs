//! Hyperparameters of PPO.

use serde::{Deserialize, Serialize};

use crate::{AgentError, Ppo};

/// The layer that both heads of the actor-critic share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trunk {
    /// LSTM of 128 units: zero state at the start of an episode, carried over its steps, and
    /// backpropagated through all of them.
    #[default]
    Lstm,
    /// One dense layer of 128 units with ReLU, as in the scripts that measured the authors' tables.
    Dense,
}

/// The target of the value head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ValueTarget {
    /// `A_t + V_old(s_t)`: a reward at the end of an episode reaches every step in one update.
    #[default]
    AdvantagePlusValue,
    /// `r_t + gamma * V_old(s_{t+1})`, as in the authors' code.
    OneStep,
}

/// Hyperparameters of [`Ppo`]; [`init`](Self::init) checks them.
///
/// The default is tuned by us for replay of measured tables: see [`default`](Self::default).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self", default, deny_unknown_fields)]
pub struct PpoConfig {
    /// Shared part of the networks.
    pub trunk: Trunk,
    /// Step size of Adam.
    pub learning_rate: f64,
    /// Episodes between two updates, played in lockstep.
    pub episodes_per_batch: usize,
    /// Passes over a batch. Each compares with the policy that played it.
    pub epochs: usize,
    /// How far the probability ratio may move before its gradient stops (epsilon of the paper).
    pub clip_range: f64,
    /// Discount.
    pub gamma: f64,
    /// Decay of advantages (lambda of the paper).
    pub gae_lambda: f64,
    /// Weight of the value loss.
    pub vf_coef: f64,
    /// Weight of the entropy bonus.
    pub ent_coef: f64,
    /// Weight of imitating the best episode so far: the mean negative log-likelihood of its actions
    /// is added to the loss. 0 is plain PPO. This is our addition, after self-imitation learning (Oh
    /// et al. 2018, arXiv 1806.05635): the large penalties for collapsed networks hide the small
    /// differences between good assignments, and plain PPO settles on the first uniform assignment
    /// that works.
    pub imitation_coef: f64,
    /// Upper limit for the norm of the gradient over all parameters; `None` does not clip.
    pub max_grad_norm: Option<f64>,
    /// Whether advantages are normalized to mean 0 and standard deviation 1 over the batch, unless
    /// they are all equal.
    pub normalize_advantage: bool,
    /// The target of the value head.
    pub value_target: ValueTarget,
    /// Rewards are multiplied by this before learning.
    pub reward_scale: f64,
    /// The policy's last hidden activations are divided by this; 0.5 has the effect of doubling the
    /// weights of the output layer.
    pub temperature: f64,
}

releq_core::named_fields!(PpoConfig);

impl Default for PpoConfig {
    /// Eight episodes per update, four epochs, learning rate 1e-3, clip range 0.2, rewards times 5,
    /// gradient norm at most 0.5, entropy 0.3, imitation 1; the rest as in [`paper`](Self::paper). Tuned
    /// on the authors' tables and on random tables of 5 to 30 layers: without imitation, the greedy
    /// answer on LeNet's table is 3-3-3-3 for most seeds.
    fn default() -> Self {
        Self {
            learning_rate: 1e-3,
            episodes_per_batch: 8,
            epochs: 4,
            clip_range: 0.2,
            reward_scale: 5.0,
            max_grad_norm: Some(0.5),
            gamma: 1.0,
            ent_coef: 0.3,
            imitation_coef: 1.0,
            ..Self::paper()
        }
    }
}

impl PpoConfig {
    /// The paper's settings: LSTM, learning rate 1e-4, clip range 0.1, 3 epochs, lambda 0.99. They are
    /// given from memory, without the paper's text; gamma is an assumption, 0.99.
    #[must_use]
    pub const fn paper() -> Self {
        Self {
            trunk: Trunk::Lstm,
            learning_rate: 1e-4,
            episodes_per_batch: 1,
            epochs: 3,
            clip_range: 0.1,
            gamma: 0.99,
            gae_lambda: 0.99,
            vf_coef: 1.0,
            ent_coef: 0.01,
            imitation_coef: 0.0,
            max_grad_norm: None,
            normalize_advantage: false,
            value_target: ValueTarget::AdvantagePlusValue,
            reward_scale: 1.0,
            temperature: 0.5,
        }
    }

    /// The settings of the authors' script that measured the published tables: dense trunk, learning
    /// rate 1e-4, clip range 0.3 (never reached in the single epoch), gamma 0.9, lambda 1, one-step value
    /// target.
    #[must_use]
    pub const fn authors_code() -> Self {
        Self {
            trunk: Trunk::Dense,
            epochs: 1,
            clip_range: 0.3,
            gamma: 0.9,
            gae_lambda: 1.0,
            value_target: ValueTarget::OneStep,
            ..Self::paper()
        }
    }

    /// For searches of 100 to 300 episodes, where every episode costs a retrain: learns faster and
    /// explores less.
    #[must_use]
    pub fn quick() -> Self {
        Self { learning_rate: 2e-3, ent_coef: 0.1, imitation_coef: 0.3, ..Self::default() }
    }

    /// Makes an agent for observations of `observation_len` numbers and `action_count` actions.
    ///
    /// # Errors
    /// [`AgentError::Config`], naming the first field that is out of range.
    pub fn init(
        self,
        observation_len: usize,
        action_count: usize,
        seed: u64,
    ) -> Result<Ppo, AgentError> {
        Ppo::new(self, observation_len, action_count, seed)
    }

    /// Name of the first field whose value differs.
    pub(crate) fn first_difference(&self, other: &Self) -> Option<String> {
        let fields = |config: &Self| match serde_json::to_value(config) {
            Ok(serde_json::Value::Object(fields)) => fields,
            _ => serde_json::Map::new(),
        };
        let theirs = fields(other);
        fields(self).into_iter().find(|(name, value)| theirs.get(name) != Some(value)).map(|f| f.0)
    }

    /// Checks every hyperparameter.
    ///
    /// # Errors
    /// [`AgentError`], naming the first that is out of its range.
    pub fn check(&self) -> Result<(), AgentError> {
        let within = |field, value: f64, low: f64, high: f64| {
            if value >= low && value <= high {
                Ok(())
            } else {
                let reason = format!("{value:?} is not in {low} to {high}");
                Err(AgentError::Config { field, reason })
            }
        };
        let positive = |field, value: f64| {
            if value > 0.0 && value <= 1e6 {
                return Ok(());
            }
            let reason = format!("{value:?} is not above 0 and at most 1000000");
            Err(AgentError::Config { field, reason })
        };
        let at_least_one = |field, value: usize| within(field, value as f64, 1.0, 1e6);
        positive("learning_rate", self.learning_rate)?;
        at_least_one("episodes_per_batch", self.episodes_per_batch)?;
        at_least_one("epochs", self.epochs)?;
        positive("clip_range", self.clip_range)?;
        within("gamma", self.gamma, 0.0, 1.0)?;
        within("gae_lambda", self.gae_lambda, 0.0, 1.0)?;
        within("vf_coef", self.vf_coef, 0.0, 1e6)?;
        within("ent_coef", self.ent_coef, 0.0, 1e6)?;
        within("imitation_coef", self.imitation_coef, 0.0, 1e6)?;
        if let Some(norm) = self.max_grad_norm {
            positive("max_grad_norm", norm)?;
        }
        positive("reward_scale", self.reward_scale)?;
        positive("temperature", self.temperature)
    }
}
