//! What nodes become, for forms that no exporter among the golden models writes.

use releq_core::{Activation, Op, Shape, Sides};
use releq_format::onnx::{Layout, Model, Remark};

use crate::written::{Side, Written, float, int, integers, ints, node, tensor, text, value};

/// A model whose first nodes, from `x` to `z`, are these, and which then ends in classes.
fn of(sides: [i64; 3], channels: usize, nodes: &[Vec<u8>], tensors: &[Vec<u8>]) -> Model {
    let ends = [
        node("GlobalAveragePool", &["z"], "p", &[]),
        node("Flatten", &["p"], "f", &[]),
        node("Gemm", &["f", "fc"], "y", &[]),
    ];
    let weight = tensor("fc", &[channels as i64, 2], &vec![0.5; 2 * channels]);
    let model = Written::new(sides, &[nodes, &ends].concat(), &[tensors, &[weight]].concat());
    let model = model.read().unwrap();
    model.weights.check(&model.network).unwrap();
    model
}

fn op(model: &Model, index: usize) -> Op {
    model.network.nodes()[index].op
}

fn values<'a>(model: &'a Model, name: &str) -> &'a [f32] {
    &model.weights.0[name].values
}

#[test]
fn padding_of_its_own_or_of_a_node_before_is_that_of_the_convolution() {
    let padding = |sides: [i64; 3], attributes: &[Vec<u8>], pads: Option<&[i64]>| {
        let mut nodes = Vec::new();
        let from = if pads.is_some() { "q" } else { "x" };
        if pads.is_some() {
            nodes.push(node("Pad", &["x", "pads"], "q", &[]));
        }
        nodes.push(node("Conv", &[from, "w"], "z", attributes));
        let tensors =
            [tensor("w", &[1, 1, 3, 3], &[1.0; 9]), integers("pads", pads.unwrap_or(&[0; 8]))];
        let model = of(sides, 1, &nodes, &tensors);
        match op(&model, 0) {
            Op::Conv2d(conv) => (conv.padding, model.network.shape(0)),
            other => panic!("{other:?}"),
        }
    };
    let image = |height, width| Shape::Image { channels: 1, height, width };
    let same = |name| [text("auto_pad", name), ints("strides", &[2, 2])];
    // TensorFlow's rule: 7 columns in 4 places of stride 2 need 9, 6 rows in 3 places need 7.
    let upper = padding([1, 6, 7], &same("SAME_UPPER"), None);
    assert_eq!(upper, (Sides::from([0, 1, 1, 1]), image(3, 4)));
    let lower = padding([1, 6, 7], &same("SAME_LOWER"), None);
    assert_eq!(lower, (Sides::from([1, 1, 0, 1]), image(3, 4)));
    let around = padding([1, 6, 7], &[], Some(&[0, 0, 1, 2, 0, 0, 0, 1]));
    assert_eq!(around, (Sides::from([1, 2, 0, 1]), image(5, 8)));
    let both = padding([1, 6, 7], &[ints("pads", &[1, 0, 1, 0])], Some(&[0, 0, 1, 2, 0, 0, 0, 1]));
    assert_eq!(both, (Sides::from([2, 2, 1, 1]), image(7, 8)));
    assert_eq!(
        padding([1, 6, 7], &[text("auto_pad", "VALID")], None),
        (Sides::from(0), image(4, 5))
    );
}

#[test]
fn zeros_before_a_maximum_are_padding_only_where_nothing_is_negative() {
    let pool = [ints("kernel_shape", &[3, 3]), ints("strides", &[2, 2])];
    let nodes = |first: &str| {
        vec![
            node(first, &["x"], "r", &[]),
            node("Pad", &["r", "pads"], "q", &[]),
            node("MaxPool", &["q"], "z", &pool),
        ]
    };
    let pads = integers("pads", &[0, 0, 1, 1, 0, 0, 1, 1]);
    let model = of([2, 8, 8], 2, &nodes("Relu"), std::slice::from_ref(&pads));
    assert!(matches!(op(&model, 1), Op::MaxPool(pool) if pool.padding == Sides::from(1)));
    let mut refused = Written::tiny();
    refused.nodes.splice(
        1..2,
        [
            node("Tanh", &["a"], "r", &[]),
            node("Pad", &["r", "pads"], "q", &[]),
            node("MaxPool", &["q"], "b", &pool),
        ],
    );
    refused.tensors.push(pads);
    let message = refused.read().unwrap_err().to_string();
    assert!(message.contains("take part in the maximum"), "{message}");
}

