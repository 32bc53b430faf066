//! Measuring sensitivities.

use releq_core::{Bitwidth, BitwidthAssignment, parallel};
use releq_train::{Compared, TrainError};

use super::{LayerSensitivity, Sensitivities, Sensitivity};
use crate::{
    Problem, ReleqError,
    evaluate::{RetrainSetup, TrainerPool},
    guard::guard,
};

impl Sensitivities {
    /// Measures the searched layers of `problem` on the validation images of `setup`, as many side by side as it has
    /// threads. `on_done` is told the layer's name and what was measured of it, each in any order.
    ///
    /// # Errors
    /// [`ReleqError`] if weights, images and network do not fit together; [`ReleqError::Cancelled`].
    pub fn measure(
        setup: &RetrainSetup<'_>,
        problem: &Problem,
        on_done: &(dyn Fn(&str, &Sensitivity) + Sync),
    ) -> Result<Self, ReleqError> {
        Self::measure_rest(setup, problem, &|_, _| None, &|layer, sensitivity| {
            on_done(&problem.layers()[layer].profile.name, sensitivity);
            Ok(())
        })
    }

    /// As [`measure`](Self::measure), but what is `known` of a layer at a bitwidth is not measured again.
    pub(crate) fn measure_rest(
        setup: &RetrainSetup<'_>,
        problem: &Problem,
        known: &(dyn Fn(usize, Bitwidth) -> Option<Compared> + Sync),
        on_done: &(dyn Fn(usize, &Sensitivity) -> Result<(), ReleqError> + Sync),
    ) -> Result<Self, ReleqError> {
        let pool = TrainerPool::new(*setup);
        let piece = || "trainer".to_owned();
        let all_known = problem.searched().iter().all(|&layer| {
            problem.actions_of(layer).iter().all(|&bits| known(layer, bits).is_some())
        });
        let reference = match all_known {
            true => Vec::new(),
            false => guard(piece, || pool.reference())?,
        };
        let alone = |layer: usize, bits: Bitwidth| {
            let mut all = vec![Bitwidth::FLOAT; problem.layers().len()];
            all[layer] = bits;
            BitwidthAssignment::new(all)
        };
        let mut wanted = Vec::new();
        for &layer in problem.searched() {
            for &bits in problem.actions_of(layer) {
                wanted.push((layer, bits, alone(layer, bits)?));
            }
        }
        let measured = parallel::try_map(wanted.iter(), setup.threads.get(), |asked| {
            let (layer, bits, alone) = asked;
            if let Some(compared) = known(*layer, *bits) {
                return Ok(Sensitivity { bits: *bits, compared });
            }
            let compared = guard(piece, || {
                pool.with(|trainer| {
                    trainer.set_bits(Some(alone))?;
                    pool.compared(trainer, &reference)
                })
            });
            let compared = match compared {
                Err(ReleqError::Train(TrainError::NotANumber { .. })) => Compared::not_a_number(),
                compared => compared?,
            };
            let sensitivity = Sensitivity { bits: *bits, compared };
            on_done(*layer, &sensitivity)?;
            Ok::<_, ReleqError>(sensitivity)
        })?;
        let mut measured = measured.into_iter();
        let layers = problem.searched().iter().map(|&layer| LayerSensitivity {
            layer,
            name: problem.layers()[layer].profile.name.clone(),
            bits: measured.by_ref().take(problem.actions_of(layer).len()).collect(),
        });
        Ok(Self { images: setup.validation.len(), layers: layers.collect() })
    }
}
