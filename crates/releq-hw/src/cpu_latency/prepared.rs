//! Layers with synthetic operands, ready to run.

use std::{fmt, hint::black_box, num::NonZeroUsize};

use releq_core::{LayerBits, LayerKind, LayerProfile, text_enum};
use releq_kernels::{
    BitPair, Choice, ConvShape, Epilogue, GemmShape, Isa, Kernel, Layer, LayerShape, Output,
    Threads, Workspace,
};
use serde::{Deserialize, Serialize};

use super::LatencyError;
use crate::price::Groups;

/// Which kernels run a network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum CpuKernels {
    /// For each layer the one that `releq_kernels` chooses.
    #[default]
    Best,
    /// Bit-serial kernels, as in the ReLeQ paper. There is none for depthwise convolutions.
    BitSerial,
    /// Kernels for 8-bit weights, whatever the bitwidth of the weights: the baseline of the others.
    Int8,
}

text_enum!(CpuKernels, "CPU kernels", Best => "best", BitSerial => "bit-serial", Int8 => "int8");

impl CpuKernels {
    /// Name of the cost model.
    pub(super) const fn model_name(self) -> &'static str {
        match self {
            Self::Best => "cpu-latency",
            Self::BitSerial => "cpu-latency-bit-serial",
            Self::Int8 => "cpu-latency-int8",
        }
    }
}

/// One layer with synthetic weights and activations: several parts, each with its own, for a convolution in groups.
pub(super) struct PreparedLayer {
    parts: Vec<Part>,
}

/// What one call of a kernel computes.
struct Part {
    layer: Layer,
    acts: Vec<u8>,
    epilogue: Epilogue,
    out: Vec<u8>,
}

impl PreparedLayer {
    pub(super) fn new(
        profile: &LayerProfile,
        bits: LayerBits,
        kernels: CpuKernels,
        isa: Isa,
    ) -> Result<Self, LatencyError> {
        let (shape, parts) = shape(profile)?;
        let part = || Part::new(profile, shape, bits, kernels, isa);
        Ok(Self { parts: (0..parts).map(|_| part()).collect::<Result<_, LatencyError>>()? })
    }

    /// The kernel, which is the same for all parts, as their shapes are.
    pub(super) fn choice(&self) -> Option<Choice> {
        self.parts.first().map(|part| part.layer.choice())
    }

    /// The kernel and the reason for it, as text.
    pub(super) fn kernel(&self) -> String {
        let choice = self.choice().map(|choice| choice.to_string()).unwrap_or_default();
        match self.parts.len() {
            1 => choice,
            parts => format!("{choice}; once for each of {parts} groups"),
        }
    }

    /// Runs the layer once, with codes as its output.
    pub(super) fn run(&mut self, workspace: &mut Workspace, threads: &Threads) {
        for part in &mut self.parts {
            part.run(workspace, threads);
        }
    }
}

impl Part {
    fn new(
        profile: &LayerProfile,
        shape: LayerShape,
        bits: LayerBits,
        kernels: CpuKernels,
        isa: Isa,
    ) -> Result<Self, LatencyError> {
        let fail = |source| LatencyError::Kernel { layer: profile.name.clone(), source };
        shape.check().map_err(fail)?;
        let (Some(weight), Some(act)) = (bits.weight.integer(), bits.activation.integer()) else {
            let what = format!("{} x {} bits, only for integers", bits.weight, bits.activation);
            return Err(LatencyError::Unsupported { layer: profile.name.clone(), what });
        };
        let pair = BitPair::new(weight, act).map_err(fail)?;
        // Without a pattern that a kernel could profit from.
        let byte = |i: usize| i.wrapping_mul(0x9e37_79b1).to_le_bytes()[3];
        let codes: Vec<i8> =
            (0..shape.weights()).map(|i| byte(i).cast_signed() >> (8 - pair.weight())).collect();
        let acts = (0..shape.acts()).map(|i| byte(i) >> (8 - pair.act())).collect();
        let layer = match (kernels, shape) {
            (CpuKernels::BitSerial, LayerShape::Depthwise(_)) => {
                let what = "depthwise convolution by bit planes".to_owned();
                return Err(LatencyError::Unsupported { layer: profile.name.clone(), what });
            }
            (CpuKernels::Best, _) | (_, LayerShape::Depthwise(_)) => {
                Layer::pack(&codes, shape, pair, isa)
            }
            (CpuKernels::BitSerial, _) => {
                Layer::pack_for(Kernel::BitSerial, &codes, shape, pair, isa)
            }
            (CpuKernels::Int8, _) => Layer::pack_for(Kernel::Int8, &codes, shape, pair, isa),
        };
        let outputs = shape.outputs();
        let epilogue = Epilogue::new(&vec![1e-3; outputs], &vec![0.5; outputs], true);
        Ok(Self {
            layer: layer.map_err(fail)?,
            acts,
            epilogue: epilogue.map_err(fail)?,
            out: vec![0; shape.pixels() * outputs],
        })
    }

