#![doc = include_str!("../README.md")]

mod bitwidth;
mod cost;
mod network;
mod profile;
mod weights;

pub use bitwidth::{Bitwidth, BitwidthAssignment, BitwidthError};
pub use cost::{Cost, CostError, CostModel, LayerBits};
pub use network::{Conv2d, Network, NetworkBuilder, NetworkError, Node, Op, Pool2d, Shape};
pub use profile::{LayerKind, LayerProfile};
pub use weights::{
    Parameter, ParameterRole, Weights, WeightsError, layer_parameters, parameter_shapes, weight_std,
};
