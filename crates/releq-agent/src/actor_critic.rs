//! The actor-critic: a trunk shared by a policy head and a value head.

use burn::tensor::Tensor;

use crate::{
    Trunk,
    dense::Dense,
    lstm::{Lstm, LstmState},
    parameter::Shape,
};

/// Units of the trunk and of the policy's layers.
pub(crate) const HIDDEN: usize = 128;
/// Units of the value head's second layer.
const VALUE_HIDDEN: usize = 64;

/// The layers, over shapes, [`Parameter`](crate::parameter::Parameter)s on the host, or tensors.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ActorCritic<P> {
    pub(crate) trunk: TrunkLayer<P>,
    policy_1: Dense<P>,
    policy_2: Dense<P>,
    policy_out: Dense<P>,
    value_1: Dense<P>,
    value_2: Dense<P>,
    value_out: Dense<P>,
}

/// The layer for a [`Trunk`].
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum TrunkLayer<P> {
    Lstm(Lstm<P>),
    Dense(Dense<P>),
}

impl ActorCritic<Shape> {
    /// The shapes of all parameters.
    pub(crate) fn shapes(trunk: Trunk, inputs: usize, actions: usize) -> Self {
        let dense = |inputs, outputs| Dense { kernel: [inputs, outputs], bias: [1, outputs] };
        Self {
            trunk: match trunk {
                Trunk::Lstm => TrunkLayer::Lstm(Lstm {
                    kernel: [inputs.saturating_add(HIDDEN), 4 * HIDDEN],
                    bias: [1, 4 * HIDDEN],
                }),
                Trunk::Dense => TrunkLayer::Dense(dense(inputs, HIDDEN)),
            },
            policy_1: dense(HIDDEN, HIDDEN),
            policy_2: dense(HIDDEN, HIDDEN),
            policy_out: dense(HIDDEN, actions),
            value_1: dense(HIDDEN, HIDDEN),
            value_2: dense(HIDDEN, VALUE_HIDDEN),
            value_out: dense(VALUE_HIDDEN, 1),
        }
    }
}

impl<P> ActorCritic<P> {
    /// Makes every parameter from the name and the one it replaces, in the order of the fields.
    pub(crate) fn try_map<Q, E>(
        &self,
        mut make: impl FnMut(&str, &P) -> Result<Q, E>,
    ) -> Result<ActorCritic<Q>, E> {
        let mut pair = |layer: &str, kernel: &P, bias: &P| {
            Ok((make(&format!("{layer}.kernel"), kernel)?, make(&format!("{layer}.bias"), bias)?))
        };
        let trunk = match &self.trunk {
            TrunkLayer::Lstm(Lstm { kernel, bias }) => {
                let (kernel, bias) = pair("lstm", kernel, bias)?;
                TrunkLayer::Lstm(Lstm { kernel, bias })
            }
            TrunkLayer::Dense(Dense { kernel, bias }) => {
                let (kernel, bias) = pair("dense", kernel, bias)?;
                TrunkLayer::Dense(Dense { kernel, bias })
            }
        };
        let mut dense = |name: &str, layer: &Dense<P>| {
            let (kernel, bias) = pair(name, &layer.kernel, &layer.bias)?;
            Ok(Dense { kernel, bias })
        };
        Ok(ActorCritic {
            trunk,
            policy_1: dense("policy_1", &self.policy_1)?,
            policy_2: dense("policy_2", &self.policy_2)?,
            policy_out: dense("policy_out", &self.policy_out)?,
            value_1: dense("value_1", &self.value_1)?,
            value_2: dense("value_2", &self.value_2)?,
            value_out: dense("value_out", &self.value_out)?,
        })
    }

    /// As [`try_map`](Self::try_map), where nothing can fail.
    pub(crate) fn map<Q>(&self, mut make: impl FnMut(&str, &P) -> Q) -> ActorCritic<Q> {
        let Ok(mapped) = self
            .try_map(|name, parameter| Ok::<_, std::convert::Infallible>(make(name, parameter)));
        mapped
    }

    /// All parameters, in the order of the fields.
    pub(crate) fn parameters_mut(&mut self) -> [&mut P; 14] {
        let (kernel, bias) = match &mut self.trunk {
            TrunkLayer::Lstm(Lstm { kernel, bias }) | TrunkLayer::Dense(Dense { kernel, bias }) => {
                (kernel, bias)
            }
        };
        [
            kernel,
            bias,
            &mut self.policy_1.kernel,
            &mut self.policy_1.bias,
            &mut self.policy_2.kernel,
            &mut self.policy_2.bias,
            &mut self.policy_out.kernel,
            &mut self.policy_out.bias,
            &mut self.value_1.kernel,
            &mut self.value_1.bias,
            &mut self.value_2.kernel,
            &mut self.value_2.bias,
            &mut self.value_out.kernel,
            &mut self.value_out.bias,
        ]
    }
}

impl ActorCritic<Tensor<2>> {
    /// The trunk's output at one step. A dense trunk leaves `state` alone.
    pub(crate) fn step(&self, input: Tensor<2>, state: &mut LstmState) -> Tensor<2> {
        match &self.trunk {
            TrunkLayer::Lstm(lstm) => lstm.step(input, state),
            TrunkLayer::Dense(dense) => dense.relu(input),
        }
    }

    /// The trunk's output at every step of whole episodes, rows step by step.
    pub(crate) fn whole(&self, input: Tensor<2>, steps: usize, episodes: usize) -> Tensor<2> {
        match &self.trunk {
            TrunkLayer::Lstm(lstm) => lstm.whole(input, steps, episodes),
            TrunkLayer::Dense(dense) => dense.relu(input),
        }
    }

    /// Logits, `[rows, actions]`, from the trunk's output.
    pub(crate) fn policy(&self, features: Tensor<2>, temperature: f64) -> Tensor<2> {
        let hidden = self.policy_2.relu(self.policy_1.relu(features));
        self.policy_out.linear(hidden.div_scalar(temperature))
    }

    /// Values, `[rows, 1]`, from the trunk's output.
    pub(crate) fn value(&self, features: Tensor<2>) -> Tensor<2> {
        self.value_out.linear(self.value_2.relu(self.value_1.relu(features)))
    }
}
