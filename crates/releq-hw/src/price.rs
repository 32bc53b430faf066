//! Small parts that every model needs.

use releq_core::{Bitwidth, Cost, CostError, LayerProfile};

/// A whole number as a cost; exact up to 2^53.
pub(crate) fn whole(count: u64) -> Cost {
    Cost(count as f64)
}

/// The bitwidth as a factor of a count.
pub(crate) fn wide(bits: Bitwidth) -> u64 {
    u64::from(bits.get())
}

/// The bitwidth as a factor of a count, if it is at most `max`.
pub(crate) fn at_most(
    max: u8,
    bits: Bitwidth,
    model: &str,
    layer: &LayerProfile,
) -> Result<u64, CostError> {
    if bits.get() <= max {
        Ok(wide(bits))
    } else {
        let (layer, model) = (layer.name.clone(), model.to_owned());
        Err(CostError::Bitwidth { layer, model, got: bits.get(), min: 1, max })
    }
}

/// `what` of `layer` is not covered by `model`.
pub(crate) fn unsupported(model: &str, layer: &LayerProfile, what: impl Into<String>) -> CostError {
    let (layer, model) = (layer.name.clone(), model.to_owned());
    CostError::Unsupported { layer, model, what: what.into() }
}

/// Output pixels: positions of the kernel's window.
pub(crate) fn windows(layer: &LayerProfile) -> u64 {
    (layer.out_height * layer.out_width) as u64
}

/// Input channels that one output channel reads.
pub(crate) fn channels_per_group(layer: &LayerProfile) -> u64 {
    (layer.in_channels / layer.groups.max(1)) as u64
}

#[cfg(test)]
pub(crate) mod layers {
    use releq_core::{LayerBits, LayerKind, LayerProfile};

    /// A convolution over a square image; the output side follows from the rest.
    pub(crate) fn conv(
        channels: [usize; 2],
        side: usize,
        [kernel, stride, padding]: [usize; 3],
    ) -> LayerProfile {
        let out = (side + 2 * padding - kernel) / stride + 1;
        LayerProfile {
            name: "conv".into(),
            kind: LayerKind::Conv2d,
            in_channels: channels[0],
            in_height: side,
            in_width: side,
            out_channels: channels[1],
            kernel,
            stride,
            padding,
            groups: 1,
            out_height: out,
            out_width: out,
            bias: false,
        }
    }

    pub(crate) fn depthwise(channels: usize, side: usize, shape: [usize; 3]) -> LayerProfile {
        let layer = conv([channels, channels], side, shape);
        let name = "depthwise".to_owned();
        LayerProfile { name, kind: LayerKind::DepthwiseConv2d, groups: channels, ..layer }
    }

    pub(crate) fn linear(in_features: usize, out_features: usize) -> LayerProfile {
        let layer = conv([in_features, out_features], 1, [1, 1, 0]);
        LayerProfile { name: "linear".into(), kind: LayerKind::Linear, ..layer }
    }

    /// LeNet 20-50-500-10.
    pub(crate) fn lenet() -> Vec<LayerProfile> {
        vec![
            conv([1, 20], 28, [5, 1, 0]),
            conv([20, 50], 12, [5, 1, 0]),
            linear(800, 500),
            linear(500, 10),
        ]
    }

    pub(crate) fn at(weight: u8, activation: u8) -> LayerBits {
        LayerBits { weight: weight.try_into().unwrap(), activation: activation.try_into().unwrap() }
    }
}
