//! Bad models: each is refused with the node and the reason, soon and in little memory.
//!
//! One test for all of them, since the memory of the process is measured.

use std::{fs, time::Instant};

use crate::written::{
    Side, Written, bytes, external, float, int, integers, ints, node, number, raw_tensor, read,
    tensor, text, value,
};

/// Longest that a model may take, and most megabytes that the process may grow by.
const MOST_MILLISECONDS: u128 = 1000;
const MOST_MEGABYTES: u64 = 100;

fn peak_megabytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse().ok());
    kilobytes.unwrap_or(0_u64) / 1024
}

/// The model with something changed.
fn changed(change: impl FnOnce(&mut Written)) -> Vec<u8> {
    let mut model = Written::tiny();
    change(&mut model);
    model.file()
}

/// The model with another tensor in place of the first weight.
fn weight(weight: Vec<u8>) -> Vec<u8> {
    changed(|model| model.tensors[0] = weight)
}

/// The model with another node in place of the `Relu`.
fn instead(op: &str, inputs: &[&str], attributes: &[Vec<u8>]) -> Vec<u8> {
    changed(|model| model.nodes[1] = node(op, inputs, "b", attributes))
}

#[test]
fn bad_models_are_refused_with_node_and_reason_in_time_and_memory() {
    Written::tiny().read().unwrap();
    let before = peak_megabytes();
    let check = |name: &str, file: Vec<u8>, expected: &[&str]| {
        let started = Instant::now();
        let message = read(file).unwrap_err().to_string();
        let (took, grown) = (started.elapsed().as_millis(), peak_megabytes() - before);
        for expected in expected {
            assert!(message.contains(expected), "{name}: `{message}` lacks `{expected}`");
        }
        assert!(took < MOST_MILLISECONDS, "{name}: {took} ms");
        assert!(grown < MOST_MEGABYTES, "{name}: {grown} MB");
    };
    let conv = "node `Conv no. 0`: tensor `conv.weight`";

    let whole = Written::tiny().file();
    check("nothing", Vec::new(), &["no ONNX model", "no graph"]);
    check("text", b"ir_version: 8\ngraph {\n}\n".to_vec(), &["no ONNX model"]);
    check("json", b"{\"layers\": []}".to_vec(), &["no ONNX model"]);
    check("cut", whole[..whole.len() / 2].to_vec(), &["cannot be decoded"]);
    check(
        "length beyond the file",
        vec![7 << 3 | 2, 0xFF, 0xFF, 0xFF, 0x7F],
        &["cannot be decoded"],
    );
    check("no node", [bytes(7, b""), number(1, 8)].concat(), &["its graph has no node"]);
    check("groups in groups", vec![0x1B; 1 << 20], &["cannot be decoded"]);
    let nested = (0..64).fold(Vec::new(), |inside, _| bytes(5, &bytes(6, &bytes(1, &inside))));
    check("a graph in a graph", instead("If", &["a"], &[nested]), &["`If no. 1` (If)"]);
    check("many parts", bytes(7, &[10, 0].repeat(1 << 20)), &["more than 200000 parts"]);

    check(
        "bytes",
        weight(tensor("conv.weight", &[2, 1, 3, 3], &[0.5; 17])),
        &[conv, "68 bytes", "take 72"],
    );
    check(
        "negative side",
        weight(tensor("conv.weight", &[2, 1, -3, 3], &[0.5; 18])),
        &[conv, "-3"],
    );
    check(
        "huge sides",
        weight(tensor("conv.weight", &[i64::MAX, 2], &[])),
        &[conv, "do not fit in memory"],
    );
    let huge = &[1 << 20, 1 << 9, 1, 1];
    check("sides without bytes", weight(tensor("conv.weight", huge, &[])), &[conv, "has 0 bytes"]);
    check(
        "text as weights",
        weight(raw_tensor("conv.weight", 8, &[1], &[])),
        &[conv, "type string"],
    );
    let whole_numbers = raw_tensor("conv.weight", 7, &[2, 1, 3, 3], &[0; 144]);
    check("whole numbers", weight(whole_numbers), &["`Conv no. 0` (Conv)", "whole numbers"]);
    let mut values = [0.5; 18];
    values[5] = f32::NAN;
    check(
        "NaN",
        weight(tensor("conv.weight", &[2, 1, 3, 3], &values)),
        &["`Conv no. 0` (Conv)", "NaN at index 5"],
    );
    check(
        "no weight",
        changed(|model| drop(model.tensors.remove(0))),
        &["`Conv no. 0` (Conv)", "reads `conv.weight`, which is not in the model"],
    );
    let twice = |model: &mut Written| model.tensors.push(tensor("fc.bias", &[3], &[0.0; 3]));
    check("twice", changed(twice), &["tensor `fc.bias` is there twice"]);
    let shape = weight(tensor("conv.weight", &[2, 3, 3], &[0.5; 18]));
    check("one axis", shape, &["`Conv no. 0` (Conv)", "along 1 axes"]);
    let channels = weight(tensor("conv.weight", &[2, 2, 3, 3], &[0.5; 36]));
    check("channels", channels, &["`Conv no. 0` (Conv)", "for 2 channels, and 1 come"]);

    let elsewhere =
        |entries: &[(&str, &str)]| weight(external("conv.weight", &[2, 1, 3, 3], entries));
    check(
        "absent",
        elsewhere(&[("location", "w.data")]),
        &[conv, "`w.data`: there is no other file"],
    );
    check("no place", elsewhere(&[]), &[conv, "not named"]);
    check(
        "no number",
        elsewhere(&[("location", "w"), ("offset", "-8")]),
        &[conv, "offset of `-8`"],
    );
    check(
        "other length",
        elsewhere(&[("location", "w"), ("length", "9")]),
        &[conv, "72 bytes", "9"],
    );

    check(
        "order",
        changed(|model| model.nodes.swap(1, 2)),
        &["`GlobalAveragePool no. 1`", "not in order"],
    );
    let circle = instead("Add", &["a", "d"], &[]);
    check("circle", circle, &["`Add no. 1` (Add)", "only `Flatten no. 3` computes", "circle"]);
    check("itself", instead("Add", &["a", "b"], &[]), &["`Add no. 1` (Add)", "circle"]);
    let again = |model: &mut Written| model.nodes[1] = node("Relu", &["a"], "a", &[]);
    check(
        "again",
        changed(again),
        &["`Relu no. 1` (Relu)", "computes `a`, which is there already"],
    );
    let domain = [node("Relu", &["a"], "b", &[]), bytes(7, b"com.acme")].concat();
    check(
        "domain",
        changed(|model| model.nodes[1] = domain),
        &["`Relu no. 1` (Relu)", "`com.acme`"],
    );

    let input = |sides: &[Side]| changed(|model| model.inputs = vec![value("x", 1, sides)]);
    let [n, one, four] = [Side::Symbol("n"), Side::Size(1), Side::Size(4)];
    check(
        "open side",
        input(&[n, one, Side::Symbol("h"), four]),
        &["dimension 2 of input `x` is `h`"],
    );
    check(
        "unknown side",
        input(&[n, one, four, Side::Unknown]),
        &["dimension 3 of input `x` is unknown"],
    );
    check("negative", input(&[n, one, four, Side::Size(-1)]), &["dimension 3 of input `x` is -1"]);
    check(
        "huge image",
        input(&[n, Side::Size(1 << 40), four, four]),
        &["input `x`", "does not fit in memory"],
    );
    check("volume", input(&[n, one, four, four, four]), &["input `x` has 5 dimensions"]);
    check("no shape", input(&[]), &["input `x` has no shape"]);
    let pixels = |model: &mut Written| model.inputs = vec![value("x", 2, &[n, one, four, four])];
    check("whole pixels", changed(pixels), &["input `x` is not of floating-point"]);
    let two = |model: &mut Written| model.inputs.push(value("z", 1, &[n]));
    check("two inputs", changed(two), &["2 inputs, `x`, `z`"]);
    check("no input", changed(|model| model.inputs.clear()), &["no input"]);
    let two = |model: &mut Written| model.outputs.push(value("b", 1, &[n]));
    check("two outputs", changed(two), &["2 outputs, `y`, `b`"]);
    check("no output", changed(|model| model.outputs.clear()), &["no output"]);
    let other = |model: &mut Written| model.outputs = vec![value("z", 1, &[n])];
    check("other output", changed(other), &["no node computes the output `z`"]);

    let tied = |model: &mut Written| {
        model.tensors[0] = tensor("conv.weight", &[1, 1, 3, 3], &[0.5; 9]);
        model.tensors[1] = tensor("conv.bias", &[1], &[0.5]);
        model.tensors[2] = tensor("fc.weight", &[3, 1], &[0.5; 3]);
        model.nodes[1] = node("Conv", &["a", "conv.weight"], "b", &[]);
    };
    check("two readers", changed(tied), &["`Conv no. 1` (Conv)", "also that of layer `conv`"]);

    check(
        "quantized",
        instead("QuantizeLinear", &["a"], &[]),
        &["quantized already", "`QuantizeLinear no. 1`"],
    );
    check("integers", instead("ConvInteger", &["a"], &[]), &["quantized already"]);
    check(
        "pads",
        instead("Pad", &["a"], &[ints("pads", &[0, 0, -1, 0, 0, 0, 0, 0])]),
        &["`Pad no. 1` (Pad)", "-1"],
    );
    let large = [ints("pads", &[0, 0, 1 << 40, 0, 0, 0, 0, 0])];
    check("large pads", instead("Pad", &["a"], &large), &["`Pad no. 1` (Pad)", "1099511627776"]);
    let kernel = [ints("kernel_shape", &[i64::MAX, i64::MAX])];
    check("kernel", instead("MaxPool", &["a"], &kernel), &["`MaxPool no. 1` (MaxPool)"]);
    let stride = [ints("kernel_shape", &[2, 2]), ints("strides", &[0, 1])];
    check("stride", instead("MaxPool", &["a"], &stride), &["`MaxPool no. 1` (MaxPool)", "[0, 1]"]);
    let auto = [ints("kernel_shape", &[2, 2]), text("auto_pad", "SOME")];
    check("padding", instead("MaxPool", &["a"], &auto), &["`SOME`"]);
    check(
        "slope",
        instead("LeakyRelu", &["a"], &[float("alpha", f32::NAN)]),
        &["`LeakyRelu no. 1`", "finite"],
    );
    check(
        "axis",
        instead("Transpose", &["a"], &[ints("perm", &[0, 1, 2, 9])]),
        &["`Transpose no. 1`", "[0, 1, 2, 9]"],
    );
    check(
        "concat",
        instead("Concat", &["a", "x"], &[int("axis", 7)]),
        &["`Concat no. 1`", "axis 7"],
    );
    let ones = changed(|model| {
        model.tensors[0] = integers("conv.weight", &[1 << 20, 1 << 9, 3, 3]);
        model.nodes[0] = node("ConstantOfShape", &["conv.weight"], "w", &[]);
        model.nodes[1] = node("Conv", &["x", "w"], "b", &[]);
    });
    check("weights from nothing", ones, &["`ConstantOfShape no. 0`", "do not fit in memory"]);
    let large = changed(|model| {
        model.tensors[0] = integers("conv.weight", &[1 << 24, 1, 3, 3]);
        model.nodes[0] = node("ConstantOfShape", &["conv.weight"], "w", &[]);
        model.nodes[1] = node("Conv", &["x", "w"], "q", &[]);
        model.nodes.insert(2, node("LSTM", &["q"], "b", &[]));
    });
    check("large weights of no network", large, &["`LSTM no. 2`"]);
    // A million rows of nothing, a thousand dimensions, and constants that are finite alone.
    let rows = |op: &str, inputs: &[&str], attributes: &[Vec<u8>]| {
        changed(|model| {
            model.tensors[0] = tensor("conv.weight", &[1 << 28, 2, 0], &[]);
            model.tensors.push(integers("zero", &[0]));
            model.nodes[0] = node(op, inputs, "a", attributes);
        })
    };
    let gather = rows("Gather", &["conv.weight", "zero"], &[int("axis", 1)]);
    check("rows of nothing", gather, &["`Relu no. 1` (Relu)", "is a constant"]);
    let concat = rows("Concat", &["conv.weight", "conv.weight"], &[int("axis", 1)]);
    check("nothing joined", concat, &["`Relu no. 1` (Relu)", "is a constant"]);
    let huge = weight(tensor("conv.weight", &[1 << 40, 1 << 20, 0], &[]));
    check("huge sides of nothing", huge, &[conv, "do not fit in memory"]);
    let dimensions = changed(|model| {
        model.tensors[0] = integers("conv.weight", &[1; 4000]);
        model.nodes[0] = node("Reshape", &["x", "conv.weight"], "a", &[]);
    });
    check("dimensions", dimensions, &["`Reshape no. 0` (Reshape)", "has 4000 dimensions"]);
    let axes: Vec<i64> = (2..72).collect();
    let dimensions = changed(|model| {
        model.tensors[0] = integers("conv.weight", &axes);
        model.nodes[0] = node("Unsqueeze", &["x", "conv.weight"], "a", &[]);
    });
    check("more dimensions", dimensions, &["`Unsqueeze no. 0` (Unsqueeze)", "74 dimensions"]);
    // A factor for each image of a batch, where a flattened image has its values in another order.
    let images = changed(|model| {
        model.inputs = vec![value("x", 1, &[four, Side::Size(2), one, Side::Size(2)])];
        model.tensors = vec![
            tensor("fc", &[4, 3], &[0.5; 12]),
            integers("shape", &[4, 4]),
            tensor("each", &[4, 1], &[1.0, 2.0, 3.0, 4.0]),
        ];
        model.nodes = vec![
            node("Transpose", &["x"], "t", &[ints("perm", &[0, 2, 3, 1])]),
            node("Reshape", &["t", "shape"], "r", &[]),
            node("Mul", &["r", "each"], "m", &[]),
            node("MatMul", &["m", "fc"], "y", &[]),
        ];
    });
    check("a factor for each image", images, &["`Mul no. 2` (Mul)", "dimension 0"]);
    let factor = changed(|model| {
        model.tensors.push(tensor("large", &[], &[1e30]));
        model.nodes[0] = node("Conv", &["x", "conv.weight"], "c1", &[ints("pads", &[1; 4])]);
        model.nodes.insert(1, node("Mul", &["c1", "large"], "c2", &[]));
        model.nodes.insert(2, node("Mul", &["c2", "large"], "a", &[]));
    });
    check("factors", factor, &["`conv.weight` comes to inf by the constants"]);
    let words = changed(|model| model.nodes[1] = node("Re\x1b[2Jlu\n", &["a"], "b", &[]));
    check("operation", words, &["the operation of its node no. 1 is no word"]);
    let window = instead("LRN", &["a"], &[int("size", i64::MAX)]);
    check("window", window, &["`LRN no. 1` (LRN)", "at most 4095 of them"]);
    let part = |op: &str, inputs: &[&str], attributes: &[Vec<u8>]| {
        changed(|model| {
            model.tensors.push(integers("one", &[1]));
            model.tensors.push(integers("two", &[2]));
            model.nodes[4] = node("Gemm", &["d", "fc.weight", "fc.bias"], "e", &[int("transB", 1)]);
            model.nodes.push(node("Softmax", &["e"], "p", &[]));
            model.nodes.push(node(op, inputs, "y", attributes));
        })
    };
    let some = "it takes some of the probabilities";
    check("slice", part("Slice", &["p", "one", "two", "one"], &[]), &["`Slice no. 6`", some]);
    check("gather", part("Gather", &["p", "one"], &[int("axis", 1)]), &["`Gather no. 6`", some]);
    let reshape = changed(|model| {
        model.tensors[0] = integers("conv.weight", &[-1, 0, 7]);
        model.nodes[0] = node("Reshape", &["x", "conv.weight"], "a", &[]);
    });
    check("shape", reshape, &["`Reshape no. 0` (Reshape)", "[-1, 0, 7]"]);

    // Constants that grow from node to node, and factors for a million channels in a thousand layers.
    let grow = changed(|model| {
        model.tensors[0] = tensor("conv.weight", &[1 << 16], &vec![0.5; 1 << 16]);
        model.tensors.push(integers("shape", &[1 << 7, 1 << 16]));
        model.nodes[0] = node("Expand", &["conv.weight", "shape"], "a", &[]);
    });
    check("growth", grow, &["`Expand no. 0`", "more weights than the model has"]);
    let many = changed(|model| {
        model.inputs = vec![value("x", 1, &[n, Side::Size(1 << 20), one, one])];
        model.tensors.push(tensor("half", &[], &[0.5]));
        model.nodes.clear();
        for index in 0..1000 {
            let names = ["x".to_owned(), format!("m{index}"), format!("r{index}")];
            let before = if index == 0 { "x".to_owned() } else { format!("r{}", index - 1) };
            model.nodes.push(node("Mul", &[&before, "half"], &names[1], &[]));
            model.nodes.push(node("Relu", &[&names[1]], &names[2], &[]));
        }
        model.outputs = vec![value("r999", 1, &[n])];
    });
    check("many factors", many, &["far more values than are in the file"]);
}

#[test]
fn everything_that_is_missing_is_named_at_once() {
    let mut model = Written::tiny();
    model.nodes[1] = node("LSTM", &["a"], "b1", &[]);
    model.nodes.insert(2, node("Resize", &["a"], "b2", &[]));
    model.nodes.insert(3, node("Add", &["b1", "b2"], "b", &[]));
    let error = model.read().unwrap_err();
    let message = error.to_string();
    assert!(message.starts_with("2 nodes are no layer"), "{message}");
    for part in ["`LSTM no. 1` (LSTM): recurrent", "`Resize no. 2` (Resize): networks that enlarge"]
    {
        assert!(message.contains(part), "{message}");
    }
    let explanation = error.explanation().unwrap();
    let became: Vec<String> =
        explanation.nodes.iter().map(|node| node.became.to_string()).collect();
    assert_eq!(became[0], "layer conv");
    assert!(became[1].starts_with("MISSING: recurrent"));
    assert!(became[3..].iter().all(|became| became == "unknown: an input is missing"));
}
