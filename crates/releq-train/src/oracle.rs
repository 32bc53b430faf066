//! What every [`Trainer`] must do, checked against [`BurnTrainer`] on networks of all operations.

use burn::tensor::Device;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use releq_core::{
    Activation, Axes, BitwidthAssignment, Conv2d, Network, NetworkBuilder, Op, Parameter, Pool2d,
    Weights, WeightsError,
};
use releq_quant::QuantizerKind;

use crate::{Batch, BurnTrainer, Sgd, TrainError, Trainer, initial_weights};
use releq_data::Label;

/// Single-precision sums in another order: 24 bits, some thousand terms, a few steps.
const LOSS_TOLERANCE: f32 = 2e-5;
/// As above; batch norm over a few values amplifies it.
const VALUE_TOLERANCE: f32 = 1e-4;

/// Makes the trainer under test.
pub(crate) type Make<'a> = dyn FnMut(&Network, QuantizerKind) -> Box<dyn Trainer> + 'a;

/// LeNet as `releq-zoo` has it.
pub(crate) fn lenet() -> Network {
    Network::builder("lenet", [1, 28, 28])
        .conv2d("conv1", 20, 5)
        .relu("relu1")
        .max_pool("pool1", 2, 2)
        .conv2d("conv2", 50, 5)
        .relu("relu2")
        .max_pool("pool2", 2, 2)
        .flatten("flatten")
        .linear("fc1", 500)
        .relu("relu3")
        .linear("fc2", 10)
        .build()
        .unwrap()
}

/// Small networks that together hold every operation in every variant.
pub(crate) fn networks() -> Vec<Network> {
    let pool =
        |kernel: usize, stride: usize, padding: usize| Pool2d::new(kernel, stride).padding(padding);
    let plain = Network::builder("plain", [1, 12, 12])
        .conv2d("conv1", 4, 3)
        .relu("relu1")
        .max_pool("pool1", 2, 2)
        .conv2d("conv2", 6, 3)
        .relu("relu2")
        .flatten("flatten")
        .linear("fc1", 12)
        .relu("relu3")
        .linear("fc2", 5);
    let strided = Network::builder("strided", [3, 9, 11])
        .conv("conv1", Conv2d::new(8, 3).stride(2).padding(1))
        .relu("relu1")
        .conv("grouped", Conv2d::new(6, 3).padding(2).groups(2))
        .layer("pool1", Op::MaxPool(pool(3, 2, 1)), &[])
        .conv("depthwise", Conv2d::new(6, 3).padding(1).groups(6).without_bias())
        .conv("pointwise", Conv2d::new(7, 1).without_bias())
        .layer("pool2", Op::AvgPool(pool(3, 2, 1)), &[])
        .flatten("flatten")
        .layer("fc", Op::Linear { out_features: 4, bias: false }, &[]);
    let residual = Network::builder("residual", [2, 8, 8])
        .conv("conv1", Conv2d::new(4, 3).padding(1).without_bias())
        .batch_norm("bn1")
        .relu("relu1")
        .conv("conv2", Conv2d::new(6, 3).stride(2).padding(1).without_bias())
        .layer("bn2", Op::BatchNorm { epsilon: 1e-3, momentum: 0.25 }, &[])
        .conv("shortcut", Conv2d::new(6, 1).stride(2).without_bias())
        .from("relu1")
        .add("sum", &["bn2", "shortcut"])
        .relu("relu2")
        .add("twice", &["sum", "relu2", "relu2"])
        .avg_pool("pool", 2, 1)
        .global_avg_pool("global")
        .linear("fc1", 8)
        .batch_norm("bn3")
        .linear("fc2", 3);
    let dropout = Network::builder("dropout", [1, 6, 6])
        .conv2d("conv1", 4, 3)
        .dropout("drop1", 0.25)
        .max_pool("pool1", 3, 1)
        .flatten("flatten")
        .dropout("drop2", 0.5)
        .linear("fc", 3);
    let padded = Network::builder("padded", [2, 7, 6])
        .conv("conv1", Conv2d::new(3, 3).padding(1))
        .relu("relu1")
        .conv("conv2", Conv2d::new(6, 3).stride(2).padding(1))
        .padded_shortcut("shortcut", 6, 2)
        .from("relu1")
        .add("sum", &["conv2", "shortcut"])
        .padded_shortcut("wider", 8, 1)
        .padded_shortcut("narrower", 8, 3)
        .flatten("flatten")
        .linear("fc", 3);
    [plain, strided, residual, dropout, padded, uneven(), pooled(), gated(), branches()]
        .map(|builder| builder.build().unwrap())
        .into()
}

