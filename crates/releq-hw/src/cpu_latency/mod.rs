//! Latency measured on this machine's CPU.

mod error;
mod machine;
mod prepared;
mod table;
mod timing;

pub use error::LatencyError;
pub use machine::Machine;
pub use prepared::{CpuKernels, CpuNetwork};
pub use table::{LatencyConfig, LatencyRow, LatencyTable};
pub use timing::{Timing, time_interleaved};

use std::collections::HashMap;

use releq_core::{Bitwidth, Cost, CostError, CostModel, LayerBits, LayerKind, LayerProfile};

/// Microseconds of one inference on this machine's CPU, from a table of measured layers.
///
/// A network costs the sum of its layers, each measured alone and several times in a row, so that its weights
/// come from the nearest cache that holds them. Layers without weights (pooling, residual sums) are left out. So are
/// floats: the kernels compute with integers, and a layer in float is an error.
///
/// There is no kernel for convolutions in groups that are not depthwise. Such a layer is a dense convolution for each
/// group, with weights and activations of its own, run one after the other; splitting and joining the channels, for
/// which a network in such parts has no need, is left out.
///
/// # Units
/// Microseconds, batch 1: the medians of the table.
///
/// # Examples
/// ```
/// use releq_core::{CostModel, Network};
/// use releq_hw::{CpuLatency, LatencyConfig, uniform};
///
/// let network = Network::builder("tiny", [3, 8, 8]).conv2d("conv", 16, 3).flatten("flat").build()?;
/// let (layers, bits) = (network.profiles(), uniform(4, 1)?);
/// let config = LatencyConfig { repeats: 3.try_into()?, ..LatencyConfig::default() };
/// let cpu = CpuLatency::measure(&layers, &bits, &config)?;
/// assert!(cpu.network_cost(&layers, &bits)?.0 > 0.0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct CpuLatency {
    table: LatencyTable,
    medians: HashMap<(LayerProfile, LayerBits), f64>,
}

impl CpuLatency {
    /// Measures layers at their bitwidths and with weights of 8 bits, the baseline of a
    /// [`cost_report`](crate::cost_report). For anything else, measure a [`LatencyTable`].
    ///
    /// # Errors
    /// [`LatencyError`] unless there are a bitwidth and a kernel for every layer.
    pub fn measure(
        layers: &[LayerProfile],
        bits: &[LayerBits],
        config: &LatencyConfig,
    ) -> Result<Self, LatencyError> {
        if layers.len() != bits.len() {
            let (layers, bits) = (layers.len(), bits.len());
            return Err(LatencyError::LengthMismatch { layers, bits });
        }
        let eight = bits.iter().map(|bits| bits.with_weight(Bitwidth::EIGHT));
        let work = layers.iter().zip(bits.iter().copied()).chain(layers.iter().zip(eight));
        Self::new(LatencyTable::measure(work, config, &mut |_, _| ())?)
    }

    /// The latencies of a table that was measured on this machine.
    ///
    /// # Errors
    /// [`LatencyError::Foreign`] if it was measured on another one.
    pub fn new(table: LatencyTable) -> Result<Self, LatencyError> {
        let here = Machine::this();
        if table.machine != here {
            let there = Box::new(table.machine);
            return Err(LatencyError::Foreign { there, here: Box::new(here) });
        }
        Ok(Self::of_any_machine(table))
    }

    /// The latencies of a table of any machine, to compare machines or to choose bits for another one.
    #[must_use]
    pub fn of_any_machine(table: LatencyTable) -> Self {
        let median = |row: &LatencyRow| ((nameless(&row.layer), row.bits), row.timing.median_us);
        let medians = table.rows.iter().map(median).collect();
        Self { table, medians }
    }

    /// The table of measured layers.
    #[must_use]
    pub fn table(&self) -> &LatencyTable {
        &self.table
    }
}

impl CostModel for CpuLatency {
    fn name(&self) -> &str {
        self.table.kernels.model_name()
    }

    fn unit(&self) -> &str {
        "us"
    }

    fn layer_cost(&self, layer: &LayerProfile, bits: LayerBits) -> Result<Cost, CostError> {
        match self.medians.get(&(nameless(layer), bits)) {
            Some(&median) => Ok(Cost(median)),
            None => Err(CostError::Unsupported {
                layer: layer.name.clone(),
                model: self.name().to_owned(),
                what: format!(
                    "a shape that is missing from its table at {} x {} bits; measure it first",
                    bits.weight, bits.activation
                ),
            }),
        }
    }
}

/// The layer without what does not change its cost: its name, its bias and its batch norm, which is folded, and
/// whether a convolution with a group for every channel is called depthwise.
fn nameless(layer: &LayerProfile) -> LayerProfile {
    let mut layer = layer.clone();
    if layer.kind == LayerKind::Conv2d && layer.groups > 1 && layer.groups == layer.in_channels {
        layer.kind = LayerKind::DepthwiseConv2d;
    }
    layer.name.clear();
    layer.bias = false;
    layer.batch_norm = false;
    layer
}
