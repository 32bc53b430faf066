//! Activations of 8 bits: pairs of `QuantizeLinear` and `DequantizeLinear`, which runtimes join with the layers between
//! them to kernels on integers.

use releq_core::{Bitwidth, Op, ParameterRole};
use releq_quant::{ActivationGrid, ActivationGrids};

use super::{
    Stored,
    graph::{Writer, dims, int},
    levels::Levels,
    metadata::Grid,
};
use crate::ExportError;

/// ONNX's numbers of types.
const UINT8: i32 = 2;
const INT32: i32 = 6;

/// Largest magnitude of an integer bias that leaves room for the sum that it is added to.
const MOST_BIAS: f64 = (1 << 30) as f64;

/// What a norm does to the channels of the layer before it.
struct Affine {
    scale: Vec<f64>,
    shift: Vec<f64>,
}

impl Writer<'_> {
    /// What layer `index` gives, rounded where it has a grid.
    pub(super) fn rounded_output(&mut self, index: usize, value: String) -> String {
        let Some(activations) = self.activations else { return value };
        let name = self.model.network().nodes()[index].name.as_str();
        match activations.layers.get(name) {
            Some(&grid) if !self.rounded.contains(&value) => self.rounded(name, &value, grid),
            _ => value,
        }
    }

    /// A tensor that is rounded to a grid.
    pub(super) fn rounded(&mut self, name: &str, value: &str, grid: ActivationGrid) -> String {
        let scale = self.floats(&format!("{name}.output_scale"), Vec::new(), &[grid.scale]);
        let zero = self.tensor_name(&format!("{name}.output_zero_point"), "");
        self.constant(&zero, UINT8, Vec::new(), vec![grid.zero_point]);
        let step = |what: &str| format!("{name}.{what}");
        let codes = self.step(&step("round"), "QuantizeLinear", &[value, &scale, &zero], &[]);
        let rounded =
            self.step(&step("rounded"), "DequantizeLinear", &[&codes, &scale, &zero], &[]);
        self.rounded.insert(rounded.clone());
        rounded
    }

    /// Whether layer `index` is a norm that is part of the convolution before it.
    pub(super) fn is_folded(&self, index: usize) -> bool {
        let network = self.model.network();
        match network.sources(index) {
            [Some(source)] => self.norm_behind(*source) == Some(index),
            _ => false,
        }
    }

    /// The norm that alone reads convolution `index`, where activations are rounded and not between the two.
    fn norm_behind(&self, index: usize) -> Option<usize> {
        let network = self.model.network();
        let nodes = network.nodes();
        let activations = self.activations?;
        if !matches!(nodes[index].op, Op::Conv2d(_))
            || activations.layers.contains_key(&nodes[index].name)
        {
            return None;
        }
        let mut readers =
            (0..nodes.len()).filter(|&reader| network.sources(reader).contains(&Some(index)));
        let (reader, None) = (readers.next()?, readers.next()) else { return None };
        matches!(nodes[reader].op, Op::BatchNorm { .. } | Op::ScaleShift).then_some(reader)
    }

    /// A parameter of a layer; nothing where it has none.
    fn values(&self, layer: &str, role: ParameterRole) -> &[f32] {
        let parameter = self.model.floats().0.get(&role.name(layer));
        parameter.map_or(&[], |parameter| parameter.values.as_slice())
    }

    fn affine(&self, norm: usize) -> Affine {
        let node = &self.model.network().nodes()[norm];
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

    /// The weight of a layer in 8 bits and its bias in 32, with the norm behind it as a part of both.
    pub(super) fn integer_weight_and_bias(
        &mut self,
        index: usize,
        sizes: &[usize],
        has_bias: bool,
        activations: &ActivationGrids,
    ) -> Result<(String, Option<String>), ExportError> {
        let model = self.model;
        let network = model.network();
        let layer = network.nodes()[index].name.as_str();
        let channels = sizes[0];
        let affine = self.norm_behind(index).map(|norm| self.affine(norm));
        let bias = (has_bias || affine.is_some()).then(|| {
            let own = self.values(layer, ParameterRole::Bias);
            let of = |channel: usize| {
                let bias = own.get(channel).map_or(0.0, |&bias| f64::from(bias));
                affine
                    .as_ref()
                    .map_or(bias, |affine| bias * affine.scale[channel] + affine.shift[channel])
            };
            (0..channels).map(of).collect::<Vec<f64>>()
        });
        let Some(quantized) = model.codes(layer) else {
            return Ok(self.float_weight_and_bias(layer, sizes, affine.as_ref(), bias));
        };
        let refused = |reason| ExportError::Form {
            layer: layer.to_owned(),
            form: "dq with activations of 8 bits",
            reason,
        };
        let mut levels = Levels::of(quantized).map_err(refused)?;
        if levels.range.iter().any(|&level| i8::try_from(level).is_err()) {
            let [low, high] = levels.range;
            return Err(refused(format!(
                "its levels from {low} to {high} exceed 8 bits; give it fewer bits, or leave activations as they are"
            )));
        }
        let source = match network.sources(index)[0] {
            None => Some(activations.input),
            Some(source) => activations.layers.get(&network.nodes()[source].name).copied(),
        };
        if let Some(affine) = &affine {
            fold(&mut levels, affine);
        }
        settle_zeros(&mut levels, bias.as_deref(), source);

        let name = self.parameter_name(layer, ParameterRole::Weight);
        let codes = self.tensor_name(&format!("{name}_quantized"), "");
        let bytes = Stored::Int8.pack(&levels.levels);
        self.constant(&codes, Stored::Int8.data_type(), dims(sizes), bytes);
        let [scale, zero] = self.scale_and_zero(&name, Stored::Int8, &levels);
        let axis: &[_] = if levels.scales.len() > 1 { &[int("axis", 0)] } else { &[] };
        let inputs = [codes.as_str(), &scale, &zero];
        self.node(&format!("{layer}.dequantize"), "DequantizeLinear", &inputs, &name, axis);
        let (bits, zero_point) = (quantized.bits(), quantized.zero_point());
        self.grids.insert(name.clone(), Grid { bits, zero_point });
        self.layers.push((layer.to_owned(), bits, Stored::Int8));
        let bias = bias.map(|bias| self.integer_bias(layer, &bias, source, &levels.scales));
        Ok((name, bias))
    }

    /// Parameters of a layer that is not quantized.
    fn float_weight_and_bias(
        &mut self,
        layer: &str,
        sizes: &[usize],
        affine: Option<&Affine>,
        bias: Option<Vec<f64>>,
    ) -> (String, Option<String>) {
        self.layers.push((layer.to_owned(), Bitwidth::FLOAT, Stored::Float));
        let mut values = self.values(layer, ParameterRole::Weight).to_vec();
        let row = (values.len() / sizes[0]).max(1);
        if let Some(affine) = affine {
            for (row, scale) in values.chunks_mut(row).zip(&affine.scale) {
                row.iter_mut().for_each(|weight| *weight = (f64::from(*weight) * scale) as f32);
            }
        }
        let name = self.parameter_name(layer, ParameterRole::Weight);
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.constant(&name, Stored::Float.data_type(), dims(sizes), bytes);
        (name, bias.map(|bias| self.float_bias(layer, &bias)))
    }

    fn float_bias(&mut self, layer: &str, bias: &[f64]) -> String {
        let values: Vec<f32> = bias.iter().map(|&value| value as f32).collect();
        let name = ParameterRole::Bias.name(layer);
        self.floats(&name, dims(&[values.len()]), &values)
    }

    /// A bias as integers, whose scale is that of the products that it is added to.
    fn integer_bias(
        &mut self,
        layer: &str,
        bias: &[f64],
        source: Option<ActivationGrid>,
        scales: &[f32],
    ) -> String {
        let Some(source) = source else { return self.float_bias(layer, bias) };
        let scales: Vec<f32> = scales.iter().map(|scale| scale * source.scale).collect();
        let scale_of = |channel: usize| scales[if scales.len() == 1 { 0 } else { channel }];
        let codes: Vec<f64> = bias
            .iter()
            .enumerate()
            .map(|(channel, bias)| (bias / f64::from(scale_of(channel))).round_ties_even())
            .collect();
        // Runtimes add what integers cannot hold in single precision.
        if !codes.iter().all(|code| code.abs() <= MOST_BIAS) {
            return self.float_bias(layer, bias);
        }
        let name = self.tensor_name(&ParameterRole::Bias.name(layer), "");
        let quantized = self.tensor_name(&format!("{name}_quantized"), "");
        let bytes = codes.iter().flat_map(|&code| (code as i32).to_le_bytes()).collect();
        self.constant(&quantized, INT32, dims(&[codes.len()]), bytes);
        let shape = if scales.len() > 1 { dims(&[scales.len()]) } else { Vec::new() };
        let scale = self.floats(&format!("{name}_scale"), shape.clone(), &scales);
        let zero = self.tensor_name(&format!("{name}_zero_point"), "");
        self.constant(&zero, INT32, shape, vec![0; 4 * scales.len()]);
        let axis: &[_] = if scales.len() > 1 { &[int("axis", 0)] } else { &[] };
        let inputs = [quantized.as_str(), &scale, &zero];
        self.node(&format!("{layer}.dequantize_bias"), "DequantizeLinear", &inputs, &name, axis);
        name
    }
}

