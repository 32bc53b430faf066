//! Activations of 8 bits: pairs of `QuantizeLinear` and `DequantizeLinear`, which runtimes join with the layers between
//! them to kernels on integers.

use releq_core::{Bitwidth, Op, ParameterRole};
use releq_quant::{ActivationGrid, ActivationGrids};

use super::{
    Stored,
    graph::{Writer, dims, int},
    metadata::Grid,
};
use crate::{ExportError, FloatLayer, IntegerLayer};

/// ONNX's numbers of types.
const UINT8: i32 = 2;
const INT32: i32 = 6;

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

    /// The weight of a layer in 8 bits and its bias in 32, with the norm behind it as a part of both.
    pub(super) fn integer_weight_and_bias(
        &mut self,
        index: usize,
        sizes: &[usize],
        activations: &ActivationGrids,
    ) -> Result<(String, Option<String>), ExportError> {
        let model = self.model;
        let network = model.network();
        let layer = network.nodes()[index].name.as_str();
        let norm = self.norm_behind(index);
        let source = match network.sources(index)[0] {
            None => Some(activations.input),
            Some(source) => activations.layers.get(&network.nodes()[source].name).copied(),
        };
        let refused = |reason| ExportError::Form {
            layer: layer.to_owned(),
            form: "dq with activations of 8 bits",
            reason,
        };
        let integer = model.integer_layer(index, norm, source).map_err(|error| match error {
            ExportError::Codes { reason, .. } => refused(reason),
            other => other,
        })?;
        let (Some(integer), Some(quantized)) = (integer, model.codes(layer)) else {
            let Ok(float) = model.float_layer(index, norm);
            return Ok(self.float_weight_and_bias(layer, sizes, float));
        };
        let [low, high] = integer.range();
        if [low, high].iter().any(|&level| i8::try_from(level).is_err()) {
            return Err(refused(format!(
                "its levels from {low} to {high} exceed 8 bits; give it fewer bits, or leave activations as they are"
            )));
        }

        let name = self.parameter_name(layer, ParameterRole::Weight);
        let codes = self.tensor_name(&format!("{name}_quantized"), "");
        let Ok(levels) = integer.levels();
        let bytes = Stored::Int8.pack(&levels);
        self.constant(&codes, Stored::Int8.data_type(), dims(sizes), bytes);
        let [scale, zero] = self.scale_and_zero(&name, Stored::Int8, &integer.scales);
        let axis: &[_] = if integer.scales.len() > 1 { &[int("axis", 0)] } else { &[] };
        let inputs = [codes.as_str(), &scale, &zero];
        self.node(&format!("{layer}.dequantize"), "DequantizeLinear", &inputs, &name, axis);
        let (bits, zero_point) = (quantized.bits(), quantized.zero_point());
        self.grids.insert(name.clone(), Grid { bits, zero_point });
        self.layers.push((layer.to_owned(), bits, Stored::Int8));
        let bias = integer.bias.is_some().then(|| self.integer_bias(layer, &integer, source));
        Ok((name, bias))
    }

    /// Parameters of a layer that is not quantized.
    fn float_weight_and_bias(
        &mut self,
        layer: &str,
        sizes: &[usize],
        FloatLayer { weights, bias }: FloatLayer,
    ) -> (String, Option<String>) {
        self.layers.push((layer.to_owned(), Bitwidth::FLOAT, Stored::Float));
        let name = self.parameter_name(layer, ParameterRole::Weight);
        let bytes = weights.iter().flat_map(|value| value.to_le_bytes()).collect();
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
        integer: &IntegerLayer<'_>,
        source: Option<ActivationGrid>,
    ) -> String {
        let bias = integer.bias.as_deref().unwrap_or_default();
        let codes = source.and_then(|source| integer.bias_codes(source.scale));
        // Runtimes add what integers cannot hold in single precision.
        let (Some(codes), Some(source)) = (codes, source) else {
            return self.float_bias(layer, bias);
        };
        let scales: Vec<f32> = integer.scales.iter().map(|scale| scale * source.scale).collect();
        let name = self.tensor_name(&ParameterRole::Bias.name(layer), "");
        let quantized = self.tensor_name(&format!("{name}_quantized"), "");
        let bytes = codes.iter().flat_map(|code| code.to_le_bytes()).collect();
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