    fn run(&mut self, workspace: &mut Workspace, threads: &Threads) {
        let bits = self.layer.bits().act();
        let out = Output::Codes { epilogue: &self.epilogue, bits, out: &mut self.out };
        let done = self.layer.run(black_box(&self.acts), out, workspace, threads);
        assert!(done.is_ok(), "the operands were made for the layer: {done:?}");
        black_box(&self.out);
    }
}

/// The shape in the terms of the kernels, and how many layers of this shape do the work: a convolution in groups
/// is a convolution for each of them, unless it is depthwise.
fn shape(profile: &LayerProfile) -> Result<(LayerShape, usize), LatencyError> {
    if profile.kind == LayerKind::Linear {
        let (outputs, depth) = (profile.out_channels, profile.in_channels);
        return Ok((LayerShape::Gemm(GemmShape { pixels: 1, outputs, depth }), 1));
    }
    let LayerProfile { kernel, stride, padding, dilation, .. } = *profile;
    let (Some(side), Some(step), Some(margin), Some(1)) =
        (kernel.equal(), stride.equal(), padding.equal(), dilation.equal())
    else {
        let what = format!(
            "a convolution with kernel {kernel}, stride {stride}, padding {padding} and dilation {dilation}: \
             the integer kernels take the same on all sides, and no dilation"
        );
        return Err(LatencyError::Unsupported { layer: profile.name.clone(), what });
    };
    let conv = |channels, outputs| ConvShape {
        channels,
        height: profile.in_height,
        width: profile.in_width,
        outputs,
        kernel: side,
        stride: step,
        padding: margin,
    };
    let LayerProfile { in_channels, out_channels, groups, .. } = *profile;
    Groups::of("the CPU", profile).map_err(|error| LatencyError::Layer(Box::new(error)))?;
    Ok(match groups {
        1 => (LayerShape::Conv(conv(in_channels, out_channels)), 1),
        _ if groups == in_channels && groups == out_channels => {
            (LayerShape::Depthwise(conv(in_channels, out_channels)), 1)
        }
        _ => (LayerShape::Conv(conv(in_channels / groups, out_channels / groups)), groups),
    })
}

/// All layers of a network with synthetic operands, to be run one after the other.
///
/// Every layer has an input of its own; layers without weights are left out.
pub struct CpuNetwork {
    layers: Vec<(String, PreparedLayer)>,
    workspace: Workspace,
    threads: Threads,
}

impl CpuNetwork {
    /// Packs all layers, for one image.
    ///
    /// # Errors
    /// [`LatencyError`] unless there are a bitwidth and a kernel for every layer.
    pub fn new(
        layers: &[LayerProfile],
        bits: &[LayerBits],
        kernels: CpuKernels,
        isa: Isa,
        threads: NonZeroUsize,
    ) -> Result<Self, LatencyError> {
        if layers.len() != bits.len() {
            let (layers, bits) = (layers.len(), bits.len());
            return Err(LatencyError::LengthMismatch { layers, bits });
        }
        let prepare = |(profile, &bits): (&LayerProfile, &LayerBits)| {
            let layer = PreparedLayer::new(profile, bits, kernels, isa)?;
            Ok((profile.name.clone(), layer))
        };
        let layers = layers.iter().zip(bits).map(prepare).collect::<Result<_, LatencyError>>()?;
        Ok(Self { layers, workspace: Workspace::default(), threads: Threads::new(threads) })
    }

    /// Runs every layer once.
    pub fn run(&mut self) {
        for (_, layer) in &mut self.layers {
            layer.run(&mut self.workspace, &self.threads);
        }
    }

    /// Names of the layers, with their kernels and the reason for each.
    pub fn choices(&self) -> impl Iterator<Item = (&str, Choice)> {
        self.layers.iter().filter_map(|(name, layer)| Some((name.as_str(), layer.choice()?)))
    }
}

impl fmt::Debug for CpuNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.choices()).finish()
    }
}
