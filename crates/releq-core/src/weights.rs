//! Weights and statistics of a network, by name.

use std::collections::BTreeMap;

use md5::{Digest, Md5};
use serde::{Deserialize, Serialize};

use crate::{Axes, Network, Node, Op, checksum::hex};

/// One named tensor of a network in plain memory, row-major.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Parameter {
    /// Sizes of the dimensions, outermost first.
    pub shape: Vec<usize>,
    /// The values, `shape.iter().product()` of them.
    pub values: Vec<f32>,
}

/// Bitwidths that activations are rounded to: 1 to 8.
const RANGES: usize = 8;

/// The range of no value: the largest is below the smallest.
pub const UNKNOWN_RANGE: [f32; 2] = [1.0, -1.0];

/// Weights and statistics of a network, by `layer.weight`, `layer.bias`, `layer.running_mean`, `layer.running_var` and
/// `layer.ranges`.
///
/// # Shapes
/// As in PyTorch: convolution weights `[out, in / groups, kernel height, kernel width]`, linear weights
/// `[out, in]`, ranges `[8, 2]`, everything else `[channels]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Weights(pub BTreeMap<String, Parameter>);

/// Weights that do not belong to a network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WeightsError {
    /// A parameter is missing.
    #[error("parameter `{0}` is missing")]
    Missing(String),
    /// A parameter has another shape, or as many values as its shape does not say.
    #[error("parameter `{name}`: expected shape {expected:?}, got {got:?}")]
    Shape {
        /// Name of the parameter.
        name: String,
        /// Shape in the network.
        expected: Vec<usize>,
        /// The rejected shape.
        got: Vec<usize>,
    },
    /// A parameter that the network lacks.
    #[error("parameter `{0}` belongs to no layer of this network")]
    Unexpected(String),
}

/// What a parameter is to its layer: the last part of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParameterRole {
    /// Kernel of a layer, or factors of a batch norm or of [`Op::ScaleShift`].
    Weight,
    /// Added to every output channel.
    Bias,
    /// Running mean of a batch norm.
    RunningMean,
    /// Running variance of a batch norm.
    RunningVar,
    /// Smallest and largest value that [`Op::FakeQuantize`] tells apart at 1 bit, at 2, and so on to 8. While they have not
    /// been found, the largest is below the smallest.
    Ranges,
}

impl ParameterRole {
    /// Name of this parameter of `layer`.
    #[must_use]
    pub fn name(self, layer: &str) -> String {
        let role = match self {
            Self::Weight => "weight",
            Self::Bias => "bias",
            Self::RunningMean => "running_mean",
            Self::RunningVar => "running_var",
            Self::Ranges => "ranges",
        };
        format!("{layer}.{role}")
    }
}

/// The parameters of layer `index`, in the order in which they are drawn, and their shapes.
///
/// # Panics
/// If the network has no layer `index`.
#[must_use]
pub fn layer_parameters(network: &Network, index: usize) -> Vec<(ParameterRole, Vec<usize>)> {
    let inputs = network.input_shape(index).channels();
    let weight_and_bias = |weight: Vec<usize>, bias: bool| {
        let outputs = weight[0];
        let mut parameters = vec![(ParameterRole::Weight, weight)];
        parameters.extend(bias.then(|| (ParameterRole::Bias, vec![outputs])));
        parameters
    };
    match network.nodes()[index].op {
        Op::Conv2d(conv) => {
            let Axes { height, width } = conv.kernel;
            let weight = vec![conv.out_channels, inputs / conv.groups, height, width];
            weight_and_bias(weight, conv.bias)
        }
        Op::Linear { out_features, bias } => weight_and_bias(vec![out_features, inputs], bias),
        Op::BatchNorm { .. } => [
            ParameterRole::Weight,
            ParameterRole::Bias,
            ParameterRole::RunningMean,
            ParameterRole::RunningVar,
        ]
        .map(|role| (role, vec![inputs]))
        .into(),
        Op::FakeQuantize => vec![(ParameterRole::Ranges, vec![RANGES, 2])],
        Op::ScaleShift => {
            [ParameterRole::Weight, ParameterRole::Bias].map(|role| (role, vec![inputs])).into()
        }
        _ => Vec::new(),
    }
}

/// Name and shape of every parameter of `network`, in the order of its layers.
pub fn parameter_shapes(network: &Network) -> impl Iterator<Item = (String, Vec<usize>)> {
    network.nodes().iter().enumerate().flat_map(move |(index, node)| {
        let named = |(role, shape): (ParameterRole, Vec<usize>)| (role.name(&node.name), shape);
        layer_parameters(network, index).into_iter().map(named)
    })
}

