//! Cycles of the Stripes bit-serial accelerator.

use releq_core::{Axes, Bitwidth, Cost, CostError, CostModel, LayerBits, LayerKind, LayerProfile};
use serde::{Deserialize, Serialize};

use crate::{
    HwError,
    error::positive,
    price::{Groups, at_most, whole, windows},
};

/// The operand that is streamed one bit per cycle; the other one is bit-parallel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SerialOperand {
    /// Weights are serial: the machine with its roles swapped, as a search over weight bitwidths needs it.
    #[default]
    Weight,
    /// Activations are serial, as in the machine that was published.
    Activation,
}

/// How the bits of the serial operand slow down a fully connected layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FullyConnected {
    /// Hardly: there is only one window, so the columns form a staggered pipeline that starts a new step in
    /// every cycle, whatever the bitwidth.
    #[default]
    AsBuilt,
    /// In proportion to the bits. Stripes does not do this; its successors Tartan and Loom claim to.
    Proportional,
}

/// Geometry and clock of a [`Stripes`] chip. The defaults are the published chip's.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self", deny_unknown_fields, default)]
pub struct StripesConfig {
    /// The operand that is streamed bit by bit.
    pub serial: SerialOperand,
    /// How fully connected layers run.
    pub fully_connected: FullyConnected,
    /// Products that a serial unit takes per cycle, along the input channels: 16 (DNNsim default).
    pub lanes: u32,
    /// Windows side by side in a tile: 16 (DNNsim default).
    pub columns: u32,
    /// Filters in a tile: 16 (DNNsim default).
    pub rows: u32,
    /// Tiles on the chip: 16 (DNNsim default).
    pub tiles: u32,
    /// Width of the bit-parallel operand, and most bits of the serial one: 16 (DNNsim default).
    pub max_bits: u8,
    /// Clock in Hz: 980 MHz, from the configuration that Bit Fusion's authors matched to Stripes.
    pub clock_hz: f64,
}

releq_core::named_fields!(StripesConfig);

impl Default for StripesConfig {
    fn default() -> Self {
        Self {
            serial: SerialOperand::Weight,
            fully_connected: FullyConnected::AsBuilt,
            lanes: 16,
            columns: 16,
            rows: 16,
            tiles: 16,
            max_bits: 16,
            clock_hz: 980e6,
        }
    }
}

/// Cycles of Stripes, whose time is proportional to the bits of one operand.
///
/// With `P` the bits of the serial operand, `W` the windows (output pixels), `K` the kernel's side, `Cin`
/// and `Cout` the channels:
///
/// | layer | cycles |
/// |---|---|
/// | convolution | `ceil(W/columns) * K^2 * ceil(Cin/lanes) * ceil(Cout/(rows*tiles)) * P` |
/// | the same, 3 input channels, stride `s > 1` | as above, after `Cin -> 3*s^2` and `K -> ceil(K/s)` |
/// | convolution in `g` groups | `ceil(W/columns) * K^2 * P *` the sum over bricks of `ceil(n * Cout/g / (rows*tiles))` |
/// | depthwise | `ceil(W/columns) * K^2 * ceil(C/lanes) * P` |
/// | fully connected, as built | `ceil(In/lanes) * ceil(Out/(rows*tiles)) + P - 1` |
/// | fully connected, proportional | `ceil(In/lanes) * ceil(Out/(rows*tiles)) * P` |
///
/// A brick is `lanes` neighbouring input channels, and `n` the number of groups that own any of them: as each brick
/// passes by, only the filters that read one of its channels have to be visited, and their weights for its other
/// channels are zero. With one group that is the first row, with a group for every channel the depthwise one.
///
/// Memory is never the bottleneck. Two consequences do not show in a count of MACs: a fully connected layer
/// gains almost nothing from fewer bits, and a depthwise one runs at 1/256 of the peak.
///
/// # Units
/// Cycles of one inference, batch 1; [`latency_us`](Self::latency_us) divides by the clock.
///
/// # Source
/// Judd, Albericio, Hetherington, Aamodt, Moshovos, "Stripes: Bit-Serial Deep Neural Network Computing",
/// MICRO 2016, through the simulator DNNsim of the same group (commit 4748a60, dataflow
/// `WindowFirstOutS`): the table equals its compute cycles in all 334 layers that were run, among which are dense
/// and depthwise convolutions. No layer of theirs had another number of groups: the row for these is derived, as the
/// one rule that gives both. In the paper
/// the serial operand is the activation. ReLeQ varies the weights, and what we could read of it does not
/// say how they are mapped, so the operand is a parameter; by symmetry the formula is the same.
///
/// # Errors of [`layer_cost`](CostModel::layer_cost)
/// [`CostError::Bitwidth`] for float, since the chip computes with integers alone, and above `max_bits` (for a fully
/// connected layer as built also above `columns`, where the pipeline would stall); [`CostError::Unsupported`] for
/// groups that do not divide the channels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "StripesConfig", into = "StripesConfig")]
pub struct Stripes(StripesConfig);

