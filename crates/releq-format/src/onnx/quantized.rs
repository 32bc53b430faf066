//! Models that compute with integers already.

use super::{
    OnnxError,
    graph::{Graph, Node},
};

/// Refuses a model in which a node quantizes, or computes with what is quantized.
pub(super) fn check(graph: &Graph) -> Result<(), OnnxError> {
    match graph.nodes.iter().find(|node| is_quantized(node)) {
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