/// As [`parameter_shapes`], only the parameters that training adjusts along their gradient.
pub fn trainable_shapes(network: &Network) -> impl Iterator<Item = (String, Vec<usize>)> {
    parameter_shapes(network).filter(|(name, _)| is_trainable(name))
}

/// Population standard deviation of `weights`, as the observation of a layer holds it; 0 of none.
#[must_use]
pub fn weight_std(weights: &[f32]) -> f32 {
    if weights.is_empty() {
        return 0.0;
    }
    let mean_of = |value: &dyn Fn(f64) -> f64| {
        weights.iter().map(|&w| value(f64::from(w))).sum::<f64>() / weights.len() as f64
    };
    let mean = mean_of(&|w| w);
    mean_of(&|w| (w - mean).powi(2)).sqrt() as f32
}

impl Weights {
    /// Checks that this holds exactly the parameters of `network`.
    ///
    /// # Errors
    /// [`WeightsError::Missing`], [`WeightsError::Shape`] or [`WeightsError::Unexpected`], naming the
    /// first parameter that does not fit.
    pub fn check(&self, network: &Network) -> Result<(), WeightsError> {
        self.check_shapes(parameter_shapes(network))
    }

    /// Checks that this holds exactly the parameters of `network` that training adjusts, as the state
    /// of an optimizer does.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub fn check_trainable(&self, network: &Network) -> Result<(), WeightsError> {
        self.check_shapes(trainable_shapes(network))
    }

    /// Checks that this holds exactly the parameters of these names and shapes.
    fn check_shapes(
        &self,
        shapes: impl Iterator<Item = (String, Vec<usize>)>,
    ) -> Result<(), WeightsError> {
        let mut known = BTreeMap::new();
        for (name, shape) in shapes {
            let Some(parameter) = self.0.get(&name) else {
                return Err(WeightsError::Missing(name));
            };
            if parameter.shape != shape {
                let got = parameter.shape.clone();
                return Err(WeightsError::Shape { name, expected: shape, got });
            }
            if parameter.values.len() != shape.iter().product::<usize>() {
                let got = vec![parameter.values.len()];
                return Err(WeightsError::Shape { name, expected: shape, got });
            }
            known.insert(name, ());
        }
        match self.0.keys().find(|name| !known.contains_key(*name)) {
            Some(name) => Err(WeightsError::Unexpected(name.clone())),
            None => Ok(()),
        }
    }

    /// Adds the ranges that `network` has and these weights lack, as ranges that have not been found: weights of a network say
    /// nothing of them.
    pub fn add_ranges(&mut self, network: &Network) {
        for (index, node) in network.nodes().iter().enumerate() {
            for (role, shape) in layer_parameters(network, index) {
                if role == ParameterRole::Ranges {
                    let unknown = || Parameter { values: UNKNOWN_RANGE.repeat(RANGES), shape };
                    self.0.entry(role.name(&node.name)).or_insert_with(unknown);
                }
            }
        }
    }

    /// Takes out the ranges of `network`.
    pub fn remove_ranges(&mut self, network: &Network) {
        for node in network.nodes().iter().filter(|node| node.op == Op::FakeQuantize) {
            self.0.remove(&ParameterRole::Ranges.name(&node.name));
        }
    }

    /// Divides the weights of the [whole network](Network::without_channel_groups) among the groups of output channels that
    /// `network` has. What does not have the right number of channels stays as it is, and [`check`](Self::check) names it.
    #[must_use]
    pub fn into_channel_groups(mut self, network: &Network) -> Self {
        for divided in network.divided() {
            let channels: usize = divided.sizes.iter().sum();
            for stage in &divided.stages {
                for (role, _) in layer_parameters(network, stage.parts[0]) {
                    let name = role.name(&stage.name);
                    let fits = |whole: &Parameter| {
                        whole.shape.first() == Some(&channels)
                            && whole.values.len() == whole.shape.iter().product::<usize>()
                    };
                    if !self.0.get(&name).is_some_and(fits) {
                        continue;
                    }
                    let Some(Parameter { shape, values }) = self.0.remove(&name) else { continue };
                    let (inner, row) = (&shape[1..], values.len() / channels);
                    let mut values = values.as_slice();
                    for (&size, &part) in divided.sizes.iter().zip(&stage.parts) {
                        let (of_part, rest) = values.split_at(size * row);
                        let part = role.name(&network.nodes()[part].name);
                        let shape = [&[size], inner].concat();
                        self.0.insert(part, Parameter { shape, values: of_part.to_vec() });
                        values = rest;
                    }
                }
            }
        }
        self
    }

    /// Weights of the quantizable layers of `network`, in order, each flat and row-major; none of those that round activations.
    ///
    /// # Errors
    /// [`WeightsError::Missing`] if this state is not one of `network`.
    pub fn layer_weights(&self, network: &Network) -> Result<Vec<&[f32]>, WeightsError> {
        let quantizable = network.nodes().iter().filter(|node| node.op.is_quantizable());
        let weight = |node: &Node| {
            if !node.op.has_weights() {
                return Ok([].as_slice());
            }
            let name = ParameterRole::Weight.name(&node.name);
            match self.0.get(&name) {
                Some(parameter) => Ok(parameter.values.as_slice()),
                None => Err(WeightsError::Missing(name)),
            }
        };
        quantizable.map(weight).collect()
    }

    /// [`weight_std`] of every quantizable layer of `network`, in order.
    ///
    /// # Errors
    /// [`WeightsError::Missing`] if this state is not one of `network`.
    pub fn weight_stds(&self, network: &Network) -> Result<Vec<f32>, WeightsError> {
        Ok(self.layer_weights(network)?.into_iter().map(weight_std).collect())
    }

    /// A digest of all names, shapes and values, in hexadecimal digits.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let mut digest = Md5::new();
        for (name, Parameter { shape, values }) in &self.0 {
            digest.update(format!("{name:?} {shape:?}\n"));
            for value in values {
                digest.update(value.to_le_bytes());
            }
        }
        hex(digest)
    }

    /// Number of values that training adjusts: all but running statistics and ranges.
    #[must_use]
    pub fn trainable_values(&self) -> usize {
        self.0.iter().filter(|(name, _)| is_trainable(name)).map(|(_, p)| p.values.len()).sum()
    }
}

