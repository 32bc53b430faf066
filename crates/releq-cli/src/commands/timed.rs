//! Networks on this machine's kernels, timed beside each other.

use std::{num::NonZeroUsize, time::Duration};

use anyhow::Result;
use releq::{
    core::{LayerBits, LayerKind, LayerProfile},
    hw::{CpuKernels, CpuNetwork, Timing, time_interleaved},
};
use releq_kernels::Isa;

use crate::args::options;

/// How long one measurement is, at least one inference.
const SAMPLE: Duration = Duration::from_millis(5);

/// How often a command times each variant.
#[derive(clap::Args, Clone, Copy, Debug)]
pub(super) struct RepeatsArg {
    /// Number of times to time each variant
    #[arg(
        long,
        value_name = "N",
        default_value = "11",
        value_parser = options::repeats,
        allow_negative_numbers = true
    )]
    pub(super) repeats: NonZeroUsize,
}

/// How networks are timed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timed {
    pub(super) isa: Isa,
    /// Threads that compute a layer.
    pub(super) threads: NonZeroUsize,
    pub(super) repeats: NonZeroUsize,
}

impl Timed {
    /// Times of a network with each of `variants`, of which all run in turn. Bit-serial kernels leave depthwise
    /// convolutions out, for there are none.
    ///
    /// # Errors
    /// If there is no kernel for a layer.
    pub(super) fn run(
        self,
        layers: &[LayerProfile],
        variants: &[(CpuKernels, Vec<LayerBits>)],
    ) -> Result<Vec<Timing>> {
        let prepare = |(kernels, bits): &(CpuKernels, Vec<LayerBits>)| {
            let chosen = layers.iter().zip(bits);
            let (layers, bits): (Vec<LayerProfile>, Vec<LayerBits>) = chosen
                .filter(|(layer, _)| *kernels != CpuKernels::BitSerial || is_dense(layer))
                .map(|(layer, bits)| (layer.clone(), *bits))
                .unzip();
            CpuNetwork::new(&layers, &bits, *kernels, self.isa, self.threads)
        };
        let mut networks = variants.iter().map(prepare).collect::<Result<Vec<_>, _>>()?;
        let mut runs: Vec<_> = networks.iter_mut().map(|network| || network.run()).collect();
        let mut runs: Vec<&mut dyn FnMut()> =
            runs.iter_mut().map(|run| run as &mut dyn FnMut()).collect();
        Ok(time_interleaved(&mut runs, self.repeats, SAMPLE))
    }
}

/// Whether there is a bit-serial kernel for a layer.
pub(super) fn is_dense(layer: &LayerProfile) -> bool {
    layer.kind != LayerKind::DepthwiseConv2d
}
