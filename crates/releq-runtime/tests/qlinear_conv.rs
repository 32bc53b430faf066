//! Single convolutions: the runtime gives the codes that ONNX Runtime's `QLinearConv` gives, every one of them.
//!
//! `tests/golden/qlinear_conv.json` has a convolution of every kind; `tests/peers/qlinear_conv.py` wrote it. The variable
//! `RELEQ_QLINEAR_CONV` names another file of that script, with more convolutions or with those of a network.
#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]
#![allow(clippy::print_stderr, reason = "what was compared, or skipped, should be seen")]

use std::{collections::BTreeMap, env, fs};

use releq_core::{Activation as Function, Bitwidth, Conv2d, Network, Parameter, Weights};
use releq_format::{QuantizedNetwork, packed::Packed};
use releq_kernels::Isa;
use releq_quant::{ActivationGrid, ActivationGrids, Quantized};
use releq_runtime::{Activation, Mode, Model, Options, reference};
use serde::Deserialize;

#[derive(Deserialize)]
struct Golden {
    onnxruntime: String,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    /// `[channels, height, width]`
    input: [usize; 3],
    outputs: usize,
    kernel: usize,
    stride: usize,
    dilation: usize,
    groups: usize,
    /// Above, left, below, right.
    padding: [usize; 4],
    x: ActivationGrid,
    y: ActivationGrid,
    /// Whether a rectifier follows, and the value that it ends at.
    rectified: bool,
    ceiling: Option<f32>,
    /// Of the weights.
    scales: Vec<f32>,
    /// In units of the product of both scales.
    bias: Option<Vec<i32>>,
    #[serde(deserialize_with = "bytes")]
    codes: Vec<u8>,
    /// In two's complement.
    #[serde(deserialize_with = "bytes")]
    weights: Vec<u8>,
    /// What ONNX Runtime gives, channel by channel.
    #[serde(deserialize_with = "bytes")]
    expected: Vec<u8>,
}

/// From hexadecimal digits.
fn bytes<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(from)?;
    let digit = |at: usize| u8::from_str_radix(text.get(at..at + 2).unwrap_or_default(), 16);
    (0..text.len())
        .step_by(2)
        .map(digit)
        .collect::<Result<_, _>>()
        .map_err(serde::de::Error::custom)
}

impl Case {
    /// A network of the convolution and a mean behind it, because outputs of a network are not rounded.
    fn packed(&self) -> Packed {
        let conv = Conv2d::new(self.outputs, self.kernel)
            .stride(self.stride)
            .padding(self.padding)
            .dilation(self.dilation)
            .groups(self.groups);
        let conv = if self.bias.is_some() { conv } else { conv.without_bias() };
        let builder = Network::builder("single", self.input).conv("conv", conv);
        let (builder, end) = match (self.rectified, self.ceiling) {
            (false, _) => (builder, "conv"),
            (true, None) => (builder.relu("end"), "end"),
            (true, Some(max)) => {
                (builder.activation("end", Function::Clip { min: 0.0, max }), "end")
            }
        };
        let network = builder.global_avg_pool("mean").build().unwrap();
        let mut floats = Weights::default();
        if let Some(bias) = &self.bias {
            let scale = |at: usize| self.scales[at % self.scales.len()] * self.x.scale;
            let values = bias
                .iter()
                .enumerate()
                .map(|(at, &code)| (f64::from(code) * f64::from(scale(at))) as f32)
                .collect();
            floats
                .0
                .insert("conv.bias".to_owned(), Parameter { shape: vec![self.outputs], values });
        }
        let codes = self.weights.iter().map(|code| code ^ 128).collect();
        let codes = Quantized::new(codes, self.scales.clone(), 128.0, Bitwidth::EIGHT).unwrap();
        let codes = BTreeMap::from([("conv".to_owned(), codes)]);
        let model = QuantizedNetwork::from_parts(network, floats, codes, None).unwrap();
        let layers = BTreeMap::from([(end.to_owned(), self.y)]);
        let activations = Some(ActivationGrids { input: self.x, layers });
        Packed { activations, ..Packed::from(model) }
    }

