//! Where trainers come from.

use std::{fmt, sync::Arc};

use releq_core::{Network, text_enum};
use releq_kernels::{FloatPrecision, Isa};
use releq_quant::Quantizer;
use serde::{Deserialize, Serialize};

use crate::{BurnTrainer, NativeTrainer, TrainError, Trainer};

/// Makes trainers, one for each worker of a search.
///
/// [`trainer_fn`] makes one from a function.
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

/// A factory from a function, for trainers of one's own.
///
/// ```
/// use releq_train::{Backend, TrainerFactory, trainer_fn};
///
/// let loud = trainer_fn(|network, quantizer| {
///     println!("a trainer of {}", network.name());
///     Backend::Native.trainer(network, quantizer)
/// });
/// ```
pub const fn trainer_fn<F>(make: F) -> TrainerFn<F>
where
    F: Fn(&Network, Arc<dyn Quantizer>) -> Result<Box<dyn Trainer>, TrainError> + Send + Sync,
{
    TrainerFn(make)
}

/// A [`TrainerFactory`] that calls a function; made by [`trainer_fn`].
#[derive(Clone, Copy)]
pub struct TrainerFn<F>(F);

impl<F> fmt::Debug for TrainerFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrainerFn").finish_non_exhaustive()
    }
}

impl<F> TrainerFactory for TrainerFn<F>
where
    F: Fn(&Network, Arc<dyn Quantizer>) -> Result<Box<dyn Trainer>, TrainError> + Send + Sync,
{
    fn trainer(
        &self,
        network: &Network,
        quantizer: Arc<dyn Quantizer>,
    ) -> Result<Box<dyn Trainer>, TrainError> {
        self.0(network, quantizer)
    }
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
    /// The same with products of convolutions and fully connected layers in bf16, on processors with AVX512-BF16.
    NativeBf16,
    /// [`BurnTrainer`] on Burn's `flex` CPU backend.
    Flex,
    /// [`BurnTrainer`] on Burn's `ndarray` CPU backend; needs the Cargo feature of this name.
    Ndarray,
    /// [`BurnTrainer`] on a GPU, by Burn's `wgpu` backend; needs the Cargo feature of this name.
    Wgpu,
}

text_enum!(Backend, "backend",
    Native => "native",
    NativeBf16 => "native-bf16",
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
            Self::NativeBf16 => {
                let (isa, precision) = (Isa::best(), FloatPrecision::Bf16);
                if isa == Isa::Portable {
                    // It is there to be compared with, and far slower than f32.
                    let reason = "this processor has no products of bf16".to_owned();
                    return Err(TrainError::Device { backend: "native-bf16", reason });
                }
                Box::new(NativeTrainer::with_precision(network, quantizer, isa, precision)?)
            }
            Self::Flex => Box::new(BurnTrainer::flex(network, quantizer)?),
            Self::Ndarray => Box::new(BurnTrainer::ndarray(network, quantizer)?),
            Self::Wgpu => Box::new(BurnTrainer::wgpu(network, quantizer)?),
        })
    }
}