/// Convolutions whose windows differ by axis and side.
fn uneven() -> NetworkBuilder {
    Network::builder("uneven", [3, 11, 9])
        .conv("wide", Conv2d::new(4, [1, 5]).padding(Axes::new(0, 2)))
        .activation("clip", Activation::Clip { min: 0.0, max: 0.8 })
        .conv("tall", Conv2d::new(6, [3, 1]).stride([2, 1]).padding([0, 0, 1, 0]).groups(2))
        .conv("same", Conv2d::new(6, 3).stride([1, 2]).padding([0, 0, 1, 1]).groups(6))
        .conv("dilated", Conv2d::new(5, 3).dilation([1, 2]).padding([1, 2, 1, 1]))
        .conv("both", Conv2d::new(5, 2).dilation(2).stride([2, 1]).padding([2, 1, 0, 2]).groups(5))
        .flatten("flatten")
        .linear("fc", 4)
}

/// Pooling windows that differ by axis and side, are rounded up, and count padding.
fn pooled() -> NetworkBuilder {
    let counted = Pool2d::new(3, 2).padding([1, 0, 1, 1]).ceil_mode(true).count_include_pad(true);
    Network::builder("pooled", [3, 15, 13])
        .conv("strided", Conv2d::new(5, 3).stride([1, 2]).padding([2, 0, 1, 1]))
        .layer("pool1", Op::AvgPool(Pool2d::new([3, 2], [2, 3]).ceil_mode(true)), &[])
        .conv("conv", Conv2d::new(6, 3).padding(1).without_bias())
        .layer(
            "pool2",
            Op::MaxPool(Pool2d::new([2, 3], [3, 1]).padding([1, 0, 0, 2]).ceil_mode(true)),
            &[],
        )
        .layer("pool3", Op::AvgPool(counted), &[])
        .flatten("flatten")
        .linear("fc", 4)
}

/// Activations and products.
fn gated() -> NetworkBuilder {
    let conv = |channels, kernel: usize| Conv2d::new(channels, kernel).padding(kernel / 2);
    Network::builder("gated", [2, 8, 7])
        .conv("conv1", conv(6, 3))
        .activation("act1", Activation::Silu)
        .global_avg_pool("squeeze1")
        .linear("fc1", 3)
        .activation("act2", Activation::HardSwish)
        .linear("fc2", 6)
        .activation("gate1", Activation::HardSigmoid { alpha: 0.2, beta: 0.5 })
        .mul("scaled1", ["act1", "gate1"])
        .conv("conv2", conv(6, 3))
        .activation("act3", Activation::LeakyRelu { slope: 0.1 })
        .global_avg_pool("squeeze2")
        .linear("fc3", 6)
        .activation("gate2", Activation::Sigmoid)
        .mul("scaled2", ["gate2", "act3"])
        .mul("squared", ["scaled2", "scaled2"])
        .conv("conv3", conv(4, 1))
        .activation("act4", Activation::Tanh)
        .conv("conv4", conv(4, 1))
        .from("scaled2")
        .activation("act5", Activation::Gelu)
        .mul("product", ["act4", "act5"])
        .activation("act6", Activation::Clip { min: -0.2, max: 0.3 })
        .flatten("flatten")
        .linear("fc4", 3)
}

/// Channels that are joined, split, mixed and normalized by each other.
fn branches() -> NetworkBuilder {
    let conv = |channels, kernel: usize| Conv2d::new(channels, kernel).padding(kernel / 2);
    let norm = |size, alpha, beta, bias| Op::LocalResponseNorm { size, alpha, beta, bias };
    let slice = |start, channels| Op::ChannelSlice { start, channels };
    Network::builder("branches", [3, 7, 6])
        .conv("conv1", conv(6, 3))
        .relu("relu1")
        .conv("conv2", conv(4, 1))
        .scale_shift("affine1")
        .activation("clip1", Activation::Clip { min: 0.0, max: 0.4 })
        .conv("conv3", conv(5, 3))
        .from("relu1")
        .scale_shift("affine2")
        .concat("joined", &["relu1", "clip1", "affine2", "relu1"])
        .layer("shuffle1", Op::ChannelShuffle { groups: 3 }, &[])
        .layer("norm1", norm(5, 0.5, 0.75, 1.0), &[])
        .layer("left", slice(0, 9), &[])
        .layer("right", slice(9, 12), &["norm1"])
        .conv("conv4", conv(9, 1))
        .add("sum", &["left", "conv4"])
        .activation("clip2", Activation::RELU6)
        .layer("norm2", norm(3, 0.3, 0.5, 2.0), &[])
        .global_avg_pool("pool")
        .linear("fc1", 12)
        .activation("clip3", Activation::Clip { min: 0.0, max: 0.3 })
        .concat("ends", &["clip3", "pool"])
        .layer("shuffle2", Op::ChannelShuffle { groups: 7 }, &[])
        .layer("middle", slice(2, 17), &[])
        .scale_shift("affine3")
        .linear("fc2", 3)
}

