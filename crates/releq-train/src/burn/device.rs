//! Burn devices that not every build or machine has.

use burn::tensor::Device;

use crate::TrainError;

/// The `ndarray` backend, on the CPU.
#[cfg(feature = "ndarray")]
#[expect(clippy::unnecessary_wraps, reason = "fails without the feature")]
pub(super) fn ndarray() -> Result<Device, TrainError> {
    #[expect(deprecated, reason = "whoever asks for it by name gets it, as long as Burn has it")]
    Ok(Device::ndarray())
}

#[cfg(not(feature = "ndarray"))]
pub(super) fn ndarray() -> Result<Device, TrainError> {
    Err(not_built("ndarray"))
}

/// The GPU that `wgpu` prefers; the same one for all who ask.
#[cfg(feature = "wgpu")]
pub(super) fn wgpu() -> Result<Device, TrainError> {
    use std::sync::OnceLock;

    // Burn can make it only once, and panics where the first tensor would have to.
    static DEVICE: OnceLock<Result<Device, String>> = OnceLock::new();
    DEVICE
        .get_or_init(|| Device::wgpu_options().init().map_err(|error| error.to_string()))
        .clone()
        .map_err(|reason| TrainError::Device { backend: "wgpu", reason })
}

#[cfg(not(feature = "wgpu"))]
pub(super) fn wgpu() -> Result<Device, TrainError> {
    Err(not_built("wgpu"))
}

#[cfg(not(all(feature = "ndarray", feature = "wgpu")))]
fn not_built(backend: &'static str) -> TrainError {
    let reason = format!("not part of this build; build with `--features {backend}`");
    TrainError::Device { backend, reason }
}

#[cfg(all(test, any(feature = "ndarray", feature = "wgpu")))]
mod tests {
    use super::*;
    use crate::{BurnTrainer, oracle};

    #[expect(clippy::unwrap_used, reason = "the helper of a test fails as the test does")]
    fn check(device: fn() -> Result<Device, TrainError>) {
        oracle::check_trainer(&oracle::networks(), &mut |network, quantizer| {
            let device = device().unwrap();
            Box::new(BurnTrainer::new(network, quantizer.build(), device).unwrap())
        });
    }

    #[cfg(feature = "ndarray")]
    #[test]
    fn ndarray_conforms() {
        check(ndarray);
    }

    /// Needs an adapter; on a machine without a GPU, Mesa's software Vulkan is one.
    #[cfg(feature = "wgpu")]
    #[test]
    fn wgpu_conforms() {
        check(wgpu);
    }
}
