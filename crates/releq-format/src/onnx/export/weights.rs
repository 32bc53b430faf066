//! The weight of a layer in each form.

use releq_core::{Bitwidth, ParameterRole};
use releq_quant::Quantized;

use super::{
    Form, Stored,
    graph::{Writer, dims, int, text},
    levels::Levels,
    metadata::Grid,
};
use crate::ExportError;

/// Domain of QONNX's operators.
pub(super) const QONNX: &str = "qonnx.custom_op.general";

impl Writer<'_> {
    /// The weight of a layer, `sizes` with the output channels first; gives the name of the tensor that the layer reads.
    pub(super) fn weight(&mut self, layer: &str, sizes: &[usize]) -> Result<String, ExportError> {
        let model = self.model;
        let Some(quantized) = model.codes(layer) else {
            self.layers.push((layer.to_owned(), Bitwidth::FLOAT, Stored::Float));
            return Ok(self.parameter(layer, ParameterRole::Weight, dims(sizes)));
        };
        let form = self.config.form;
        let refused =
            |reason| ExportError::Form { layer: layer.to_owned(), form: form.name(), reason };
        let levels = Levels::of(quantized).map_err(refused)?;
        let name = self.parameter_name(layer, ParameterRole::Weight);
        let stored = match form {
            Form::Dq => self.dequantized(layer, &name, sizes, &levels)?,
            Form::Qcdq => {
                let fits = levels.stored(self.config.most_opset.min(20)) == Some(Stored::Int8);
                if !fits {
                    return Err(refused(format!(
                        "its levels from {} to {} exceed 8 bits, of which a Clip is; write dq",
                        levels.range[0], levels.range[1]
                    )));
                }
                if levels.scales.contains(&0.0) {
                    return Err(refused(
                        "all weights of a channel are zero, and it divides by their scale; write dq"
                            .to_owned(),
                    ));
                }
                self.clipped(layer, &name, sizes, &levels);
                Stored::Float
            }
            Form::Qonnx => {
                self.qonnx(layer, &name, sizes, quantized, &levels).map_err(refused)?;
                Stored::Float
            }
        };
        let grid = Grid { bits: quantized.bits(), zero_point: quantized.zero_point() };
        self.grids.insert(name.clone(), grid);
        self.layers.push((layer.to_owned(), quantized.bits(), stored));
        Ok(name)
    }

    /// Integers and a `DequantizeLinear` right before the layer.
    fn dequantized(
        &mut self,
        layer: &str,
        name: &str,
        sizes: &[usize],
        levels: &Levels,
    ) -> Result<Stored, ExportError> {
        let Some(stored) = levels.stored(self.config.most_opset) else {
            let (what, most) = (format!("layer `{layer}`"), self.config.most_opset);
            return Err(ExportError::Opset { what, needed: Stored::Int16.opset(), most });
        };
        self.needs(stored.opset(), || format!("layer `{layer}`"))?;
        let codes = self.tensor_name(&format!("{name}_quantized"), "");
        let data_type = stored.data_type();
        self.constant(&codes, data_type, dims(sizes), stored.pack(&levels.levels));
        let [scale, zero] = self.scale_and_zero(name, stored, &levels.scales);
        let axis: &[_] = if levels.scales.len() > 1 { &[int("axis", 0)] } else { &[] };
        let inputs = [codes.as_str(), &scale, &zero];
        self.node(&format!("{layer}.dequantize"), "DequantizeLinear", &inputs, name, axis);
        Ok(stored)
    }

    /// Scales and zero points. The latter are written although they are zero: runtimes have computed otherwise without.
    pub(super) fn scale_and_zero(
        &mut self,
        name: &str,
        stored: Stored,
        scales: &[f32],
    ) -> [String; 2] {
        let shape = if scales.len() > 1 { vec![scales.len() as i64] } else { Vec::new() };
        let scale = self.floats(&format!("{name}_scale"), shape.clone(), scales);
        let zero = self.tensor_name(&format!("{name}_zero_point"), "");
        self.constant(&zero, stored.data_type(), shape, stored.pack(&vec![0; scales.len()]));
        [scale, zero]
    }

    /// Weights on their grid, rounded to integers, clipped to the bitwidth, and multiplied with the scale again.
    fn clipped(&mut self, layer: &str, name: &str, sizes: &[usize], levels: &Levels) {
        let on_grid = self.floats(&format!("{name}_on_grid"), dims(sizes), &levels.dequantize());
        let [scale, zero] = self.scale_and_zero(name, Stored::Int8, &levels.scales);
        let axis: &[_] = if levels.scales.len() > 1 { &[int("axis", 0)] } else { &[] };
        let step = |what: &str| format!("{layer}.{what}");
        let inputs = [on_grid.as_str(), &scale, &zero];
        let rounded = self.step(&step("quantize"), "QuantizeLinear", &inputs, axis);
        let [low, high] = [("low", 0), ("high", 1)].map(|(which, place)| {
            let bound = self.tensor_name(&format!("{name}_{which}"), "");
            let int8 = Stored::Int8;
            self.constant(&bound, int8.data_type(), Vec::new(), int8.pack(&[levels.range[place]]));
            bound
        });
        let clipped = self.step(&step("clip"), "Clip", &[&rounded, &low, &high], &[]);
        let inputs = [clipped.as_str(), &scale, &zero];
        self.node(&step("dequantize"), "DequantizeLinear", &inputs, name, axis);
    }

    /// Weights on their grid and the operator of QONNX that rounds to it.
    fn qonnx(
        &mut self,
        layer: &str,
        name: &str,
        sizes: &[usize],
        quantized: &Quantized,
        levels: &Levels,
    ) -> Result<(), String> {
        let (bits, zero_point) = (quantized.bits(), quantized.zero_point());
        let is_bipolar = bits == Bitwidth::ONE && zero_point == 0.5;
        if bits == Bitwidth::ONE && !is_bipolar {
            return Err("QONNX has no grid of 1 bit but -1 and 1; write dq".to_owned());
        }
        // Scales are broadcast over weights.
        let per_channel = |count: usize| match count {
            1 => Vec::new(),
            count => {
                let mut shape = vec![1; sizes.len()];
                shape[0] = count as i64;
                shape
            }
        };
        let scales = if is_bipolar { &levels.scales } else { quantized.scales() };
        if !is_bipolar && scales.contains(&0.0) {
            return Err(
                "all weights of a channel are zero, and it divides by their scale; write dq"
                    .to_owned(),
            );
        }
        let on_grid = self.floats(&format!("{name}_on_grid"), dims(sizes), &levels.dequantize());
        let shape = per_channel(scales.len());
        let scale = self.floats(&format!("{name}_scale"), shape, scales);
        let step = format!("{layer}.quantize");
        if is_bipolar {
            self.node(&step, "BipolarQuant", &[&on_grid, &scale], name, &[]);
        } else {
            // Levels are `code - zero_point`; QONNX's codes are signed.
            let half = f32::from(1u16 << (bits.get().min(8) - 1));
            let zero = if levels.is_narrow { 0.0 } else { zero_point - half };
            let zero = self.floats(&format!("{name}_zero_point"), Vec::new(), &[zero]);
            let width = f32::from(bits.get());
            let width = self.floats(&format!("{name}_bitwidth"), Vec::new(), &[width]);
            let attributes = [
                int("signed", 1),
                int("narrow", i64::from(levels.is_narrow)),
                text("rounding_mode", "ROUND"),
            ];
            self.node(&step, "Quant", &[&on_grid, &scale, &zero, &width], name, &attributes);
        }
        self.in_domain(QONNX);
        Ok(())
    }
}