/// Small networks whose activations are rounded: those of layers that are read by several others, that were folded, and pooled.
pub(crate) fn rounding_networks() -> Vec<Network> {
    let conv = |channels, kernel: usize| Conv2d::new(channels, kernel).padding(kernel / 2);
    let plain = Network::builder("rounding", [2, 6, 5])
        .conv("conv1", conv(5, 3))
        .batch_norm("bn1")
        .relu("relu1")
        .max_pool("pool1", 2, 1)
        .conv("conv2", conv(4, 3))
        .conv("conv3", conv(4, 1))
        .from("pool1")
        .add("sum", &["conv2", "conv3"])
        .conv("conv4", conv(6, 1))
        .activation("clip", Activation::RELU6)
        .global_avg_pool("mean")
        .linear("fc1", 3)
        .build()
        .unwrap();
    vec![plain.with_fake_quantize().unwrap()]
}

/// `len` normalized images and their labels.
pub(crate) fn batch(network: &Network, len: usize, seed: u64) -> (Vec<f32>, Vec<Label>) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let pixels = len * network.input().iter().product::<usize>();
    let images = (0..pixels).map(|_| rng.random_range(-1.5..1.5)).collect();
    let classes = Label::try_from(network.outputs()).unwrap();
    let labels = (0..len).map(|_| rng.random_range(0..classes)).collect();
    (images, labels)
}

/// A state in which no statistic and no batch norm is trivial.
pub(crate) fn state(network: &Network, seed: u64) -> Weights {
    let mut state = initial_weights(network, seed);
    let mut rng = ChaCha8Rng::seed_from_u64(seed + 1);
    for (name, Parameter { values, .. }) in &mut state.0 {
        if name.ends_with(".ranges") {
            // Some values are beyond.
            values.chunks_exact_mut(2).for_each(|range| range.copy_from_slice(&[-0.5, 0.75]));
        } else if name.starts_with("bn") || name.starts_with("affine") {
            values.iter_mut().for_each(|value| *value += rng.random_range(-0.4..0.4));
        } else if network.name() == "gated" {
            // The bound of He et al. 2015 for ReLU, so that gradients of the first layers are not tiny.
            values.iter_mut().for_each(|value| *value *= 6f32.sqrt());
        }
    }
    state
}

/// The trainer that all others are measured by.
pub(crate) fn oracle(network: &Network, quantizer: QuantizerKind) -> Box<dyn Trainer> {
    Box::new(BurnTrainer::new(network, quantizer.build(), Device::flex()).unwrap())
}

/// Checks trainers of `networks`: the same outputs, losses, weights and statistics as the oracle,
/// with and without quantized weights; errors; and equal bits in every repetition.
pub(crate) fn check_trainer(networks: &[Network], make: &mut Make<'_>) {
    for network in networks {
        for &quantizer in QuantizerKind::ALL {
            check_against_oracle(network, quantizer, make);
        }
        check_repetition(network, make);
        check_errors(network, make);
    }
}

/// 3, 4, 5, 8 bits in turn: what every quantizer takes.
pub(crate) fn some_bits(network: &Network) -> BitwidthAssignment {
    let bits = [3, 4, 5, 8].into_iter().cycle().take(network.quantizable_layers());
    BitwidthAssignment::from_bits(bits).unwrap()
}