/// Makes a norm part of weights: a scale for every channel, its sign in the levels, since scales are positive.
fn fold(levels: &mut Levels, affine: &Affine) {
    let channels = affine.scale.len();
    let row = (levels.levels.len() / channels).max(1);
    let scale_of = |channel: usize| {
        let scales = &levels.scales;
        f64::from(scales[if scales.len() == 1 { 0 } else { channel }])
    };
    let scales = affine.scale.iter().enumerate();
    let scales = scales.map(|(channel, scale)| (scale_of(channel) * scale.abs()) as f32).collect();
    for (row, scale) in levels.levels.chunks_mut(row).zip(&affine.scale) {
        if *scale < 0.0 {
            row.iter_mut().for_each(|level| *level = -*level);
        }
    }
    levels.scales = scales;
}

/// Gives channels of zeros a scale that their bias can be expressed with.
fn settle_zeros(levels: &mut Levels, bias: Option<&[f64]>, source: Option<ActivationGrid>) {
    let is_one = levels.scales.len() == 1;
    let row = (levels.levels.len() / levels.scales.len()).max(1);
    let rows = levels.levels.chunks_mut(row);
    for (channel, (row, scale)) in rows.zip(&mut levels.scales).enumerate() {
        if *scale != 0.0 {
            continue;
        }
        row.fill(0);
        let bias = match bias {
            Some(bias) if is_one => bias.iter().fold(0.0, |most: f64, bias| most.max(bias.abs())),
            Some(bias) => bias[channel].abs(),
            None => 0.0,
        };
        let step = source.map_or(1.0, |source| f64::from(source.scale));
        *scale = (bias / (step * MOST_BIAS / 2.0)) as f32;
        if !scale.is_normal() {
            *scale = 1.0;
        }
    }
}