#[test]
fn a_rounding_that_changes_nothing_is_left_out() {
    let ceil = |side| {
        let attributes =
            [ints("kernel_shape", &[3, 3]), ints("strides", &[2, 2]), int("ceil_mode", 1)];
        let model = of([1, side, side], 1, &[node("MaxPool", &["x"], "z", &attributes)], &[]);
        match op(&model, 0) {
            Op::MaxPool(pool) => (pool.ceil_mode, model.network.shape(0)),
            other => panic!("{other:?}"),
        }
    };
    let image = |side| Shape::Image { channels: 1, height: side, width: side };
    assert_eq!(ceil(7), (false, image(3)));
    assert_eq!(ceil(8), (true, image(4)));
}

#[test]
fn sums_and_products_by_constants_become_biases_norms_or_layers_of_their_own() {
    let conv = node("Conv", &["x", "w"], "a", &[]);
    let weight = tensor("w", &[2, 1, 1, 1], &[1.0, 2.0]);
    let per_channel = tensor("c", &[2, 1, 1], &[3.0, -4.0]);
    // A sum is a bias, a factor for all is part of the weights.
    let nodes =
        [conv.clone(), node("Add", &["a", "c"], "b", &[]), node("Mul", &["b", "half"], "z", &[])];
    let half = tensor("half", &[], &[0.5]);
    let model = of([1, 4, 4], 2, &nodes, &[weight.clone(), per_channel.clone(), half.clone()]);
    assert_eq!(model.network.nodes()[0].name, "conv");
    assert_eq!(values(&model, "conv.weight"), [0.5, 1.0]);
    assert_eq!(values(&model, "conv.bias"), [1.5, -2.0]);
    // A factor for each channel is not, for the weights are rounded together.
    let nodes =
        [conv.clone(), node("Mul", &["a", "c"], "b", &[]), node("Sub", &["b", "half"], "z", &[])];
    let model = of([1, 4, 4], 2, &nodes, &[weight.clone(), per_channel.clone(), half.clone()]);
    assert_eq!(op(&model, 1), Op::ScaleShift);
    assert_eq!(values(&model, "mul.weight"), [3.0, -4.0]);
    assert_eq!(values(&model, "mul.bias"), [-0.5, -0.5]);
    // Where something else reads what comes before, it stays as it is.
    let nodes = [
        conv,
        node("Add", &["a", "c"], "b", &[]),
        node("Relu", &["a"], "r", &[]),
        node("Add", &["b", "r"], "z", &[]),
    ];
    let model = of([1, 4, 4], 2, &nodes, &[weight, per_channel, half]);
    assert_eq!(model.network.nodes().iter().filter(|node| node.op == Op::ScaleShift).count(), 1);
    assert!(!model.weights.0.contains_key("conv.bias"));
}

#[test]
fn a_flattening_of_channels_last_permutes_the_columns() {
    let model = Written::new(
        [2, 1, 2],
        &[
            node("Conv", &["x", "w"], "a", &[]),
            node("Transpose", &["a"], "b", &[ints("perm", &[0, 2, 3, 1])]),
            node("Reshape", &["b", "shape"], "c", &[]),
            node("MatMul", &["c", "fc"], "y", &[]),
        ],
        &[
            tensor("w", &[2, 2, 1, 1], &[1.0, 0.0, 0.0, 1.0]),
            integers("shape", &[-1, 4]),
            // Rows are, in the model's order: pixel 0 of channels 0 and 1, pixel 1 of channels 0 and 1.
            tensor("fc", &[4, 1], &[1.0, 2.0, 3.0, 4.0]),
        ],
    );
    let model = model.read().unwrap();
    assert_eq!(values(&model, "matmul.weight"), [1.0, 3.0, 2.0, 4.0]);
}

