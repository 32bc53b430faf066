//! Models that compute with integers already: refused, unless they are exports of ours.

use std::sync::Arc;

use releq_quant::Quantized;

use super::{
    OnnxError,
    graph::{Graph, Node},
    metadata::{Grid, Metadata},
    tensor::{Reason, Tensor},
};

/// Refuses a model in which a node quantizes, or computes with what is quantized. In an export of ours, what rounds
/// weights is read.
pub(super) fn check(graph: &Graph, is_ours: bool) -> Result<(), OnnxError> {
    let refused = |node: &&Node| is_quantized(node) && !(is_ours && rounds_weights(node));
    match graph.nodes.iter().find(refused) {
        Some(node) => Err(OnnxError::Quantized { node: node.label.clone(), op: node.op.clone() }),
        None => Ok(()),
    }
}

/// Operators of ONNX, of ONNX Runtime and of QONNX.
fn is_quantized(node: &Node) -> bool {
    let op = node.op.as_str();
    matches!(
        op,
        "QuantizeLinear"
            | "DequantizeLinear"
            | "DynamicQuantizeLinear"
            | "ConvInteger"
            | "MatMulInteger"
            | "MatMulNBits"
            | "DynamicQuantizeMatMul"
            | "MatMulIntegerToFloat"
            | "FakeQuantize"
    ) || op.starts_with("QLinear")
        || node.domain.contains("qonnx")
            && matches!(op, "Quant" | "IntQuant" | "BipolarQuant" | "Trunc")
        || node.domain == "finn"
        || node.domain.starts_with("onnx.brevitas")
}

/// Operators that exports of ours have for weights.
fn rounds_weights(node: &Node) -> bool {
    matches!(node.op.as_str(), "QuantizeLinear" | "DequantizeLinear" | "Quant" | "BipolarQuant")
}

/// Where quantized weights lie: on `scale * (code - zero_point)`.
#[derive(Debug)]
pub(super) struct OnGrid {
    grid: Grid,
    /// One for the layer, or one for each output channel.
    scales: Vec<f32>,
}

impl OnGrid {
    /// The codes of weights; the reason, if they are not on the grid.
    pub(super) fn codes(&self, weights: &[f32]) -> Result<Quantized, String> {
        let Grid { bits, zero_point } = self.grid;
        let rows = self.scales.len();
        if weights.is_empty() || !weights.len().is_multiple_of(rows) {
            return Err(format!("there are {rows} scales for {} weights", weights.len()));
        }
        let code = |weight: f32, scale: f32| match scale {
            // Every code gives zero.
            0.0 => zero_point.clamp(0.0, 255.0) as u8,
            _ => (weight / scale + zero_point).round_ties_even().clamp(0.0, 255.0) as u8,
        };
        let rows = weights.chunks_exact(weights.len() / rows).zip(&self.scales);
        let codes = rows.flat_map(|(row, &scale)| row.iter().map(move |&w| code(w, scale)));
        let codes = codes.collect();
        let codes = Quantized::new(codes, self.scales.clone(), zero_point, bits)
            .map_err(|error| error.to_string())?;
        match codes.dequantize() == weights {
            true => Ok(codes),
            false => Err("its weights are not on the grid that the metadata says".to_owned()),
        }
    }
}

/// Computes a node of an export of ours that rounds weights or gives them back; `None` for any other node.
///
/// What it computes is the value, whatever the metadata says of it. Whether weights are on their grid is found out at the
/// end, from [`OnGrid::codes`].
pub(super) fn fold(
    node: &Node,
    inputs: &[Option<&Tensor>],
    output: &str,
    ours: &Metadata,
    most: &mut usize,
) -> Result<Option<Tensor>, Reason> {
    let input = |index: usize| {
        let tensor = inputs.get(index).copied().flatten();
        tensor.ok_or_else(|| format!("lacks its input no. {index}"))
    };
    let number = |index: usize| -> Result<f32, Reason> {
        input(index)?.scalar().ok_or_else(|| format!("needs one number as input no. {index}"))
    };
    if !rounds_weights(node) && node.op != "Clip" {
        return Ok(None);
    }
    let tensor = input(0)?;
    // One number that stands for many becomes many here.
    *most = most.checked_sub(tensor.len()).ok_or("makes more weights than the model has")?;
    let values = tensor.values()?;
    if node.op == "Clip" {
        let (low, high) = (number(1)?, number(2)?);
        let clipped = values.iter().map(|value| value.max(low).min(high)).collect();
        return Ok(Some(Tensor::floats(tensor.dims.clone(), clipped)));
    }
    let scales = input(1)?;
    let channels = tensor.dims.first().copied().unwrap_or(1);
    if scales.len() != 1 && (scales.len() != channels || channels > tensor.len()) {
        return Err(format!("has {} scales for {channels} output channels", scales.len()));
    }
    let scales = scales.values()?;
    if scales.is_empty() || !scales.iter().all(|scale| scale.is_finite() && *scale >= 0.0) {
        return Err("has a scale that is negative or not finite".to_owned());
    }
    let is_linear = node.op.ends_with("Linear");
    if is_linear && scales.len() > 1 && node.attributes.integer("axis", 1) != 0 {
        return Err("has scales along another axis than the output channels".to_owned());
    }
    if is_linear {
        let zeros = input(2)?;
        if zeros.len() != scales.len() || zeros.values()?.iter().any(|&zero| zero != 0.0) {
            return Err("has a zero point other than 0, unlike any export".to_owned());
        }
    }
    let row = (values.len() / scales.len()).max(1);
    let each = |function: &dyn Fn(f32, f32) -> f32| -> Tensor {
        let rows = values.chunks(row).zip(scales.iter());
        let of_row = |(row, &scale): (&[f32], &f32)| -> Vec<f32> {
            row.iter().map(|&value| function(value, scale)).collect()
        };
        Tensor::floats(tensor.dims.clone(), rows.flat_map(of_row).collect())
    };
    let dequantized = match node.op.as_str() {
        "QuantizeLinear" => {
            return Ok(Some(each(&|value, scale| {
                (value / scale).round_ties_even().clamp(-128.0, 127.0)
            })));
        }
        "DequantizeLinear" => each(&|level, scale| scale * level),
        "BipolarQuant" => each(&|value, scale| if value >= 0.0 { scale } else { -scale }),
        _ => {
            let (zero, width) = (number(2)?, number(3)?);
            if !(1.0..=8.0).contains(&width) {
                return Err(format!("has a width of {width:?} bits"));
            }
            let most = width.exp2() / 2.0;
            let least = if node.attributes.integer("narrow", 0) == 1 { 1.0 - most } else { -most };
            each(&|value, scale| {
                scale * ((value / scale + zero).round_ties_even().clamp(least, most - 1.0) - zero)
            })
        }
    };
    let grid = *ours.weights.get(output).ok_or("is not in the metadata of the model")?;
    // Where zero lies half way between two codes, levels are twice as many and their scale is half of that of codes.
    let halved = node.op != "Quant" && grid.zero_point.fract() != 0.0;
    let scales = scales.iter().map(|scale| if halved { scale * 2.0 } else { *scale }).collect();
    Ok(Some(dequantized.on_grid(output, Arc::new(OnGrid { grid, scales }))))
}
