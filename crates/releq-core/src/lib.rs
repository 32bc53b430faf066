#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod atomic_file;
mod bitwidth;
mod causes;
mod checksum;
mod cost;
mod names;
mod network;
pub mod parallel;
mod profile;
#[cfg(feature = "sealed")]
pub mod sealed;
mod settings;
mod stand_in;
#[cfg(feature = "tables")]
pub mod tables;
#[cfg(any(test, feature = "testing"))]
mod testing;
pub mod text;
mod weights;

pub use bitwidth::{Bitwidth, BitwidthAssignment, BitwidthError};
pub use causes::with_causes;
pub use checksum::Checksum;
pub use cost::{Cost, CostError, CostModel, LayerBits, checked_network_cost};
pub use names::UnknownName;
pub use network::{
    Activation, Axes, Conv2d, Network, NetworkBuilder, NetworkError, Node, Op, Pool2d, Shape, Sides,
};
pub use profile::{LayerKind, LayerProfile, Operands};
#[doc(hidden)]
pub use settings::Named;
pub use stand_in::StandIn;
#[cfg(any(test, feature = "testing"))]
pub use testing::{NetworkCost, check_cost_model, sample_layers};
pub use weights::{
    Parameter, ParameterRole, UNKNOWN_RANGE, Weights, WeightsError, layer_parameters,
    parameter_shapes, trainable_shapes, weight_std,
};
