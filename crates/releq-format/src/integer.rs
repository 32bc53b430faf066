//! Layers as runtimes with integer kernels compute them: weights as whole numbers, the norm behind a layer as part of them,
//! and biases in units of the products that they are added to.

use releq_core::{Op, ParameterRole};
use releq_quant::{ActivationGrid, Quantized};

use crate::{Codes, ExportError, QuantizedNetwork, steps::Steps};

/// Largest magnitude of an integer bias that leaves room for the sum that it is added to.
const MOST_BIAS: f64 = (1 << 30) as f64;

/// Codes that are read at once.
const BLOCK: usize = 1 << 16;

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
pub struct IntegerLayer<'a, C = Quantized> {
    codes: &'a C,
    steps: Steps,
    /// What the level of a code is multiplied with, for the layer or for each output channel: -1 where the norm turns the
    /// sign, since scales are positive, and 0 where all weights are zero.
    signs: Vec<i16>,
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

impl<C: Codes> IntegerLayer<'_, C> {
    /// Weights as whole numbers, row-major, in the shape of the weights.
    ///
    /// # Errors
    /// If codes cannot be read.
    pub fn levels(&self) -> Result<Vec<i16>, C::Error> {
        let mut levels = vec![0; self.codes.len()];
        self.read_levels(0, &mut levels)?;
        Ok(levels)
    }

    /// Writes the weights from number `first` on, as many as there is room for.
    ///
    /// # Errors
    /// If codes cannot be read.
    ///
    /// # Panics
    /// If there are not as many.
    pub fn read_levels(&self, first: usize, out: &mut [i16]) -> Result<(), C::Error> {
        let mut codes = vec![0; out.len()];
        self.codes.read(first, &mut codes)?;
        let row = self.codes.len() / self.signs.len();
        let (mut at, mut done) = (first, 0);
        while done < out.len() {
            let count = (row - at % row).min(out.len() - done);
            let sign = self.signs[at / row];
            for (level, &code) in out[done..][..count].iter_mut().zip(&codes[done..]) {
                *level = sign * self.steps.level(code.into());
            }
            (at, done) = (at + count, done + count);
        }
        Ok(())
    }

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

impl IntegerLayer<'_> {
    /// The lowest and the highest level that the bitwidth has.
    #[must_use]
    pub fn range(&self) -> [i16; 2] {
        let ([low, high], _) = self.steps.range(self.codes);
        match self.signs.iter().any(|&sign| sign < 0) {
            true => [low.min(-high), high.max(-low)],
            false => [low, high],
        }
    }
}

impl<C: Codes> QuantizedNetwork<C> {
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
    ) -> Result<Option<IntegerLayer<'_, C>>, ExportError> {
        let layer = self.network().nodes()[index].name.as_str();
        let Some(codes) = self.codes(layer) else { return Ok(None) };
        let steps = Steps::of(codes.scales(), codes.zero_point())
            .map_err(|reason| ExportError::Codes { layer: layer.to_owned(), reason })?;
        let affine = norm.map(|norm| self.affine(norm));
        let bias = self.bias(index, affine.as_ref());
        let (signs, scales) = (vec![1; steps.scales.len()], steps.scales.clone());
        let mut integer = IntegerLayer { codes, steps, signs, scales, bias };
        if let Some(affine) = &affine {
            fold(&mut integer, affine);
        }
        settle_zeros(&mut integer, input);
        Ok(Some(integer))
    }

    /// Layer `index`, and the norm that follows it if there is one, in floating point; quantized weights have their rounded
    /// values.
    ///
    /// # Errors
    /// If codes cannot be read.
    ///
    /// # Panics
    /// If the network has no layer `index` or `norm`.
    pub fn float_layer(&self, index: usize, norm: Option<usize>) -> Result<FloatLayer, C::Error> {
        let layer = self.network().nodes()[index].name.as_str();
        let mut weights = match self.codes(layer) {
            Some(codes) => dequantized(codes)?,
            None => self.values(layer, ParameterRole::Weight).to_vec(),
        };
        let affine = norm.map(|norm| self.affine(norm));
        if let Some(affine) = &affine {
            let row = (weights.len() / affine.scale.len().max(1)).max(1);
            for (row, scale) in weights.chunks_mut(row).zip(&affine.scale) {
                row.iter_mut().for_each(|weight| *weight = (f64::from(*weight) * scale) as f32);
            }
        }
        Ok(FloatLayer { weights, bias: self.bias(index, affine.as_ref()) })
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

/// Makes a norm part of weights: a scale for every channel, and its sign.
fn fold<C: Codes>(layer: &mut IntegerLayer<'_, C>, affine: &Affine) {
    let scales = affine.scale.iter().enumerate();
    layer.scales = scales
        .map(|(channel, factor)| (f64::from(layer.scale(channel)) * factor.abs()) as f32)
        .collect();
    layer.signs = affine.scale.iter().map(|factor| if *factor < 0.0 { -1 } else { 1 }).collect();
}

/// Gives channels of zeros a scale that their bias can be expressed with.
fn settle_zeros<C>(layer: &mut IntegerLayer<'_, C>, input: Option<ActivationGrid>) {
    let IntegerLayer { signs, scales, bias, .. } = layer;
    let is_one = scales.len() == 1;
    for (channel, (sign, scale)) in signs.iter_mut().zip(scales).enumerate() {
        if *scale != 0.0 {
            continue;
        }
        *sign = 0;
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

/// The quantized weights in floating point, as [`Quantized::dequantize`] gives them.
fn dequantized<C: Codes>(codes: &C) -> Result<Vec<f32>, C::Error> {
    let (scales, zero_point) = (codes.scales(), codes.zero_point());
    let row = codes.len() / scales.len();
    let mut weights = Vec::with_capacity(codes.len());
    let mut block = vec![0; BLOCK.min(row)];
    for (channel, scale) in scales.iter().enumerate() {
        for first in (0..row).step_by(BLOCK) {
            let block = &mut block[..BLOCK.min(row - first)];
            codes.read(channel * row + first, block)?;
            weights.extend(block.iter().map(|&code| scale * (f32::from(code) - zero_point)));
        }
    }
    Ok(weights)
}
