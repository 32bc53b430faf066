//! The forward pass: a walk over the layers as tensor operations.

use burn::tensor::{Tensor, TensorData};
use releq_core::{Activation, Node, Op};
use releq_quant::ActivationGrid;

use super::{BurnTrainer, floats, ops};
use crate::{
    Moments, TrainError,
    correction::{Observed, observed, rescaled},
    dropout::dropout_mask,
    trainer::activation_grid,
};

/// The tensors of one node as the forward pass sees them: perhaps quantized, perhaps tracked.
#[derive(Debug, Default)]
pub(super) struct Operands {
    pub(super) weight: Option<Weight>,
    pub(super) bias: Option<Tensor<1>>,
    /// What the values that pass are rounded to.
    pub(super) grid: Option<ActivationGrid>,
}

#[derive(Debug)]
pub(super) enum Weight {
    /// `[out, in / groups, kernel height, kernel width]`.
    Conv(Tensor<4>),
    /// `[out, in]`.
    Linear(Tensor<2>),
    /// `[channels]`.
    Norm(Tensor<1>),
}

/// A batch between two layers.
#[derive(Clone, Debug)]
pub(super) enum Value {
    /// `[batch, channels, height, width]`.
    Image(Tensor<4>),
    /// `[batch, features]`.
    Vector(Tensor<2>),
}

/// What the forward pass does besides.
pub(super) enum Mode<'a> {
    /// Dropout, and batch norm with the statistics of the batch, which are kept for every node.
    Train(Vec<Option<[Tensor<1>; 2]>>),
    /// Running statistics.
    Eval,
    /// As `Eval`, with the moments that [`Trainer::moments`](crate::Trainer::moments) gives, and those that it restores.
    Observe { targets: Option<&'a [Moments]>, seen: Vec<Moments> },
}

impl Mode<'_> {
    /// Notes the moments of `x`, if they are asked for; gives them with those that they should have.
    fn note(&mut self, x: &Value) -> Option<(&Moments, &Moments)> {
        let Self::Observe { targets, seen } = self else { return None };
        let (values, channels, area) = match x.clone() {
            Value::Image(x) => {
                let [_, channels, height, width] = x.dims();
                (floats(x), channels, height * width)
            }
            Value::Vector(x) => {
                let [_, channels] = x.dims();
                (floats(x), channels, 1)
            }
        };
        let place = seen.len();
        seen.push(Moments::of(&values, channels, area));
        targets.map(|targets| (&seen[place], &targets[place]))
    }
}

/// Whether [`BurnTrainer::forward`] has an arm for `op`.
pub(super) const fn is_covered(op: Op) -> bool {
    matches!(
        op,
        Op::Conv2d(_)
            | Op::Linear { .. }
            | Op::BatchNorm { .. }
            | Op::Relu
            | Op::MaxPool(_)
            | Op::AvgPool(_)
            | Op::GlobalAvgPool
            | Op::Flatten
            | Op::Dropout { .. }
            | Op::Add
            | Op::PaddedShortcut { .. }
            | Op::ScaleShift
            | Op::Mul
            | Op::Concat
            | Op::ChannelSlice { .. }
            | Op::ChannelShuffle { .. }
            | Op::LocalResponseNorm { .. }
            | Op::FakeQuantize
            | Op::Activation(
                Activation::Clip { .. }
                    | Activation::Sigmoid
                    | Activation::HardSigmoid { .. }
                    | Activation::Silu
                    | Activation::HardSwish
                    | Activation::LeakyRelu { .. }
                    | Activation::Tanh
                    | Activation::Gelu
            )
    )
}

impl BurnTrainer {
    /// Gives the flat tensors of node `index` their shapes.
    ///
    /// # Errors
    /// [`TrainError::Calibration`] or [`TrainError::Quant`] where it rounds and its range is not known.
    pub(super) fn shaped(
        &self,
        index: usize,
        weight: Option<Tensor<1>>,
        bias: Option<Tensor<1>>,
    ) -> Result<Operands, TrainError> {
        let grid = match (&self.layers[index].ranges, self.bits[index]) {
            (Some(ranges), Some(bits)) => {
                Some(activation_grid(&self.network, index, ranges, bits)?)
            }
            _ => None,
        };
        let (Some(flat), Some(trained)) = (weight, &self.layers[index].weight) else {
            return Ok(Operands { weight: None, bias, grid });
        };
        let weight = match *trained.shape.as_slice() {
            [out, inputs, rows, columns] => {
                Weight::Conv(flat.reshape([out, inputs, rows, columns]))
            }
            [out, inputs] => Weight::Linear(flat.reshape([out, inputs])),
            _ => Weight::Norm(flat),
        };
        Ok(Operands { weight: Some(weight), bias, grid })
    }

