//! The words that the ReLeQ workspace shares: [`Bitwidth`] and [`BitwidthAssignment`], a [`Network`]
//! as plain data with shape inference, the [`LayerProfile`]s read off it, and the [`CostModel`] seam.
//!
//! Nothing here holds a tensor or reads a file, and everything is `serde`-serializable.
//!
//! ```
//! use releq_core::{BitwidthAssignment, Network};
//!
//! let network = Network::builder("tiny", [1, 28, 28])
//!     .conv2d("conv1", 8, 5)
//!     .relu("relu1")
//!     .max_pool("pool1", 2, 2)
//!     .flatten("flatten")
//!     .linear("fc", 10)
//!     .build()?;
//! let profiles = network.profiles();
//! assert_eq!(profiles[0].macs(), 24 * 24 * 8 * 25);
//!
//! let bits: BitwidthAssignment = "3-4".parse()?;
//! assert_eq!(bits.mean(), 3.5);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod bitwidth;
mod cost;
mod network;
mod profile;

pub use bitwidth::{Bitwidth, BitwidthAssignment, BitwidthError};
pub use cost::{Cost, CostError, CostModel, LayerBits};
pub use network::{Conv2d, Network, NetworkBuilder, NetworkError, Node, Op, Pool2d, Shape};
pub use profile::{LayerKind, LayerProfile};
