//! Writes models in the wire format of protobuf, also such as no library would write.

use std::io;

use releq_format::onnx::{self, Model, OnnxError};

/// A field with its length before it.
pub(crate) fn bytes(tag: u64, content: &[u8]) -> Vec<u8> {
    [varint(tag << 3 | 2), varint(content.len() as u64), content.to_vec()].concat()
}

/// A field with a number.
pub(crate) fn number(tag: u64, value: i64) -> Vec<u8> {
    [varint(tag << 3), varint(value as u64)].concat()
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

fn each<T: Copy>(items: &[T], field: impl Fn(T) -> Vec<u8>) -> Vec<u8> {
    items.iter().flat_map(|&item| field(item)).collect()
}

/// An attribute that is an integer.
pub(crate) fn int(name: &str, value: i64) -> Vec<u8> {
    [bytes(1, name.as_bytes()), number(3, value)].concat()
}

/// An attribute that is a list of integers.
pub(crate) fn ints(name: &str, values: &[i64]) -> Vec<u8> {
    [bytes(1, name.as_bytes()), each(values, |value| number(8, value))].concat()
}

/// An attribute that is a number.
pub(crate) fn float(name: &str, value: f32) -> Vec<u8> {
    let value = [varint(2 << 3 | 5), value.to_le_bytes().to_vec()].concat();
    [bytes(1, name.as_bytes()), value].concat()
}

/// An attribute that is text.
pub(crate) fn text(name: &str, value: &str) -> Vec<u8> {
    [bytes(1, name.as_bytes()), bytes(4, value.as_bytes())].concat()
}

/// A node without a name.
pub(crate) fn node(op: &str, inputs: &[&str], output: &str, attributes: &[Vec<u8>]) -> Vec<u8> {
    let attributes: Vec<u8> = attributes.iter().flat_map(|attribute| bytes(5, attribute)).collect();
    let inputs = each(inputs, |input| bytes(1, input.as_bytes()));
    [inputs, bytes(2, output.as_bytes()), bytes(4, op.as_bytes()), attributes].concat()
}

/// A tensor of single precision.
pub(crate) fn tensor(name: &str, dims: &[i64], values: &[f32]) -> Vec<u8> {
    let raw: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    raw_tensor(name, 1, dims, &raw)
}

/// A tensor of 64-bit integers.
pub(crate) fn integers(name: &str, values: &[i64]) -> Vec<u8> {
    let raw: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    raw_tensor(name, 7, &[values.len() as i64], &raw)
}

/// A tensor of any type.
pub(crate) fn raw_tensor(name: &str, data_type: i64, dims: &[i64], raw: &[u8]) -> Vec<u8> {
    let dims = each(dims, |dim| number(1, dim));
    [dims, number(2, data_type), bytes(8, name.as_bytes()), bytes(9, raw)].concat()
}

/// A tensor of single precision in another file.
pub(crate) fn external(name: &str, dims: &[i64], entries: &[(&str, &str)]) -> Vec<u8> {
    let entry = |(key, value): (&str, &str)| {
        bytes(13, &[bytes(1, key.as_bytes()), bytes(2, value.as_bytes())].concat())
    };
    let dims = each(dims, |dim| number(1, dim));
    [dims, number(2, 1), bytes(8, name.as_bytes()), each(entries, entry), number(14, 1)].concat()
}

/// A side of an input.
#[derive(Clone, Copy)]
pub(crate) enum Side {
    Size(i64),
    Symbol(&'static str),
    Unknown,
}

/// An input or an output.
pub(crate) fn value(name: &str, element: i64, sides: &[Side]) -> Vec<u8> {
    let side = |side| {
        bytes(
            1,
            &match side {
                Side::Size(size) => number(1, size),
                Side::Symbol(name) => bytes(2, name.as_bytes()),
                Side::Unknown => Vec::new(),
            },
        )
    };
    let shape = each(sides, side);
    let tensor = bytes(1, &[number(1, element), bytes(2, &shape)].concat());
    [bytes(1, name.as_bytes()), bytes(2, &tensor)].concat()
}

/// A model in parts.
#[derive(Clone)]
pub(crate) struct Written {
    pub(crate) nodes: Vec<Vec<u8>>,
    pub(crate) tensors: Vec<Vec<u8>>,
    pub(crate) inputs: Vec<Vec<u8>>,
    pub(crate) outputs: Vec<Vec<u8>>,
    pub(crate) opset: i64,
}

impl Written {
    /// A model of these nodes from an image `x` of these sides to `y`.
    pub(crate) fn new(sides: [i64; 3], nodes: &[Vec<u8>], tensors: &[Vec<u8>]) -> Self {
        let sides: Vec<Side> =
            [Side::Symbol("n")].into_iter().chain(sides.map(Side::Size)).collect();
        Self {
            nodes: nodes.to_vec(),
            tensors: tensors.to_vec(),
            inputs: vec![value("x", 1, &sides)],
            outputs: vec![value("y", 1, &[Side::Symbol("n"), Side::Unknown])],
            opset: 17,
        }
    }

    /// A convolution and a linear layer on images of 4 x 4 pixels.
    pub(crate) fn tiny() -> Self {
        Self::new(
            [1, 4, 4],
            &[
                node(
                    "Conv",
                    &["x", "conv.weight", "conv.bias"],
                    "a",
                    &[ints("pads", &[1, 1, 1, 1])],
                ),
                node("Relu", &["a"], "b", &[]),
                node("GlobalAveragePool", &["b"], "c", &[]),
                node("Flatten", &["c"], "d", &[]),
                node("Gemm", &["d", "fc.weight", "fc.bias"], "y", &[int("transB", 1)]),
            ],
            &[
                tensor("conv.weight", &[2, 1, 3, 3], &[0.5; 18]),
                tensor("conv.bias", &[2], &[0.1, 0.2]),
                tensor("fc.weight", &[3, 2], &[0.25; 6]),
                tensor("fc.bias", &[3], &[0.0, 1.0, 2.0]),
            ],
        )
    }

    pub(crate) fn graph(&self) -> Vec<u8> {
        let all = |tag, parts: &[Vec<u8>]| -> Vec<u8> {
            parts.iter().flat_map(|part| bytes(tag, part)).collect()
        };
        let parts = [(1, &self.nodes), (5, &self.tensors), (11, &self.inputs), (12, &self.outputs)];
        parts.into_iter().flat_map(|(tag, parts)| all(tag, parts)).collect()
    }

    /// The file.
    pub(crate) fn file(&self) -> Vec<u8> {
        [number(1, 8), bytes(7, &self.graph()), bytes(8, &number(2, self.opset))].concat()
    }

    pub(crate) fn read(&self) -> Result<Model, OnnxError> {
        read(self.file())
    }
}

/// Reads a model that has no other file beside it.
pub(crate) fn read(file: Vec<u8>) -> Result<Model, OnnxError> {
    onnx::read(file, "tiny", &mut |_| Err(io::Error::other("there is no other file")))
}