    /// Walks the layers.
    pub(super) fn forward(&self, input: Value, weights: &[Operands], mode: &mut Mode<'_>) -> Value {
        let nodes = self.network.nodes();
        // A value is let go after its last reader, so that memory is bounded and reused.
        let mut last_reader = vec![nodes.len(); nodes.len()];
        for reader in 0..nodes.len() {
            for source in self.network.sources(reader).iter().flatten() {
                last_reader[*source] = reader;
            }
        }
        let mut values: Vec<Option<Value>> = vec![None; nodes.len()];
        for (index, node) in nodes.iter().enumerate() {
            let inputs = self.network.sources(index).iter().map(|&source| match source {
                None => input.clone(),
                Some(source) => known(values[source].clone()),
            });
            let inputs: Vec<Value> = inputs.collect();
            for &source in self.network.sources(index).iter().flatten() {
                if last_reader[source] == index {
                    values[source] = None;
                }
            }
            let mut value = self.apply(index, node, inputs, &weights[index], mode);
            if observed(&self.network, index) == Some(Observed::Output)
                && let Some((seen, target)) = mode.note(&value)
            {
                let values = match &value {
                    Value::Image(x) => x.dims().iter().product::<usize>() / seen.mean.len(),
                    Value::Vector(x) => x.dims()[0],
                };
                let factors = seen.factors(target, values);
                let [mean, factor, target] = [seen.mean.clone(), factors, target.mean.clone()]
                    .map(|values| self.channels(values));
                value = match value {
                    Value::Image(x) => {
                        let [mean, factor, target] =
                            [mean, factor, target].map(|values| values.unsqueeze_dims(&[0, 2, 3]));
                        Value::Image((x - mean) * factor + target)
                    }
                    Value::Vector(x) => {
                        let [mean, factor, target] =
                            [mean, factor, target].map(|values| values.unsqueeze_dim(0));
                        Value::Vector((x - mean) * factor + target)
                    }
                };
            }
            values[index] = Some(value);
        }
        known(values.pop().flatten())
    }