fn check_against_oracle(network: &Network, quantizer: QuantizerKind, make: &mut Make<'_>) {
    let context = |what: &str| format!("network `{}`, {quantizer:?}: {what}", network.name());
    let (mut tested, mut oracle) = (make(network, quantizer), oracle(network, quantizer));
    let start = state(network, 7);
    let sgd = Sgd { learning_rate: 0.05, momentum: 0.9, weight_decay: 1e-3 };
    let quantized = some_bits(network);
    for bits in [None, Some(&quantized), None] {
        // Batches of several sizes, since buffers are reused.
        let mut losses = Vec::new();
        for trainer in [&mut tested, &mut oracle] {
            trainer.load(&start).unwrap();
            trainer.set_bits(bits).unwrap();
        }
        close(&tested.weights(), &oracle.weights(), 0.0, &context("state after load"));
        for (step, len) in [5, 8, 3].into_iter().enumerate() {
            let (images, labels) = batch(network, len, step as u64);
            for trainer in [&mut tested, &mut oracle] {
                losses.push(trainer.train_step(&Batch::labelled(&images, &labels), sgd).unwrap());
            }
            let (got, expected) = (losses[2 * step], losses[2 * step + 1]);
            let what = context(&format!("loss {got} of step {step}, expected {expected}"));
            assert!((got - expected).abs() <= LOSS_TOLERANCE * (1.0 + expected.abs()), "{what}");
            let what = context(&format!("state after step {step}, bits {bits:?}"));
            close(&tested.weights(), &oracle.weights(), VALUE_TOLERANCE, &what);
        }
        // A step towards another network's outputs.
        let (images, _) = batch(network, 4, 50);
        let teacher: Vec<f32> =
            (0..4 * network.outputs()).map(|i| (i * 37 % 11) as f32 / 4.0 - 1.0).collect();
        let [got, expected] = [&mut tested, &mut oracle]
            .map(|trainer| trainer.train_step(&Batch::taught(&images, &teacher), sgd).unwrap());
        let what = context(&format!("loss {got} beside a teacher, expected {expected}"));
        assert!((got - expected).abs() <= LOSS_TOLERANCE * (1.0 + expected.abs()), "{what}");
        let what = context(&format!("state after a teacher, bits {bits:?}"));
        close(&tested.weights(), &oracle.weights(), VALUE_TOLERANCE, &what);
        let (images, _) = batch(network, 11, 99);
        let (got, expected) = (tested.logits(&images).unwrap(), oracle.logits(&images).unwrap());
        close_values(&got, &expected, VALUE_TOLERANCE, &context("logits"));
        let [first, second] = [&mut tested, &mut oracle].map(|trainer| {
            // Other bitwidths would let go of the clips that the weights were trained within.
            let trained = trainer.snapshot();
            trainer.set_bits(None).unwrap();
            let targets = trainer.moments(&images, None).unwrap();
            trainer.restore(&trained).unwrap();
            let restored = trainer.moments(&images, Some(&targets)).unwrap();
            [targets, restored]
        });
        for (what, (got, expected)) in
            ["moments", "restored moments"].iter().zip(first.iter().zip(&second))
        {
            assert_eq!(got.len(), expected.len(), "{}", context(what));
            for (got, expected) in got.iter().zip(expected) {
                close_values(&got.mean, &expected.mean, VALUE_TOLERANCE, &context(what));
                close_values(&got.variance, &expected.variance, VALUE_TOLERANCE, &context(what));
            }
        }
        let (again, expected) = (tested.logits(&images).unwrap(), oracle.logits(&images).unwrap());
        assert_eq!(again, got, "{}", context("logits after looking at moments"));
        close_values(&again, &expected, VALUE_TOLERANCE, &context("logits after moments"));
        // Masters are kept in floating point whatever is set.
        let before = tested.weights();
        tested.set_bits(Some(&quantized)).unwrap();
        tested.set_bits(None).unwrap();
        close(&tested.weights(), &before, 0.0, &context("state after changing bits"));
        assert!(tested.logits(&[]).unwrap().is_empty());
    }
}

fn check_repetition(network: &Network, make: &mut Make<'_>) {
    let mut run = |bits: Option<&BitwidthAssignment>, elsewhere: bool| {
        let mut trainer = make(network, QuantizerKind::Wrpn);
        let mut work = move || {
            let mut seen = Vec::new();
            // The second round must not notice the first one.
            for _ in 0..2 {
                trainer.load(&state(network, 1)).unwrap();
                trainer.set_bits(bits).unwrap();
                for step in 0..3 {
                    let (images, labels) = batch(network, 6, step);
                    let sgd = Sgd { learning_rate: 0.1, momentum: 0.9, weight_decay: 0.0 };
                    trainer.train_step(&Batch::labelled(&images, &labels), sgd).unwrap();
                }
                let logits = trainer.logits(&batch(network, 4, 9).0).unwrap();
                seen.push((trainer.weights(), logits));
            }
            assert_eq!(seen[0], seen[1], "network `{}`: two rounds", network.name());
            seen.pop().unwrap()
        };
        if elsewhere {
            std::thread::scope(|scope| scope.spawn(work).join().unwrap())
        } else {
            work()
        }
    };
    for bits in [None, Some(&some_bits(network))] {
        assert_eq!(run(bits, false), run(bits, true), "network `{}`: threads", network.name());
    }
}

