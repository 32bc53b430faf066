//! Layers as runtimes with integer kernels compute them: weights as whole numbers, the norm behind a layer as part of them,
//! and biases in units of the products that they are added to.

use releq_core::{Op, ParameterRole};
use releq_quant::ActivationGrid;

use crate::{ExportError, QuantizedNetwork, onnx::Levels};

/// Largest magnitude of an integer bias that leaves room for the sum that it is added to.
const MOST_BIAS: f64 = (1 << 30) as f64;

/// A factor and a summand for every channel: what a norm does in inference.
#[derive(Clone, Debug, PartialEq)]
pub struct Affine {
    /// Factors.
    pub scale: Vec<f64>,
    /// Summands.
    pub shift: Vec<f64>,
}

/// A convolution or fully connected layer with quantized weights, with the norm behind it as part of them.
///
/// It gives `scale * sum(level * x) + bias` for each channel.
#[derive(Clone, Debug, PartialEq)]
pub struct IntegerLayer {
    /// Weights as whole numbers, row-major, in the shape of the weights.
    pub levels: Vec<i16>,
    /// The lowest and the highest level that the bitwidth has.
    pub range: [i16; 2],
    /// One for the layer, or one for each output channel; positive.
    pub scales: Vec<f32>,
    /// One for each output channel, if there are any.
    pub bias: Option<Vec<f64>>,
}

/// A convolution or fully connected layer in floating point, with the norm behind it as part of its weights.
#[derive(Clone, Debug, PartialEq)]
pub struct FloatLayer {
    /// Row-major, in the shape of the weights.
    pub weights: Vec<f32>,
    /// One for each output channel, if there are any.
    pub bias: Option<Vec<f64>>,
}

impl IntegerLayer {
    /// The scale of output channel `channel`.
    ///
    /// # Panics
    /// If there is no such channel.
    #[must_use]
    pub fn scale(&self, channel: usize) -> f32 {
        self.scales[if self.scales.len() == 1 { 0 } else { channel }]
    }

    /// The bias as whole numbers, in units of `input_scale * scale`, rounded half to even; `None` where one is so large that
    /// it leaves no room for a sum. Without a bias, there are none.
    #[must_use]
    pub fn bias_codes(&self, input_scale: f32) -> Option<Vec<i32>> {
        let code = |(channel, bias): (usize, &f64)| {
            let code = (bias / f64::from(self.scale(channel) * input_scale)).round_ties_even();
            (code.abs() <= MOST_BIAS).then_some(code as i32)
        };
        self.bias.iter().flatten().enumerate().map(code).collect()
    }
}

impl QuantizedNetwork {
    /// A parameter of a layer; nothing where it has none.
    fn values(&self, layer: &str, role: ParameterRole) -> &[f32] {
        let parameter = self.floats().0.get(&role.name(layer));
        parameter.map_or(&[], |parameter| parameter.values.as_slice())
    }

    /// What a batch norm or [`Op::ScaleShift`] does in inference.
    ///
    /// # Panics
    /// If the network has no layer `norm`.
    #[must_use]
    pub fn affine(&self, norm: usize) -> Affine {
        let node = &self.network().nodes()[norm];
        let values = |role| self.values(&node.name, role).iter().map(|&value| f64::from(value));
        let (weight, bias) = (values(ParameterRole::Weight), values(ParameterRole::Bias));
        let Op::BatchNorm { epsilon, .. } = node.op else {
            return Affine { scale: weight.collect(), shift: bias.collect() };
        };
        let variance = values(ParameterRole::RunningVar);
        let scale: Vec<f64> =
            weight.zip(variance).map(|(weight, var)| weight / (var + epsilon).sqrt()).collect();
        let moved = values(ParameterRole::RunningMean).zip(&scale).zip(bias);
        let shift = moved.map(|((mean, scale), bias)| bias - mean * scale).collect();
        Affine { scale, shift }
    }