#[test]
fn what_is_done_to_features_of_channels_last_is_done_in_the_order_of_the_layer() {
    // Pixel 0 of channels 0 and 1, pixel 1 of channels 0 and 1, as above; the layer has channel 0 first.
    let of = |function: &[Vec<u8>]| {
        let nodes = [
            node("Conv", &["x", "w"], "a", &[]),
            node("Transpose", &["a"], "b", &[ints("perm", &[0, 2, 3, 1])]),
            node("Reshape", &["b", "shape"], "c", &[]),
        ];
        let last = [node("MatMul", &["d", "fc"], "y", &[])];
        let model = Written::new(
            [2, 1, 2],
            &[&nodes, function, &last].concat(),
            &[
                tensor("w", &[2, 2, 1, 1], &[1.0, 0.0, 0.0, 1.0]),
                integers("shape", &[-1, 4]),
                tensor("fc", &[4, 1], &[1.0, 2.0, 3.0, 4.0]),
                tensor("each", &[4], &[5.0, 6.0, 7.0, 8.0]),
                tensor("ones", &[4], &[1.0; 4]),
            ],
        );
        let model = model.read().unwrap();
        model.weights.check(&model.network).unwrap();
        assert_eq!(values(&model, "matmul.weight"), [1.0, 3.0, 2.0, 4.0]);
        model
    };
    let model = of(&[node("Mul", &["c", "each"], "d", &[])]);
    assert_eq!(values(&model, "mul.weight"), [5.0, 7.0, 6.0, 8.0]);
    let both = of(&[node("Mul", &["c", "each"], "m", &[]), node("Add", &["m", "each"], "d", &[])]);
    assert_eq!(values(&both, "mul.bias"), [5.0, 7.0, 6.0, 8.0]);
    let inputs = ["c", "ones", "each", "each", "ones"];
    let model = of(&[node("BatchNormalization", &inputs, "d", &[float("epsilon", 1e-10)])]);
    assert_eq!(values(&model, "batchnormalization.bias"), [5.0, 7.0, 6.0, 8.0]);
    assert_eq!(values(&model, "batchnormalization.running_mean"), [5.0, 7.0, 6.0, 8.0]);
    let norms = model.network.nodes().iter().filter_map(|node| match node.op {
        Op::BatchNorm { epsilon, momentum } => Some((epsilon, momentum)),
        _ => None,
    });
    assert_eq!(norms.collect::<Vec<_>>(), [(1e-10, 0.1)]);
}

#[test]
fn norms_of_training_are_read_with_a_remark() {
    let norm = |training| {
        let inputs = ["x", "ones", "zeros", "zeros", "ones"];
        let norm = node("BatchNormalization", &inputs, "z", &[int("training_mode", training)]);
        of(
            [2, 4, 4],
            2,
            &[norm],
            &[tensor("ones", &[2], &[1.0; 2]), tensor("zeros", &[2], &[0.0; 2])],
        )
    };
    assert_eq!(norm(0).remarks, []);
    assert_eq!(norm(1).remarks, [Remark::TrainingNorms]);
}

#[test]
fn a_gate_may_be_repeated_to_the_image_before_it_is_multiplied() {
    let gated = |reader: &str| {
        let model = Written::new(
            [2, 4, 4],
            &[
                node("Relu", &["x"], "r", &[]),
                node("GlobalAveragePool", &["r"], "g", &[]),
                node("Sigmoid", &["g"], "s", &[]),
                node("Shape", &["r"], "shape", &[]),
                node("Expand", &["s", "shape"], "e", &[]),
                node(reader, &["r", "e"], "z", &[]),
                node("GlobalAveragePool", &["z"], "p", &[]),
                node("Flatten", &["p"], "f", &[]),
                node("Gemm", &["f", "fc"], "y", &[]),
            ],
            &[tensor("fc", &[2, 2], &[0.5; 4])],
        );
        model.read()
    };
    let model = gated("Mul").unwrap();
    assert!(model.network.nodes().iter().any(|node| node.op == Op::Mul));
    let message = gated("Add").unwrap_err().to_string();
    assert!(message.contains("it repeats [1, 2, 1, 1] to [1, 2, 4, 4]"), "{message}");
}