fn check_errors(network: &Network, make: &mut Make<'_>) {
    let mut trainer = make(network, QuantizerKind::Wrpn);
    let sgd = Sgd { learning_rate: 0.1, momentum: 0.0, weight_decay: 0.0 };
    let start = state(network, 2);
    trainer.load(&start).unwrap();
    let (images, mut labels) = batch(network, 3, 0);
    let sample = images.len() / 3;

    let refused = trainer.train_step(&Batch::labelled(&images[1..], &labels), sgd).unwrap_err();
    assert!(matches!(refused, TrainError::Batch { labels: 3, .. }), "{refused}");
    let refused = trainer.train_step(&Batch::labelled(&images, &labels[1..]), sgd).unwrap_err();
    assert!(matches!(refused, TrainError::Batch { labels: 2, .. }), "{refused}");
    let refused = trainer.train_step(&Batch::labelled(&[], &[]), sgd).unwrap_err();
    assert!(matches!(refused, TrainError::EmptyBatch), "{refused}");
    let refused = trainer.logits(&images[..sample + 1]).unwrap_err();
    assert!(matches!(refused, TrainError::Batch { .. }), "{refused}");
    labels[1] = Label::try_from(network.outputs()).unwrap();
    let refused = trainer.train_step(&Batch::labelled(&images, &labels), sgd).unwrap_err();
    assert!(matches!(refused, TrainError::Label { .. }), "{refused}");

    let outputs = network.outputs();
    let refused = trainer.train_step(&Batch::taught(&images, &[0.0; 2]), sgd).unwrap_err();
    assert!(matches!(refused, TrainError::Teacher { .. } | TrainError::Batch { .. }), "{refused}");
    let mut teacher = vec![0.0; 3 * outputs];
    teacher[1] = f32::NAN;
    let refused = trainer.train_step(&Batch::taught(&images, &teacher), sgd).unwrap_err();
    assert!(matches!(refused, TrainError::TeacherNotFinite { index: 1, .. }), "{refused}");

    let layers = network.quantizable_layers();
    let long = BitwidthAssignment::from_bits(vec![4; layers + 1]).unwrap();
    let refused = trainer.set_bits(Some(&long)).unwrap_err();
    assert!(
        matches!(refused, TrainError::AssignmentLength { bits, .. } if bits == layers + 1),
        "{refused}"
    );

    let first = start.0.keys().next().unwrap().clone();
    let mut broken = start.clone();
    let parameter = broken.0.remove(&first).unwrap();
    let refused = trainer.load(&broken).unwrap_err();
    assert!(
        matches!(&refused, TrainError::Weights(WeightsError::Missing(name)) if *name == first),
        "{refused}"
    );
    broken.0.insert(first.clone(), Parameter { shape: vec![1; 5], ..parameter.clone() });
    let refused = trainer.load(&broken).unwrap_err();
    assert!(
        matches!(&refused, TrainError::Weights(WeightsError::Shape { name, .. }) if *name == first),
        "{refused}"
    );
    broken.0.insert(first, parameter);
    broken.0.insert("nobody.weight".into(), Parameter { shape: vec![0], values: vec![] });
    let refused = trainer.load(&broken).unwrap_err();
    assert!(matches!(refused, TrainError::Weights(WeightsError::Unexpected(_))), "{refused}");

    assert_eq!(trainer.weights(), start, "network `{}`: a refusal changes nothing", network.name());
}

pub(crate) fn close(got: &Weights, expected: &Weights, tolerance: f32, context: &str) {
    assert!(got.0.keys().eq(expected.0.keys()), "{context}: other names");
    for (name, parameter) in &got.0 {
        assert_eq!(parameter.shape, expected.0[name].shape, "{context}: `{name}`");
        let expected = &expected.0[name].values;
        close_values(&parameter.values, expected, tolerance, &format!("{context}: `{name}`"));
    }
}

/// Fails if a pair is further apart than `tolerance * (1 + |expected|)`.
pub(crate) fn close_values(got: &[f32], expected: &[f32], tolerance: f32, context: &str) {
    assert_eq!(got.len(), expected.len(), "{context}: number of values");
    for (index, (got, expected)) in got.iter().zip(expected).enumerate() {
        let ok = (got - expected).abs() <= tolerance * (1.0 + expected.abs());
        assert!(ok, "{context}: value {index} is {got}, expected {expected}");
    }
}

#[test]
fn the_oracle_conforms() {
    check_trainer(&networks(), &mut oracle);
    check_trainer(&rounding_networks(), &mut oracle);
}