    fn image(&self) -> Vec<f32> {
        let value = |&code: &u8| self.x.scale * (f32::from(code) - f32::from(self.x.zero_point));
        self.codes.iter().map(value).collect()
    }

    /// What ONNX Runtime gives, pixel by pixel.
    fn pixels(&self) -> Vec<u8> {
        let area = self.expected.len() / self.outputs;
        let place = |at: usize| at % self.outputs * area + at / self.outputs;
        (0..self.expected.len()).map(|at| self.expected[place(at)]).collect()
    }
}

/// Keeps the codes of the convolution.
fn keep(into: &mut Vec<u8>) -> impl FnMut(&str, Activation<'_>) {
    |layer, tensor| {
        if let ("conv", Activation::Codes { codes, .. }) = (layer, tensor) {
            into.clear();
            into.extend_from_slice(codes);
        }
    }
}

/// How many of the codes there are, and how many are in layers in single precision and off by one.
fn check(case: &Case) -> (usize, usize) {
    let (packed, image, expected) = (case.packed(), case.image(), case.pixels());
    let (mut compared, mut off) = (0, 0);
    let mut compare = |got: &[u8], is_float: bool, how: &str| {
        assert_eq!(got.len(), expected.len(), "{} {how}", case.name);
        let others = got.iter().zip(&expected).filter(|(got, expected)| got != expected).count();
        let nearest = got.iter().zip(&expected).all(|(got, code)| got.abs_diff(*code) < 2);
        let label = format!("{}, {how}: {others} of {} codes", case.name, got.len());
        assert!(others == 0 || is_float && nearest, "{label}\n{got:?}\n{expected:?}");
        compared += got.len();
        off += others;
    };
    // Groups of several channels and dilated kernels have no kernels on integers.
    let depthwise = case.groups == case.input[0] && case.outputs == case.input[0];
    let is_float = case.dilation > 1 || case.groups > 1 && !depthwise;
    let mut got = Vec::new();
    reference::run(&packed, &image, &mut keep(&mut got)).unwrap();
    compare(&got, is_float, "twin");
    for isa in Isa::available() {
        for mode in [Mode::Best, Mode::Int8] {
            let mut model =
                Model::compile(&packed, &Options { isa, mode, ..Options::default() }).unwrap();
            let floats: Vec<bool> =
                model.layers().filter(|l| l.layer == "conv").map(|l| l.is_float).collect();
            assert!(floats.contains(&is_float), "{}: {floats:?}", case.name);
            let mut outputs = vec![0.0; model.outputs()];
            let mut got = Vec::new();
            model.run_observed(&image, &mut outputs, &mut keep(&mut got)).unwrap();
            compare(&got, is_float, &format!("{isa} {mode:?}"));
        }
    }
    (compared, off)
}

fn check_file(text: &str) {
    let golden: Golden = serde_json::from_str(text).unwrap();
    assert!(!golden.cases.is_empty());
    let counts: Vec<(usize, usize)> = golden.cases.iter().map(check).collect();
    let (compared, off) = counts.iter().fold((0, 0), |sum, next| (sum.0 + next.0, sum.1 + next.1));
    eprintln!(
        "{} convolutions of ONNX Runtime {}: {compared} codes compared; {off} in single precision are off by one",
        golden.cases.len(),
        golden.onnxruntime
    );
    // Single precision rounds before the grid does, and a value may then be on the other side of a half.
    assert!(off * 1_000 <= compared, "{off} of {compared}");
}

#[test]
fn codes_are_those_of_onnx_runtime() {
    check_file(include_str!("golden/qlinear_conv.json"));
}

#[test]
fn codes_of_another_file_are_those_of_onnx_runtime() {
    match env::var("RELEQ_QLINEAR_CONV") {
        Ok(path) => check_file(&fs::read_to_string(path).unwrap()),
        Err(_) => eprintln!("skipped: RELEQ_QLINEAR_CONV names no file"),
    }
}
