//! Where trainers come from.

use std::sync::Arc;

use releq_core::{Network, text_enum};
use releq_quant::Quantizer;
use serde::{Deserialize, Serialize};

use crate::{BurnTrainer, NativeTrainer, TrainError, Trainer};

/// Makes trainers, one for each worker of a search.
///
/// ```
/// use std::sync::Arc;
///
/// use releq_core::Network;
/// use releq_quant::Quantizer;
/// use releq_train::{Backend, TrainError, Trainer, TrainerFactory};
///
/// /// Says which networks it is asked for.
/// struct Loud;
///
/// impl TrainerFactory for Loud {
///     fn trainer(
///         &self,
///         network: &Network,
///         quantizer: Arc<dyn Quantizer>,
///     ) -> Result<Box<dyn Trainer>, TrainError> {
///         println!("a trainer of {}", network.name());
///         Backend::Native.trainer(network, quantizer)
///     }
/// }
/// ```
pub trait TrainerFactory: Send + Sync {
    /// A trainer of `network` whose weights are quantized by `quantizer` once bitwidths are set.
    ///
    /// # Errors
    /// [`TrainError::Unsupported`] for a network that the trainer does not cover, [`TrainError::Device`] if
    /// this build or this machine lacks the device.
    fn trainer(
        &self,
        network: &Network,
        quantizer: Arc<dyn Quantizer>,
    ) -> Result<Box<dyn Trainer>, TrainError>;
}

macro_rules! forward {
    ($($type:ty),+) => {$(
        impl<F: TrainerFactory + ?Sized> TrainerFactory for $type {
            fn trainer(
                &self,
                network: &Network,
                quantizer: Arc<dyn Quantizer>,
            ) -> Result<Box<dyn Trainer>, TrainError> {
                (**self).trainer(network, quantizer)
            }
        }
    )+};
}
forward!(&F, Box<F>, Arc<F>);

/// The trainers of this crate, by name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[non_exhaustive]
pub enum Backend {
    /// [`NativeTrainer`] on one thread of the CPU, several times faster on small networks.
    #[default]
    Native,
    /// [`BurnTrainer`] on Burn's `flex` CPU backend.
    Flex,
    /// [`BurnTrainer`] on Burn's `ndarray` CPU backend; needs the Cargo feature of this name.
    Ndarray,
    /// [`BurnTrainer`] on a GPU, by Burn's `wgpu` backend; needs the Cargo feature of this name.
    Wgpu,
}

text_enum!(Backend, "backend",
    Native => "native",
    Flex => "flex",
    Ndarray => "ndarray",
    Wgpu => "wgpu",
);

impl TrainerFactory for Backend {
    fn trainer(
        &self,
        network: &Network,
        quantizer: Arc<dyn Quantizer>,
    ) -> Result<Box<dyn Trainer>, TrainError> {
        Ok(match self {
            Self::Native => Box::new(NativeTrainer::new(network, quantizer)?),
            Self::Flex => Box::new(BurnTrainer::flex(network, quantizer)?),
            Self::Ndarray => Box::new(BurnTrainer::ndarray(network, quantizer)?),
            Self::Wgpu => Box::new(BurnTrainer::wgpu(network, quantizer)?),
        })
    }
}
