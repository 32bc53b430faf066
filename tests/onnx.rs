//! ONNX models, computed by both trainers, against the outputs that PyTorch and ONNX Runtime give for them.
//!
//! The models in `golden/onnx` come from `golden/make_onnx.py`: both exporters of PyTorch with and without batch norms, and
//! models as Keras, Paddle and Caffe2 write them.
#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use releq::{
    data::npz,
    format::onnx::{self, Batch, End, Layout, Model, Remark},
    quant::QuantizerKind,
    train::{BurnTrainer, NativeTrainer, Trainer},
};
use releq_test_support::data_dir;

/// Largest difference of a logit, as a share of how far logits differ from image to image.
const TOLERANCE: f32 = 5e-4;

fn golden() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden/onnx")
}

fn open(name: &str) -> Model {
    onnx::open(golden().join(name).with_extension("onnx")).unwrap()
}

/// All models of a folder.
fn models(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let mut models: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    models.retain(|path| path.extension().is_some_and(|extension| extension == "onnx"));
    models.sort();
    models
}

/// Mean over the classes of the deviation over the images.
fn spread(logits: &[f32], classes: usize) -> f32 {
    let images = (logits.len() / classes) as f32;
    let deviation = |class: usize| {
        let of = || logits.iter().skip(class).step_by(classes);
        let mean = of().sum::<f32>() / images;
        (of().map(|logit| (logit - mean).powi(2)).sum::<f32>() / images).sqrt()
    };
    (0..classes).map(deviation).sum::<f32>() / classes as f32
}

/// Fails where a trainer gives other outputs than are beside the model.
fn check(path: &Path) {
    let model = onnx::open(path).unwrap();
    model.weights.check(&model.network).unwrap();
    let arrays = path.with_extension("npz");
    let (images, expected) =
        (npz::read(&arrays, "x").unwrap(), npz::read(&arrays, "logits").unwrap());
    let classes = model.network.outputs();
    assert_eq!(expected.shape, [images.shape[0], classes], "{}", path.display());
    let spread = spread(&expected.values, classes);
    let quantizer = || QuantizerKind::Wrpn.build();
    let trainers: [Box<dyn Trainer>; 2] = [
        Box::new(NativeTrainer::new(&model.network, quantizer()).unwrap()),
        Box::new(BurnTrainer::flex(&model.network, quantizer()).unwrap()),
    ];
    for (mut trainer, kind) in trainers.into_iter().zip(["native", "burn"]) {
        trainer.load(&model.weights).unwrap();
        let mut logits = trainer.logits(&images.values).unwrap();
        logits.chunks_exact_mut(classes).for_each(|image| model.frame.end.apply(image));
        let differences =
            logits.iter().zip(&expected.values).map(|(got, expected)| (got - expected).abs());
        let most = differences.fold(0.0, f32::max) / spread;
        assert!(most <= TOLERANCE, "{} on {kind}: {most:e} of the spread", path.display());
    }
}

#[test]
fn models_of_all_exporters_give_their_logits_on_both_trainers() {
    let models = models(&golden());
    assert_eq!(models.len(), 16);
    models.iter().for_each(|path| check(path));
}

#[test]
fn models_beside_the_data_give_their_logits_on_both_trainers() {
    let Some(folder) = data_dir().map(|data| data.join("../cases/onnx")) else { return };
    models(&folder).iter().for_each(|path| check(path));
}

#[test]
fn forms_of_input_and_output_are_kept() {
    let of = |name: &str| {
        let frame = open(name).frame;
        (frame.layout, frame.batch, frame.end, frame.opset)
    };
    let symbol = |name: &str| Batch::Any(Some(name.to_owned()));
    let first = Layout::ChannelsFirst;
    assert_eq!(of("plain_legacy"), (first, symbol("batch"), End::Logits, 13));
    assert_eq!(of("mlp_softmax_dynamo"), (first, Batch::Fixed(1), End::Softmax, 20));
    assert_eq!(of("functions_legacy"), (first, symbol("batch"), End::LogSoftmax, 17));
    let keras = (Layout::ChannelsLast, symbol("batch"), End::Softmax, 13);
    assert_eq!(of("keras_channels_last"), keras);
    assert_eq!(of("paddle_constants"), (first, Batch::Any(None), End::Logits, 11));
    let Model { network, frame, .. } = open("plain_legacy");
    assert_eq!((frame.input.as_str(), frame.output.as_str()), ("input", "logits"));
    assert!(frame.producer.starts_with("pytorch 2."), "{}", frame.producer);
    // Layers have the names of the modules, and parameters know where they are from.
    let names = ["conv1", "Relu", "MaxPool", "conv2", "Relu_1", "MaxPool_1", "flatten", "fc1"];
    assert!(network.nodes().iter().map(|node| node.name.as_str()).take(8).eq(names));
    assert_eq!(frame.origins["fc2.weight"], "fc2.weight");
    assert!(open("mlp_softmax_dynamo").network.has_softmax());
}

#[test]
fn norms_that_an_exporter_kept_are_found_and_folded_ones_are_remarked() {
    let norms = |name: &str| {
        let Model { network, remarks, .. } = open(name);
        let norms = network.nodes().iter().filter(|node| node.op.kind() == "batch_norm").count();
        (norms, remarks)
    };
    assert_eq!(norms("residual_b_kept_legacy"), (4, vec![]));
    assert_eq!(norms("residual_b_kept_dynamo"), (4, vec![]));
    assert_eq!(norms("residual_a_legacy"), (0, vec![Remark::NoNorms]));
    // A scale after a norm is part of it, and two norms may have the same constants.
    assert_eq!(norms("caffe_inputs"), (2, vec![]));
    let remark = Remark::NoNorms.to_string();
    for part in ["do_constant_folding=False", "TrainingMode.PRESERVE", "optimize=False"] {
        assert!(remark.contains(part), "{remark}");
    }
}

#[test]
fn functions_that_are_written_with_several_nodes_are_one_layer() {
    let kinds = |name: &str| -> Vec<String> {
        let layers = open(name).network;
        let text = |op| match op {
            releq::core::Op::Activation(function) => function.name().to_owned(),
            op => op.kind().to_owned(),
        };
        layers.nodes().iter().map(|node| text(node.op)).collect()
    };
    let paddle = [
        "conv2d",
        "batch_norm",
        "hard_swish",
        "conv2d",
        "global_avg_pool",
        "linear",
        "hard_sigmoid",
        "mul",
        "global_avg_pool",
        "linear",
    ];
    assert_eq!(kinds("paddle_constants"), paddle);
    assert!(kinds("silu_gates_dynamo").contains(&"silu".to_owned()));
    assert!(kinds("functions_legacy").contains(&"gelu".to_owned()));
    assert!(kinds("residual_a_legacy").contains(&"padded_shortcut".to_owned()));
    assert!(kinds("shuffle_dynamo").contains(&"channel_shuffle".to_owned()));
    // Pixels that are normalized channel by channel, and put together again.
    assert_eq!(kinds("shuffle_legacy")[0], "scale_shift");
}