    /// Layer `index`, and the norm that follows it if there is one, with quantized weights; `None` where they are not. `input`
    /// is the grid of what it reads, if that is rounded.
    ///
    /// # Errors
    /// [`ExportError::Codes`] if whole numbers cannot express its weights.
    ///
    /// # Panics
    /// If the network has no layer `index` or `norm`.
    pub fn integer_layer(
        &self,
        index: usize,
        norm: Option<usize>,
        input: Option<ActivationGrid>,
    ) -> Result<Option<IntegerLayer>, ExportError> {
        let layer = self.network().nodes()[index].name.as_str();
        let Some(quantized) = self.codes(layer) else { return Ok(None) };
        let Levels { levels, scales, range, .. } = Levels::of(quantized)
            .map_err(|reason| ExportError::Codes { layer: layer.to_owned(), reason })?;
        let affine = norm.map(|norm| self.affine(norm));
        let bias = self.bias(index, affine.as_ref());
        let mut integer = IntegerLayer { levels, range, scales, bias };
        if let Some(affine) = &affine {
            fold(&mut integer, affine);
        }
        settle_zeros(&mut integer, input);
        Ok(Some(integer))
    }

    /// Layer `index`, and the norm that follows it if there is one, in floating point; quantized weights have their rounded
    /// values.
    ///
    /// # Panics
    /// If the network has no layer `index` or `norm`.
    #[must_use]
    pub fn float_layer(&self, index: usize, norm: Option<usize>) -> FloatLayer {
        let layer = self.network().nodes()[index].name.as_str();
        let mut weights = match self.codes(layer) {
            Some(codes) => codes.dequantize(),
            None => self.values(layer, ParameterRole::Weight).to_vec(),
        };
        let affine = norm.map(|norm| self.affine(norm));
        if let Some(affine) = &affine {
            let row = (weights.len() / affine.scale.len().max(1)).max(1);
            for (row, scale) in weights.chunks_mut(row).zip(&affine.scale) {
                row.iter_mut().for_each(|weight| *weight = (f64::from(*weight) * scale) as f32);
            }
        }
        FloatLayer { weights, bias: self.bias(index, affine.as_ref()) }
    }

    /// The bias of a layer with an affine function behind it.
    fn bias(&self, index: usize, affine: Option<&Affine>) -> Option<Vec<f64>> {
        let node = &self.network().nodes()[index];
        let own = self.values(&node.name, ParameterRole::Bias).iter().map(|&bias| f64::from(bias));
        match affine {
            Some(Affine { scale, shift }) => {
                let own = own.chain(std::iter::repeat(0.0));
                Some(own.zip(scale.iter().zip(shift)).map(|(b, (s, t))| b * s + t).collect())
            }
            None => Some(own.collect::<Vec<f64>>()).filter(|own| !own.is_empty()),
        }
    }
}

/// Makes a norm part of weights: a scale for every channel, its sign in the levels, since scales are positive.
fn fold(layer: &mut IntegerLayer, affine: &Affine) {
    let row = (layer.levels.len() / affine.scale.len().max(1)).max(1);
    let scales = affine.scale.iter().enumerate();
    let scales = scales
        .map(|(channel, scale)| (f64::from(layer.scale(channel)) * scale.abs()) as f32)
        .collect();
    for (row, scale) in layer.levels.chunks_mut(row).zip(&affine.scale) {
        if *scale < 0.0 {
            row.iter_mut().for_each(|level| *level = -*level);
        }
    }
    if affine.scale.iter().any(|scale| *scale < 0.0) {
        let [low, high] = layer.range;
        layer.range = [low.min(-high), high.max(-low)];
    }
    layer.scales = scales;
}

/// Gives channels of zeros a scale that their bias can be expressed with.
fn settle_zeros(layer: &mut IntegerLayer, input: Option<ActivationGrid>) {
    let IntegerLayer { levels, scales, bias, .. } = layer;
    let is_one = scales.len() == 1;
    let row = (levels.len() / scales.len()).max(1);
    let rows = levels.chunks_mut(row);
    for (channel, (row, scale)) in rows.zip(scales).enumerate() {
        if *scale != 0.0 {
            continue;
        }
        row.fill(0);
        let bias = match bias {
            Some(bias) if is_one => bias.iter().fold(0.0, |most: f64, bias| most.max(bias.abs())),
            Some(bias) => bias[channel].abs(),
            None => 0.0,
        };
        let step = input.map_or(1.0, |input| f64::from(input.scale));
        *scale = (bias / (step * MOST_BIAS / 2.0)) as f32;
        if !scale.is_normal() {
            *scale = 1.0;
        }
    }
}