    fn apply(
        &self,
        index: usize,
        node: &Node,
        mut inputs: Vec<Value>,
        weights: &Operands,
        mode: &mut Mode<'_>,
    ) -> Value {
        let x = inputs.remove(0);
        let bias = weights.bias.clone();
        match (node.op, x, &weights.weight) {
            (Op::Conv2d(conv), Value::Image(x), Some(Weight::Conv(weight))) => {
                Value::Image(ops::conv2d(x, weight.clone(), bias, conv))
            }
            (Op::Linear { .. }, Value::Vector(x), Some(Weight::Linear(weight))) => {
                Value::Vector(ops::linear(x, weight.clone(), bias))
            }
            (Op::BatchNorm { epsilon, .. }, x, Some(Weight::Norm(weight))) => {
                let affine = [weight.clone(), known(bias)];
                let mut running = known(self.layers[index].running.clone());
                if let Some((seen, target)) = mode.note(&x) {
                    let [mean, variance] = running.map(floats);
                    running = seen.moved(target, [&mean, &variance]).map(|v| self.channels(v));
                }
                match x {
                    Value::Image(x) => Value::Image(norm(index, x, affine, running, epsilon, mode)),
                    Value::Vector(x) => {
                        Value::Vector(norm(index, x, affine, running, epsilon, mode))
                    }
                }
            }
            (Op::Relu, Value::Image(x), _) => Value::Image(burn::tensor::activation::relu(x)),
            (Op::Relu, Value::Vector(x), _) => Value::Vector(burn::tensor::activation::relu(x)),
            (Op::Activation(activation), Value::Image(x), _) => {
                Value::Image(ops::activate(x, activation))
            }
            (Op::Activation(activation), Value::Vector(x), _) => {
                Value::Vector(ops::activate(x, activation))
            }
            (Op::ScaleShift, x, Some(Weight::Norm(scale))) => {
                let mut bias = known(bias);
                if let Some((seen, target)) = mode.note(&x) {
                    let (scale, above) = (floats(scale.clone()), seen.above(target));
                    bias = self.channels(rescaled(&scale, &floats(bias), &above));
                }
                let affine = [scale.clone(), bias];
                match x {
                    Value::Image(x) => Value::Image(ops::scale_shift(x, affine)),
                    Value::Vector(x) => Value::Vector(ops::scale_shift(x, affine)),
                }
            }
            (Op::MaxPool(pool), Value::Image(x), _) => Value::Image(ops::max_pool(x, pool)),
            (Op::AvgPool(pool), Value::Image(x), _) => Value::Image(ops::avg_pool(x, pool)),
            (Op::GlobalAvgPool, Value::Image(x), _) => Value::Vector(ops::global_avg_pool(x)),
            (Op::Flatten, Value::Image(x), _) => Value::Vector(x.flatten(1, 3)),
            (Op::Flatten, x @ Value::Vector(_), _) => x,
            (Op::Dropout { probability }, x, _) => match (x, mode) {
                (x, Mode::Eval | Mode::Observe { .. }) => x,
                (Value::Image(x), Mode::Train(_)) => {
                    Value::Image(self.dropout(index, x, probability))
                }
                (Value::Vector(x), Mode::Train(_)) => {
                    Value::Vector(self.dropout(index, x, probability))
                }
            },
            (Op::FakeQuantize, x, _) => match (weights.grid, x) {
                (None, x) => x,
                (Some(grid), Value::Image(x)) => Value::Image(ops::fake_quantize(x, grid)),
                (Some(grid), Value::Vector(x)) => Value::Vector(ops::fake_quantize(x, grid)),
            },
            (Op::PaddedShortcut { out_channels, stride }, Value::Image(x), _) => {
                Value::Image(ops::padded_shortcut(x, out_channels, stride))
            }
            (Op::Add, x, _) => inputs.into_iter().fold(x, |sum, x| match (sum, x) {
                (Value::Image(sum), Value::Image(x)) => Value::Image(sum + x),
                (Value::Vector(sum), Value::Vector(x)) => Value::Vector(sum + x),
                _ => unreachable!("a checked network adds equal shapes"),
            }),
            (Op::Mul, x, _) => match (x, inputs.remove(0)) {
                (Value::Image(x), Value::Image(y)) => Value::Image(x * y),
                (Value::Vector(x), Value::Vector(y)) => Value::Vector(x * y),
                (Value::Image(image), Value::Vector(factors))
                | (Value::Vector(factors), Value::Image(image)) => {
                    Value::Image(image * factors.unsqueeze_dims(&[2, 3]))
                }
            },
            (Op::Concat, x @ Value::Image(_), _) => {
                let all = std::iter::once(x).chain(inputs).filter_map(|value| match value {
                    Value::Image(x) => Some(x),
                    Value::Vector(_) => None,
                });
                Value::Image(Tensor::cat(all.collect(), 1))
            }
            (Op::Concat, x @ Value::Vector(_), _) => {
                let all = std::iter::once(x).chain(inputs).filter_map(|value| match value {
                    Value::Image(_) => None,
                    Value::Vector(x) => Some(x),
                });
                Value::Vector(Tensor::cat(all.collect(), 1))
            }
            (Op::ChannelSlice { start, channels }, x, _) => match x {
                Value::Image(x) => Value::Image(x.narrow(1, start, channels)),
                Value::Vector(x) => Value::Vector(x.narrow(1, start, channels)),
            },
            (Op::ChannelShuffle { groups }, x, _) => match x {
                Value::Image(x) => Value::Image(ops::shuffle(x, groups)),
                Value::Vector(x) => Value::Vector(ops::shuffle(x, groups)),
            },
            (Op::LocalResponseNorm { size, alpha, beta, bias }, Value::Image(x), _) => {
                Value::Image(ops::response_norm(x, size, [alpha, beta, bias]))
            }
            _ => unreachable!("a checked network gives layer `{}` what it needs", node.name),
        }
    }

    /// One value for every channel as a tensor.
    fn channels(&self, values: Vec<f32>) -> Tensor<1> {
        let len = values.len();
        Tensor::from_data(TensorData::new(values, [len]), &self.device)
    }

    fn dropout<const D: usize>(&self, index: usize, x: Tensor<D>, probability: f64) -> Tensor<D> {
        let dims = x.dims();
        let mask = dropout_mask(self.steps, index, probability, dims.iter().product());
        let mask = Tensor::from_data(TensorData::new(mask, dims), &x.device());
        x * mask
    }
}

/// Batch norm with the statistics of the batch in training, else with the running ones.
fn norm<const D: usize>(
    index: usize,
    x: Tensor<D>,
    affine: [Tensor<1>; 2],
    running: [Tensor<1>; 2],
    epsilon: f64,
    mode: &mut Mode<'_>,
) -> Tensor<D> {
    match mode {
        Mode::Train(seen) => {
            let (x, statistics) = ops::batch_norm_train(x, affine, epsilon);
            seen[index] = Some(statistics);
            x
        }
        Mode::Eval | Mode::Observe { .. } => ops::batch_norm(x, affine, running, epsilon),
    }
}

/// What the checks on [`Network`] and [`Weights`] promise to be there.
#[allow(clippy::expect_used, reason = "network and state are checked before")]
pub(super) fn known<T>(value: Option<T>) -> T {
    value.expect("a checked network has it")
}

pub(super) fn as_vector(value: Value) -> Tensor<2> {
    match value {
        Value::Image(x) => x.flatten(1, 3),
        Value::Vector(x) => x,
    }
}
