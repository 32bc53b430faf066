//! What a run found, as a network that can be taken away.

use std::{collections::BTreeMap, path::Path};

use releq_core::Network;
use releq_format::{
    QuantizedNetwork,
    onnx::{self, Frame},
    packed, safetensors,
};
use releq_quant::ActivationGrid;

use super::{
    BEST, FINALS, METADATA, RunFolder, RunFolderError, WeightsOrigin, finished_report,
    journal::Journal, manifest::Manifest, records::FinalRecord,
};
use crate::{Choice, ExperimentConfig, ReleqError, Report, WeightsConfig, plain::Plain};

/// The answer of a run: the network with its retrained weights at the bitwidths that were found.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RunAnswer {
    /// The network.
    pub model: QuantizedNetwork,
    /// Grids of the activations whose bitwidths were found, by the layer whose values they are for, `input` for the network's
    /// input. None where activations were not searched.
    pub activations: BTreeMap<String, ActivationGrid>,
    /// Names and forms of the model that the run began with, if it is still there; `None` for a network that is from
    /// none.
    pub frame: Option<Frame>,
    /// Accuracy of these very weights on the validation and the test images, in 0 to 1. The report's row of the answer has the
    /// mean of all seeds. `None` where the run has no record of it.
    pub accuracies: Option<[f64; 2]>,
    /// All of what the run found.
    pub report: Report,
}

impl RunFolder {
    /// The answer of the run in a folder, which has come to its end.
    ///
    /// # Errors
    /// [`RunFolderError::NoAnswer`] before the end, or if no retrain came to its end; files that cannot be read; a
    /// quantizer of one's own, or one without integer codes.
    pub fn answer_of(path: impl AsRef<Path>) -> Result<RunAnswer, ReleqError> {
        let path = path.as_ref();
        let config = Self::config_of(path)?;
        let none = |reason: String| RunFolderError::NoAnswer { path: path.to_owned(), reason };
        let report = finished_report(path)?.ok_or_else(|| {
            let path = path.display();
            none(format!("it has not come to its end; `releq resume {path}` goes on with it"))
        })?;
        let Some(answer) = &report.answer else {
            return Err(none("no long retrain came to its end".to_owned()).into());
        };
        let Choice::Ours(quantizer) = &config.quantizer else {
            return Err(none(format!(
                "its weights are quantized by `{}`, which only the program that has it can do",
                config.quantizer
            ))
            .into());
        };
        let network = match &config.network {
            Some(network) => network.build()?,
            None => return Err(none("its settings name no network".to_owned()).into()),
        };
        let weights = path.join(BEST);
        let damaged = |reason: String| RunFolderError::Damaged {
            path: weights.clone(),
            reason,
            remedy: "delete it, and `releq resume` makes it again",
        };
        let (tensors, metadata) = safetensors::read_tensors(&weights)
            .map_err(|_| damaged("its checksum is of other content, or it is cut short".into()))?;
        let origin = metadata.get(METADATA).map(|text| serde_json::from_str(text));
        let origin: Option<WeightsOrigin> =
            origin.transpose().map_err(|error: serde_json::Error| damaged(error.to_string()))?;
        let bits = answer.bits.to_string();
        let run = Manifest::load(path)?.map(|manifest| manifest.identity());
        let (of_run, of_bits) = origin.map(|origin| (origin.run, origin.bits)).unzip();
        if of_run != run {
            return Err(damaged("it is another run's".to_owned()).into());
        }
        if of_bits.flatten().as_ref() != Some(&bits) {
            return Err(damaged(format!("it has not the weights of the answer, {bits}")).into());
        }
        let frame = frame_of(&config, &network);
        let weights = releq_core::Weights(tensors);
        weights.check(&network)?;
        let plain = Plain::of(&network, weights, &answer.bits)?;
        let Plain { network, weights, bits, grids: activations } = plain;
        let model = QuantizedNetwork::new(network, weights, &bits, &*quantizer.build())?;
        // The weights that are kept are those of the first seed; where they were lost and made again, of its last retrain.
        let run = run.unwrap_or_default();
        let finals: Vec<FinalRecord> = Journal::read(&path.join(FINALS), &run)
            .inspect_err(|error| log::warn!("{error}"))
            .unwrap_or_default();
        let of_weights = finals.iter().rfind(|done| done.seed == 0 && done.bits == answer.bits);
        let accuracies = of_weights
            .and_then(|done| done.retrained().ok())
            .map(|sets| sets.map(|hits| hits.report().accuracy()));
        Ok(RunAnswer { model, activations, frame, accuracies, report })
    }
}

/// The frame of the model that a run began with.
fn frame_of(config: &ExperimentConfig, network: &Network) -> Option<Frame> {
    let Some(Choice::Ours(WeightsConfig::File(path))) = &config.weights else { return None };
    let (model, frame) = match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
        "onnx" => {
            let model = onnx::open(path).inspect_err(|error| log::warn!("{error}")).ok()?;
            (model.network, model.frame)
        }
        "safetensors" => {
            let packed = packed::load(path).ok()?;
            (packed.model.network().clone(), packed.frame)
        }
        _ => return None,
    };
    // A run may have given the network another name, and another head.
    let model = match network.rounds_activations() {
        true => model.with_fake_quantize().ok()?,
        false => model,
    };
    (model.nodes() == network.nodes() && model.input() == network.input()).then_some(frame)
}
