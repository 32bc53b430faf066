//! Helpers shared by the models.

use releq_core::{Bitwidth, Cost, CostError, LayerKind, LayerProfile};

/// A whole number as a cost; exact up to 2^53.
pub(crate) fn whole(count: u64) -> Cost {
    Cost(count as f64)
}

/// Bits of one stored value as a factor of a count.
pub(crate) fn wide(bits: Bitwidth) -> u64 {
    u64::from(bits.get())
}

/// The integer bitwidth as a factor of a count, if it is at most `max`; float never is.
pub(crate) fn at_most(
    max: u8,
    bits: Bitwidth,
    model: &str,
    layer: &LayerProfile,
) -> Result<u64, CostError> {
    match bits.integer() {
        Some(bits) if bits <= max => Ok(bits.into()),
        _ => {
            let (layer, model) = (layer.name.clone(), model.to_owned());
            Err(CostError::Bitwidth { layer, model, got: bits, min: 1, max })
        }
    }
}

/// The error of a model that another one computes with, under the name that was asked for.
pub(crate) fn named(model: &str, error: CostError) -> CostError {
    let model = model.to_owned();
    match error {
        CostError::Bitwidth { layer, got, min, max, .. } => {
            CostError::Bitwidth { layer, model, got, min, max }
        }
        CostError::Unsupported { layer, what, .. } => CostError::Unsupported { layer, model, what },
        CostError::NotACost { cost, .. } => CostError::NotACost { model, cost },
        other => other,
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

/// Groups of a convolution, all of one size.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Groups {
    count: u64,
    /// Input channels of a group.
    channels: u64,
    /// Filters of a group, which are its output channels.
    filters: u64,
}

impl Groups {
    /// Those of `layer`, if they divide its channels.
    pub(crate) fn of(model: &str, layer: &LayerProfile) -> Result<Self, CostError> {
        let LayerProfile { groups, in_channels, out_channels, .. } = *layer;
        let depthwise = layer.kind == LayerKind::DepthwiseConv2d;
        if groups == 0
            || in_channels % groups != 0
            || out_channels % groups != 0
            || depthwise && groups != in_channels
        {
            let kind = if depthwise { "a depthwise convolution" } else { "a convolution" };
            let what =
                format!("{kind} from {in_channels} to {out_channels} channels in {groups} groups");
            return Err(unsupported(model, layer, what));
        }
        let [count, channels, filters] =
            [groups, in_channels / groups, out_channels / groups].map(|size| size as u64);
        Ok(Self { count, channels, filters })
    }

    /// Rounds of at most `most_filters` filters in which the layer is computed, if its input passes by in bricks of
    /// `lanes` neighbouring channels and every brick visits the filters of the groups that own any of them.
    pub(crate) fn rounds(self, lanes: u64, most_filters: u64) -> u64 {
        let all = self.count * self.channels;
        let owner = |channel: u64| channel / self.channels.max(1);
        let rounds = |brick: u64| {
            let (first, last) = (brick * lanes, all.min((brick + 1) * lanes) - 1);
            ((owner(last) - owner(first) + 1) * self.filters).div_ceil(most_filters)
        };
        (0..all.div_ceil(lanes)).map(rounds).sum()
    }
}

#[cfg(test)]
pub(crate) mod layers {
    use releq_core::{Conv2d, LayerBits, LayerProfile};

    /// A convolution over a square image, without a bias.
    pub(crate) fn conv(
        [in_channels, out_channels]: [usize; 2],
        side: usize,
        [kernel, stride, padding]: [usize; 3],
    ) -> LayerProfile {
        let conv = Conv2d::new(out_channels, kernel).stride(stride).padding(padding);
        LayerProfile::conv2d("conv", [in_channels, side, side], conv.without_bias()).unwrap()
    }

    pub(crate) fn depthwise(
        channels: usize,
        side: usize,
        [kernel, stride, padding]: [usize; 3],
    ) -> LayerProfile {
        let conv = Conv2d::new(channels, kernel).stride(stride).padding(padding).groups(channels);
        LayerProfile::conv2d("depthwise", [channels, side, side], conv.without_bias()).unwrap()
    }

    /// A convolution in groups over a square image, without a bias.
    pub(crate) fn grouped(
        groups: usize,
        [in_channels, out_channels]: [usize; 2],
        side: usize,
        [kernel, stride, padding]: [usize; 3],
    ) -> LayerProfile {
        let conv = Conv2d::new(out_channels, kernel).stride(stride).padding(padding);
        let conv = conv.groups(groups).without_bias();
        LayerProfile::conv2d("grouped", [in_channels, side, side], conv).unwrap()
    }

    pub(crate) fn linear(in_features: usize, out_features: usize) -> LayerProfile {
        LayerProfile::linear("linear", in_features, out_features)
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
        LayerBits::new(weight.try_into().unwrap(), activation.try_into().unwrap())
    }
}