impl Stripes {
    /// Checks the configuration.
    ///
    /// # Errors
    /// [`HwError::Parameter`] if a size is zero, `max_bits` is not in 1 to 32, or the clock is not
    /// positive.
    pub fn new(config: StripesConfig) -> Result<Self, HwError> {
        let StripesConfig { lanes, columns, rows, tiles, max_bits, clock_hz, .. } = config;
        let model = config.name();
        for (field, size) in
            [("lanes", lanes), ("columns", columns), ("rows", rows), ("tiles", tiles)]
        {
            positive(model, field, f64::from(size))?;
        }
        if Bitwidth::new(max_bits).is_err() {
            let (field, got, allowed) = ("max_bits", f64::from(max_bits), "in 1..=32");
            return Err(HwError::Parameter { model, field, got, allowed });
        }
        positive(model, "clock_hz", clock_hz)?;
        Ok(Self(config))
    }

    /// The published chip with fully connected layers in proportion, named `stripes-proportional`.
    #[must_use]
    pub fn proportional() -> Self {
        let fully_connected = FullyConnected::Proportional;
        Self(StripesConfig { fully_connected, ..StripesConfig::default() })
    }

    /// The configuration of the chip.
    #[must_use]
    pub const fn config(&self) -> &StripesConfig {
        &self.0
    }

    /// Exact cycles of one inference through `layer`.
    ///
    /// # Errors
    /// As for [`layer_cost`](CostModel::layer_cost).
    pub fn cycles(&self, layer: &LayerProfile, bits: LayerBits) -> Result<u64, CostError> {
        let config = &self.0;
        let (serial, parallel) = match config.serial {
            SerialOperand::Weight => (bits.weight, bits.activation),
            SerialOperand::Activation => (bits.activation, bits.weight),
        };
        let name = self.name();
        let serial_bits = at_most(config.max_bits, serial, name, layer)?;
        at_most(config.max_bits, parallel, name, layer)?;
        let steps = config.steps(layer)?;
        match (layer.kind, config.fully_connected) {
            (LayerKind::Linear, FullyConnected::AsBuilt) => {
                let columns = u8::try_from(config.columns).unwrap_or(u8::MAX);
                at_most(columns.min(config.max_bits), serial, name, layer)?;
                Ok(steps + serial_bits - 1)
            }
            _ => Ok(steps * serial_bits),
        }
    }

    /// Duration in microseconds of `cycles`, as given by [`layer_cost`](CostModel::layer_cost).
    #[must_use]
    pub fn latency_us(&self, cycles: Cost) -> f64 {
        cycles.0 / self.0.clock_hz * 1e6
    }
}

impl StripesConfig {
    pub(crate) const fn name(&self) -> &'static str {
        match self.fully_connected {
            FullyConnected::AsBuilt => "stripes",
            FullyConnected::Proportional => "stripes-proportional",
        }
    }

    /// Steps that `layer` takes, of one bit each (of all bits on a bit-parallel chip).
    pub(crate) fn steps(&self, layer: &LayerProfile) -> Result<u64, CostError> {
        let lanes = u64::from(self.lanes);
        let filters = u64::from(self.rows) * u64::from(self.tiles);
        let window_groups = windows(layer).div_ceil(self.columns.into());
        let (channels, out_channels) = (layer.in_channels as u64, layer.out_channels as u64);
        let taps = layer.kernel.area() as u64;
        match layer.kind {
            LayerKind::Linear => Ok(channels.div_ceil(lanes) * out_channels.div_ceil(filters)),
            LayerKind::Conv2d if layer.groups <= 1 => {
                // The three channels of an image would leave most lanes idle: neighbouring pixels, which
                // fall under the same weights of other windows, fill them.
                let (channels, taps) = if channels == 3 && layer.stride.area() > 1 {
                    let Axes { height: down, width: across } = layer.stride;
                    let rows = layer.kernel.height.div_ceil(down);
                    let columns = layer.kernel.width.div_ceil(across);
                    (channels * layer.stride.area() as u64, (rows * columns) as u64)
                } else {
                    (channels, taps)
                };
                let bricks = taps * channels.div_ceil(lanes);
                Ok(window_groups * bricks * out_channels.div_ceil(filters))
            }
            // Nothing is computed.
            LayerKind::Activations => Ok(0),
            LayerKind::Conv2d | LayerKind::DepthwiseConv2d => {
                let groups = Groups::of(self.name(), layer)?;
                Ok(window_groups * taps * groups.rounds(lanes, filters))
            }
        }
    }
}

