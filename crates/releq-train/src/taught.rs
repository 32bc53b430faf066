//! Learning from another network's outputs in place of the labels.

use releq_core::{BitwidthAssignment, Network, Weights};

use crate::{Batch, Moments, Sgd, Target, TrainError, Trainer, TrainerState};

/// A trainer whose every step learns from a teacher: labels are replaced by what the teacher makes of the images.
///
/// The teacher stays as it is. Usually it is the same network in full precision, and the loss then says how far
/// quantization moved the outputs. A step costs a forward pass more.
///
/// # Source
/// Hinton, Vinyals and Dean 2015 (arXiv 1503.02531), at temperature 1.
#[derive(Debug)]
pub struct Taught<S, T> {
    student: S,
    teacher: T,
}

impl<S: Trainer, T: Trainer> Taught<S, T> {
    /// Lets `student` learn from `teacher`, which has its weights already.
    ///
    /// # Errors
    /// [`TrainError::Unsupported`] unless the two take the same images and have equally many outputs.
    pub fn new(student: S, teacher: T) -> Result<Self, TrainError> {
        let (own, other) = (student.network(), teacher.network());
        if own.input() == other.input() && own.outputs() == other.outputs() {
            return Ok(Self { student, teacher });
        }
        let what = format!(
            "a teacher from {:?} to {} outputs, where the student has {:?} and {}",
            other.input(),
            other.outputs(),
            own.input(),
            own.outputs()
        );
        let layer = other.name().to_owned();
        Err(TrainError::Unsupported { layer, trainer: "taught", what })
    }
}

impl<S: Trainer, T: Trainer> Trainer for Taught<S, T> {
    fn network(&self) -> &Network {
        self.student.network()
    }

    fn set_bits(&mut self, bits: Option<&BitwidthAssignment>) -> Result<(), TrainError> {
        self.student.set_bits(bits)
    }

    fn train_step(&mut self, batch: &Batch<'_>, optimizer: Sgd) -> Result<f32, TrainError> {
        batch.check(self.network())?;
        match batch.target {
            Target::Labels(_) => {
                let logits = self.teacher.logits(batch.images)?;
                self.student.train_step(&Batch::taught(batch.images, &logits), optimizer)
            }
            Target::Teacher(_) => self.student.train_step(batch, optimizer),
        }
    }

    fn logits(&mut self, images: &[f32]) -> Result<Vec<f32>, TrainError> {
        self.student.logits(images)
    }

    fn moments(
        &mut self,
        images: &[f32],
        restore: Option<&[Moments]>,
    ) -> Result<Vec<Moments>, TrainError> {
        self.student.moments(images, restore)
    }

    fn snapshot(&self) -> TrainerState {
        self.student.snapshot()
    }

    fn restore(&mut self, state: &TrainerState) -> Result<(), TrainError> {
        self.student.restore(state)
    }

    fn load(&mut self, weights: &Weights) -> Result<(), TrainError> {
        self.student.load(weights)
    }

    fn weights(&self) -> Weights {
        self.student.weights()
    }
}

#[cfg(test)]
mod tests {
    use releq_quant::QuantizerKind;

    use super::*;
    use crate::{NativeTrainer, initial_weights, oracle::lenet};

    fn trainer(seed: u64) -> NativeTrainer {
        let mut trainer = NativeTrainer::new(&lenet(), QuantizerKind::Wrpn.build()).unwrap();
        trainer.load(&initial_weights(&lenet(), seed)).unwrap();
        trainer
    }

    #[test]
    fn labels_give_way_to_the_teachers_outputs() {
        let sgd = Sgd { learning_rate: 0.05, momentum: 0.9, weight_decay: 0.0 };
        let images: Vec<f32> = (0..3 * 28 * 28).map(|i| (i % 7) as f32 / 7.0).collect();
        let mut taught = Taught::new(trainer(1), trainer(2)).unwrap();
        let (mut by_hand, mut teacher) = (trainer(1), trainer(2));
        for labels in [[0, 1, 2], [5, 5, 5]] {
            let logits = teacher.logits(&images).unwrap();
            let expected = by_hand.train_step(&Batch::taught(&images, &logits), sgd).unwrap();
            let got = taught.train_step(&Batch::labelled(&images, &labels), sgd).unwrap();
            assert_eq!(got, expected);
        }
        assert_eq!(taught.snapshot(), by_hand.snapshot());
        assert_eq!(taught.logits(&images).unwrap(), by_hand.logits(&images).unwrap());
        let refused = taught.train_step(&Batch::labelled(&images, &[0, 1, 10]), sgd).unwrap_err();
        assert!(matches!(refused, TrainError::Label { label: 10, .. }), "{refused}");
    }

    #[test]
    fn a_teacher_has_as_many_outputs() {
        let other = releq_core::Network::builder("other", [1, 28, 28])
            .flatten("flat")
            .linear("fc", 7)
            .build()
            .unwrap();
        let teacher = NativeTrainer::new(&other, QuantizerKind::Wrpn.build()).unwrap();
        let refused = Taught::new(trainer(1), teacher).unwrap_err().to_string();
        assert!(refused.contains("`other`") && refused.contains('7'), "{refused}");
    }
}