#[test]
fn layers_without_names_are_numbered() {
    let mut nodes: Vec<Vec<u8>> = Vec::new();
    for index in 0..3000 {
        let (from, to) = (format!("r{index}"), format!("r{}", index + 1));
        let from = if index == 0 { "x" } else { &from };
        nodes.push(node("Tanh", &[from], if index == 2999 { "z" } else { &to }, &[]));
    }
    let model = of([1, 4, 4], 1, &nodes, &[]);
    assert_eq!(model.network.nodes()[0].name, "tanh");
    assert_eq!(model.network.nodes()[2999].name, "tanh_3000");
}

#[test]
fn inputs_of_two_and_three_dimensions_are_images() {
    let [n, four] = [Side::Symbol("n"), Side::Size(4)];
    let mut model = Written::new(
        [1, 4, 4],
        &[node("Gemm", &["x", "fc"], "y", &[])],
        &[tensor("fc", &[4, 2], &[0.5; 8])],
    );
    model.inputs = vec![value("x", 1, &[n, four])];
    let features = model.read().unwrap();
    assert_eq!((features.network.input(), features.frame.layout), ([4, 1, 1], Layout::Features));
    model.nodes = vec![node("Flatten", &["x"], "f", &[]), node("Gemm", &["f", "fc"], "y", &[])];
    model.tensors = vec![tensor("fc", &[16, 2], &[0.5; 32])];
    model.inputs = vec![value("x", 1, &[n, four, four])];
    let gray = model.read().unwrap();
    assert_eq!((gray.network.input(), gray.frame.layout), ([1, 4, 4], Layout::ChannelsFirst));
    assert_eq!(gray.network.nodes().len(), 2);
    // No layer says where the channels are, but three are colours.
    model.inputs = vec![value("x", 1, &[n, Side::Size(8), Side::Size(8), Side::Size(3)])];
    model.tensors = vec![tensor("fc", &[192, 2], &[0.5; 384])];
    let colours = model.read().unwrap();
    assert_eq!((colours.network.input(), colours.frame.layout), ([3, 8, 8], Layout::ChannelsLast));
}

#[test]
fn bounds_are_attributes_or_inputs_and_make_the_function() {
    let clip = |nodes: &[Vec<u8>]| {
        let tensors =
            [tensor("six", &[], &[6.0]), tensor("zero", &[], &[0.0]), tensor("one", &[1], &[1.0])];
        op(&of([1, 4, 4], 1, nodes, &tensors), 0)
    };
    let range = |min, max| Op::Activation(Activation::Clip { min, max });
    assert_eq!(clip(&[node("Clip", &["x", "zero", "six"], "z", &[])]), range(0.0, 6.0));
    assert_eq!(
        clip(&[node("Clip", &["x"], "z", &[float("min", -1.0), float("max", 2.0)])]),
        range(-1.0, 2.0)
    );
    assert_eq!(clip(&[node("Clip", &["x", "", "six"], "z", &[])]), range(f32::MIN, 6.0));
    assert_eq!(clip(&[node("Clip", &["x", "zero"], "z", &[])]), Op::Relu);
    assert_eq!(clip(&[node("Max", &["x", "zero"], "z", &[])]), Op::Relu);
    let written = [node("Max", &["x", "zero"], "m", &[]), node("Min", &["m", "one"], "z", &[])];
    assert_eq!(clip(&written), Op::Relu);
}

#[test]
fn what_the_output_does_not_depend_on_may_be_anything() {
    let mut model = Written::tiny();
    model.nodes.push(node("NonMaxSuppression", &["a"], "boxes", &[]));
    model.tensors.push(tensor("unused", &[-1], &[]));
    let model = model.read().unwrap();
    assert_eq!(model.explanation.nodes[5].became.to_string(), "not used by the output");
}