/// Whether training adjusts the parameter of this name along its gradient.
fn is_trainable(name: &str) -> bool {
    [".running_mean", ".running_var", ".ranges"].iter().all(|role| !name.ends_with(role))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Weights of the right shapes, every value half.
    fn halves(network: &Network) -> Weights {
        let parameter = |(name, shape): (String, Vec<usize>)| {
            let values = vec![0.5; shape.iter().product()];
            (name, Parameter { shape, values })
        };
        Weights(parameter_shapes(network).map(parameter).collect())
    }

    fn lenet() -> Network {
        Network::builder("lenet", [1, 28, 28])
            .conv2d("conv1", 20, 5)
            .max_pool("pool1", 2, 2)
            .conv2d("conv2", 50, 5)
            .max_pool("pool2", 2, 2)
            .flatten("flatten")
            .linear("fc1", 500)
            .linear("fc2", 10)
            .build()
            .unwrap()
    }

    #[test]
    fn lenet_has_the_published_sizes() {
        let network = lenet();
        let state = halves(&network);
        assert_eq!(state.trainable_values(), 431_080);
        let profiles = network.profiles();
        let sizes: Vec<_> = profiles.iter().map(|p| (p.weights(), p.macs())).collect();
        let published = [(500, 288_000), (25_000, 1_600_000), (400_000, 400_000), (5_000, 5_000)];
        assert_eq!(sizes, published);
        let weights = state.layer_weights(&network).unwrap();
        let lengths: Vec<_> = weights.iter().map(|w| w.len()).collect();
        assert_eq!(lengths, [500, 25_000, 400_000, 5_000]);
    }

    #[test]
    fn the_deviation_is_that_of_the_population() {
        // By hand: mean 2.5, squared deviations 2.25 + 0.25 + 0.25 + 2.25 over 4.
        assert_eq!(weight_std(&[1.0, 2.0, 3.0, 4.0]), 1.25f32.sqrt());
        assert_eq!(weight_std(&[7.0]), 0.0);
        assert_eq!(weight_std(&[]), 0.0);
    }

    #[test]
    fn check_names_the_parameter_that_does_not_fit() {
        let network = lenet();
        let fails = |change: &dyn Fn(&mut BTreeMap<String, Parameter>), expected: &str| {
            let mut state = halves(&network);
            change(&mut state.0);
            let message = state.check(&network).unwrap_err().to_string();
            assert!(message.contains(expected), "`{message}` lacks `{expected}`");
        };
        fails(&|p| drop(p.remove("fc1.bias")), "parameter `fc1.bias` is missing");
        fails(
            &|p| drop(p.insert("fc9.bias".into(), Parameter { shape: vec![1], values: vec![0.0] })),
            "parameter `fc9.bias` belongs to no layer",
        );
        fails(
            &|p| p.get_mut("conv1.weight").unwrap().shape = vec![20, 25],
            "parameter `conv1.weight`: expected shape [20, 1, 5, 5], got [20, 25]",
        );
        fails(
            &|p| p.get_mut("fc2.bias").unwrap().values.push(0.0),
            "parameter `fc2.bias`: expected shape [10], got [11]",
        );
        halves(&network).check(&network).unwrap();
    }
}
