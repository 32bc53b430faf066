//! What an assignment of bitwidths costs: analytical models of cycles, energy and bytes, and measured latency.
//!
//! Every model implements [`releq_core::CostModel`], which sees layer shapes and bitwidths but no tensors.
//!
//! ```
//! use releq_core::{BitwidthAssignment, CostModel, Network};
//! use releq_hw::{Stripes, speedup, uniform, weights_only};
//!
//! let lenet = Network::builder("lenet", [1, 28, 28])
//!     .conv2d("conv1", 20, 5)
//!     .max_pool("pool1", 2, 2)
//!     .conv2d("conv2", 50, 5)
//!     .max_pool("pool2", 2, 2)
//!     .flatten("flatten")
//!     .linear("fc1", 500)
//!     .linear("fc2", 10)
//!     .build()?;
//! let layers = lenet.profiles();
//! let bits: BitwidthAssignment = "2-2-3-2".parse()?;
//!
//! let stripes = Stripes::default();
//! let cycles = stripes.network_cost(&layers, &weights_only(&bits))?;
//! assert_eq!(cycles.0, 2335.0);
//! let faster = speedup(&stripes, &layers, &weights_only(&bits), &uniform(8, layers.len())?)?;
//! assert!((faster - 3.83).abs() < 0.01);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! | model | what it counts |
//! |---|---|
//! | [`Stripes`], [`DaDianNao`] | cycles of a bit-serial accelerator and of its bit-parallel twin |
//! | [`BitOperations`], [`BitOperationsNncf`] | `macs * bw * ba`, and the form with `max` |
//! | [`BitSerialCpu`] | words popcounted by a bit-serial CPU kernel |
//! | [`ModelSize`], [`MemoryTraffic`] | bytes stored, bytes moved |
//! | [`Energy`], [`ConstantPower`] | picojoules of a bit-parallel circuit; the energy of any cycle model at constant power |
//! | [`Roofline`] | microseconds, bound by compute or by bandwidth |
//! | [`CpuLatency`] | microseconds on this machine's CPU, measured |
//! | [`MeanBits`], [`CostWeighted`] | bits of the weights, plain or weighed by memory accesses and MACs |
//! | [`WeightedSum`], [`CostLimit`] | several models as one; a limit on one |
//!
//! The same bits can gain four times as much under one model as under another, so none of these figures is
//! "the" speedup. [`cost_report`] compares models side by side.
//!
//! Layers come from a network, or from a table of their shapes by [`read_layers`].
//!
//! ReLeQ's State_Quantization is a cost over the cost at the highest bitwidth: of [`CostWeighted`] in the paper,
//! of [`MeanBits`] in the code released with it. [`CostKind`] is the form of a cost model in configuration.

#![warn(clippy::cast_possible_truncation)]

mod bit_operations;
mod bit_operations_nncf;
mod bit_serial_cpu;
#[cfg(test)]
mod conformance;
mod constant_power;
mod cost_weighted;
mod cpu_latency;
mod dadiannao;
mod energy;
mod error;
mod kind;
mod layer_table;
mod limit;
mod mean_bits;
mod memory_traffic;
mod model_size;
mod price;
mod report;
mod roofline;
mod speedup;
mod stripes;
mod weighted_sum;

pub use bit_operations::BitOperations;
pub use bit_operations_nncf::BitOperationsNncf;
pub use bit_serial_cpu::{BitSerialCpu, Packing, Polarity};
pub use constant_power::ConstantPower;
pub use cost_weighted::CostWeighted;
pub use cpu_latency::{
    CpuKernels, CpuLatency, CpuNetwork, LatencyConfig, LatencyError, LatencyRow, LatencyTable,
    Machine, Timing, time_interleaved,
};
pub use dadiannao::DaDianNao;
pub use energy::{Energy, EnergyPj};
pub use error::HwError;
pub use kind::{CostKind, WeightedTerm};
pub use layer_table::read_layers;
pub use limit::{Bound, CostLimit, LimitConfig, LimitUsage};
pub use mean_bits::MeanBits;
pub use memory_traffic::{MemoryTraffic, TrafficBits};
pub use model_size::{ModelSize, ScaleStorage};
pub use report::{CostReport, Costs, LayerCosts, ModelCosts, Unpriced, cost_report};
pub use roofline::{PeakScaling, Roofline};
pub use speedup::{speedup, uniform, weights_only, with_activations};
pub use stripes::{FullyConnected, SerialOperand, Stripes, StripesConfig};
pub use weighted_sum::WeightedSum;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