impl TryFrom<StripesConfig> for Stripes {
    type Error = HwError;
    fn try_from(config: StripesConfig) -> Result<Self, HwError> {
        Self::new(config)
    }
}

impl From<Stripes> for StripesConfig {
    fn from(stripes: Stripes) -> Self {
        stripes.0
    }
}

impl CostModel for Stripes {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn unit(&self) -> &str {
        "cycles"
    }

    fn layer_cost(&self, layer: &LayerProfile, bits: LayerBits) -> Result<Cost, CostError> {
        self.cycles(layer, bits).map(whole)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use releq_core::Conv2d;

    use super::*;
    use crate::price::layers::{at, conv, depthwise, grouped, lenet, linear};

    /// Rows of DNNsim output, commit 4748a6001ec5b69061e9e75db824008846c50e07: compute cycles.
    #[test]
    fn equals_the_simulator() {
        let lenet = lenet();
        let check = |layer: &LayerProfile, serial: u8, expected: u64| {
            let cycles = Stripes::default().cycles(layer, at(serial, 8)).unwrap();
            assert_eq!(cycles, expected, "{layer:?} at {serial} bits");
        };
        for (serial, expected) in
            [(8, [7200, 1600, 107, 39]), (16, [14400, 3200, 115, 47]), (2, [1800, 400, 101, 33])]
        {
            for (layer, expected) in lenet.iter().zip(expected) {
                check(layer, serial, expected);
            }
        }
        check(&lenet[2], 3, 102);
        // Three channels at stride 1 are not folded (ResNet-20), at stride 4 they are (AlexNet).
        check(&conv([3, 16], 32, [3, 1, 1]), 8, 4608);
        check(&conv([3, 64], 224, [11, 4, 2]), 8, 41_040);
    }

    #[test]
    fn hand_computed_cases() {
        let cycles = |layer: &LayerProfile, bits| Stripes::default().cycles(layer, bits).unwrap();
        // 112 * 112 = 12544 windows are 784 groups; 9 * 2 bricks of 16 channels; 5 bits.
        assert_eq!(cycles(&depthwise(32, 112, [3, 1, 1]), at(5, 8)), 784 * 9 * 2 * 5);
        // 17 channels are two bricks, 257 filters two rounds, 1 window one group.
        assert_eq!(cycles(&conv([17, 257], 1, [1, 1, 0]), at(3, 8)), 2 * 2 * 3);
        assert_eq!(cycles(&linear(4096, 1000), at(8, 8)), 256 * 4 + 7);
        let proportional = Stripes::proportional().cycles(&linear(4096, 1000), at(8, 8));
        assert_eq!(proportional, Ok(256 * 4 * 8));
        // 980 cycles at 980 MHz are one microsecond.
        assert!((Stripes::default().latency_us(Cost(980.0)) - 1.0).abs() < 1e-12);
    }

    /// Counted by hand, brick by brick: 64 windows are 4 groups of columns, of 9 positions and 1 bit.
    #[test]
    fn only_filters_that_read_a_brick_are_visited() {
        let rounds = |groups, channels, config: StripesConfig| {
            let layer = grouped(groups, channels, 8, [3, 1, 1]);
            let cycles = Stripes::new(config).unwrap().cycles(&layer, at(1, 8)).unwrap();
            assert_eq!(cycles % (4 * 9), 0);
            cycles / (4 * 9)
        };
        let chip = StripesConfig::default();
        // AlexNet's second layer: 2 groups of 3 bricks, for which 128 filters are one round.
        assert_eq!(rounds(2, [96, 256], chip), 2 * 3);
        // 512 filters are two rounds, of which each group needs one.
        assert_eq!((rounds(1, [64, 512], chip), rounds(2, [64, 512], chip)), (4 * 2, 4));
        // Groups of 24 channels: the second of three bricks has channels of both, and visits all 512 filters.
        assert_eq!(rounds(2, [48, 512], chip), 1 + 2 + 1);
        // Groups of 4 channels and 80 filters: a brick has four groups, 320 filters, two rounds.
        assert_eq!(rounds(8, [32, 640], chip), 2 * 2);
        // A depthwise layer that makes three channels of each: 16 * 3 filters a brick.
        assert_eq!(rounds(32, [32, 96], chip), 2);
        // On one row, every filter is a round: 2 bricks of 16 filters.
        assert_eq!(rounds(32, [32, 32], StripesConfig { rows: 1, tiles: 1, ..chip }), 32);
    }

    /// One layer by two names: 32 channels of 14 x 14, a kernel of 3 x 3.
    #[test]
    fn a_group_for_every_channel_is_depthwise_whatever_its_name() {
        let layer = depthwise(32, 14, [3, 1, 1]);
        let mut renamed = layer.clone();
        renamed.kind = LayerKind::Conv2d;
        for layer in [layer, renamed] {
            // ceil(196 / 16) * 9 * ceil(32 / 16) * 4
            assert_eq!(Stripes::default().cycles(&layer, at(4, 8)), Ok(936));
        }
    }

    proptest! {
        #[test]
        fn splitting_groups_never_costs_cycles(
            (base, split, more) in (1usize..6, 1usize..5, 1usize..5),
            (channels, filters) in (1usize..12, 1usize..150),
            (lanes, rows) in (1u32..20, 1u32..20),
        ) {
            let config = StripesConfig { lanes, rows, tiles: 3, ..StripesConfig::default() };
            let stripes = Stripes::new(config).unwrap();
            let cycles = |groups: usize| {
                let all = base * split * more;
                let layer = grouped(groups, [channels * all, filters * all], 4, [1, 1, 0]);
                stripes.cycles(&layer, at(3, 8)).unwrap()
            };
            prop_assert!(cycles(base * split) <= cycles(base));
            prop_assert!(cycles(base * split * more) <= cycles(base * split));
        }
    }

    #[test]
    fn the_serial_operand_is_a_parameter() {
        let serial = SerialOperand::Activation;
        let swapped = Stripes::new(StripesConfig { serial, ..StripesConfig::default() }).unwrap();
        for layer in lenet() {
            let weights = Stripes::default().cycles(&layer, at(3, 8));
            assert_eq!(swapped.cycles(&layer, at(8, 3)), weights);
            assert_eq!(swapped.cycles(&layer, at(2, 3)), weights);
        }
    }

    #[test]
    fn kernels_and_strides_that_differ_by_axis_count_as_they_are() {
        let cycles = |input, conv: Conv2d| {
            let layer = LayerProfile::conv2d("uneven", input, conv).unwrap();
            Stripes::default().cycles(&layer, at(4, 8)).unwrap()
        };
        // ceil(196 / 16) * 7 * ceil(64 / 16) * ceil(64 / 256) * 4
        let wide = Conv2d::new(64, [1, 7]).padding(Axes::new(0, 3));
        assert_eq!(cycles([64, 14, 14], wide), 1456);
        // Three channels and two rows of strides share the lanes: ceil(3 * 7 / 16) * (2 * 2) * 1 * 4
        assert_eq!(cycles([3, 8, 8], Conv2d::new(64, [3, 2]).stride([2, 1])), 32);
    }

    #[test]
    fn what_was_not_validated_is_an_error() {
        let check = |layer: &LayerProfile, bits, expected: &str| {
            let message = Stripes::default().cycles(layer, bits).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        };
        check(&linear(8, 8), at(17, 8), "stripes takes integer bitwidths of 1 to 16, got 17");
        check(&linear(8, 8), at(8, 32), "got 32");
        check(&linear(8, 8), LayerBits::weights_only(Bitwidth::FLOAT), "got float");
        let mut uneven = grouped(4, [8, 8], 8, [3, 1, 1]);
        uneven.groups = 3;
        check(&uneven, at(8, 8), "a convolution from 8 to 8 channels in 3 groups");
        uneven.kind = LayerKind::DepthwiseConv2d;
        check(&uneven, at(8, 8), "a depthwise convolution from 8 to 8 channels in 3 groups");
        let narrow = Stripes::new(StripesConfig { columns: 4, ..StripesConfig::default() });
        assert!(narrow.unwrap().cycles(&linear(8, 8), at(5, 8)).is_err());
    }

    #[test]
    fn bad_geometry_is_named() {
        let field = |change: fn(&mut StripesConfig)| {
            let mut config = StripesConfig::default();
            change(&mut config);
            match Stripes::new(config) {
                Err(HwError::Parameter { field, .. }) => field,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(field(|config| config.lanes = 0), "lanes");
        assert_eq!(field(|config| config.columns = 0), "columns");
        assert_eq!(field(|config| config.rows = 0), "rows");
        assert_eq!(field(|config| config.tiles = 0), "tiles");
        assert_eq!(field(|config| config.max_bits = 0), "max_bits");
        assert_eq!(field(|config| config.clock_hz = f64::NAN), "clock_hz");
    }
}
