//! Networks written for other programs, and read again wherever a network is named.

use std::{collections::BTreeMap, fs};

use releq::{
    data::{
        Dataset, Normalization,
        digits::{self, DigitsConfig},
        npz,
    },
    format::{onnx, packed},
    zoo,
};

use crate::support::{command, refused, said, text};

#[test]
fn every_form_computes_what_the_rounded_weights_do() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let model = "MODELS/residual_b_kept_legacy.onnx";
    let images = "--input MODELS/residual_b_kept_legacy.npz --output DIR/out.npz";
    let logits = |network: &str| {
        said(&format!("run {network} {images}"), dir);
        npz::read(dir.join("out.npz"), "logits").unwrap()
    };
    let bits = "--bits 4,3,2,1,float --quantizer wrpn-scaled-per-channel";
    let expected = logits(&format!("{model} {bits}"));
    for (form, file) in [
        ("dq", "dq.onnx"),
        ("qcdq", "qcdq.onnx"),
        ("qonnx", "qonnx.onnx"),
        ("packed", "packed.safetensors"),
    ] {
        let told = said(&format!("export {model} {bits} --form {form} --output DIR/{file}"), dir);
        for part in ["stem", "wrpn-scaled-per-channel", "in single precision", "written to"] {
            assert!(told.contains(part), "`{told}` lacks `{part}`");
        }
        assert_eq!(logits(&format!("DIR/{file}")), expected, "{form}");
        let shown = said(&format!("import DIR/{file}"), dir);
        assert!(shown.contains("4-3-2-1-float in the mean"), "{shown}");
        // What is quantized already is written in another form as it is.
        said(&format!("export DIR/{file} --output DIR/again.onnx"), dir);
        assert_eq!(logits("DIR/again.onnx"), expected, "{form}, again");
    }
    let rounded = format!("export {model} {bits} --form safetensors --output DIR/w.safetensors");
    assert!(said(&rounded, dir).contains("not smaller"));
    assert_eq!(logits(&format!("{model} --weights DIR/w.safetensors")), expected);
    let json = format!("export {model} {bits} --opset 21 --output DIR/dq21.onnx --json");
    let output = command(&json, dir).output().unwrap();
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&json["opset"], &json["layers"][3]["stored"]), (&21.into(), &"int4".into()));
    assert_eq!(json["bytes"], fs::metadata(dir.join("dq21.onnx")).unwrap().len());
}

#[test]
fn the_answer_of_a_run_is_exported_with_the_names_of_its_model() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let pixels = "--mean 0.1307 --std 0.3081";
    said(
        &format!(
            "search MODELS/plain_legacy.onnx --data DATA {pixels} --evaluations 1 --short-epochs 0.2 --long-epochs 0.2 \
             --learning-rate 0.001 --no-comparison --run DIR/run"
        ),
        dir,
    );
    said("export DIR/run --output DIR/answer.onnx", dir);
    said("export DIR/run --form packed --output DIR/answer.safetensors", dir);
    let answer = onnx::open(dir.join("answer.onnx")).unwrap();
    assert_eq!((answer.frame.input.as_str(), answer.frame.output.as_str()), ("input", "logits"));
    assert_eq!(answer.quantizer.as_deref(), Some("wrpn-scaled-per-channel"));
    let bits = fs::read_to_string(dir.join("run/bits.json")).unwrap();
    let bits: serde_json::Value = serde_json::from_str(&bits).unwrap();
    for (layer, codes) in &answer.codes {
        assert_eq!(bits[layer], codes.bits().get());
    }
    let packed = packed::load(dir.join("answer.safetensors")).unwrap();
    assert_eq!(packed.about.mean, [0.1307]);
    assert_eq!(packed.about.classes.join(""), "0123456789");
    assert_eq!(packed.frame.input, "input");
    assert_eq!(packed.model.dequantized(), answer.weights);

    // What the run measured of these weights, and not in the mean of several seeds, is measured again, with the normalization
    // of the file.
    let expected: f64 = packed.about.origin["test accuracy"].parse().unwrap();
    let output =
        command("evaluate DIR/answer.safetensors --data DATA --json", dir).output().unwrap();
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["accuracy"].as_f64().unwrap(), expected);
    assert_eq!(json["quantizer"], "wrpn-scaled-per-channel");
    said("search DIR/answer.safetensors --data DATA --print-config", dir);

    refused(
        "export DIR/run --bits 4 --output DIR/x.onnx",
        dir,
        2,
        "a run has weights and bitwidths of its own",
    );
    fs::remove_file(dir.join("run/report.json")).unwrap();
    refused(
        "export DIR/run --output DIR/x.onnx",
        dir,
        1,
        "it has not come to its end; `releq resume",
    );
    assert!(!dir.join("x.onnx").exists());
    refused("export DIR --output DIR/x.onnx", dir, 1, "is not a run folder");
}

#[test]
fn activations_of_8_bits_are_calibrated_measured_and_written() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let int8 = "export lenet --weights WEIGHTS --bits 4 --activation-bits 8 --output DIR/int8.onnx";
    for rule in ["", "--percentile 99.9"] {
        let line = format!("{int8} --data DATA --calibration-images 100 {rule} --json");
        let output = command(&line, dir).output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let accuracy = |key: &str| json["accuracy"][key].as_f64().unwrap();
        assert_eq!((accuracy("test_images"), accuracy("calibration_images")), (64.0, 100.0));
        assert!((accuracy("weights_only") - accuracy("with_activations")).abs() < 0.1, "{json}");
        assert!(json["layers"].as_array().unwrap().iter().all(|layer| layer["stored"] == "int8"));
        assert_eq!(json["opset"], 13);
    }
    refused("import DIR/int8.onnx", dir, 1, "quantized already");
    let told = said(&format!("{int8} --data DATA"), dir);
    assert!(
        told.contains("with activations of 8 bits") && told.contains("neither smaller nor faster")
    );
    let part = |from: &str, to: &str| int8.replace(from, to);
    refused(&part("-bits 8", "-bits 4"), dir, 2, "--form packed takes fewer");
    refused(
        &part("-bits 8", "-bits 9"),
        dir,
        2,
        "--activation-bits 9: activations are written with 1",
    );
    refused(&format!("{int8} --form qcdq"), dir, 2, "--activation-bits is for the forms dq and");
    refused(int8, dir, 2, "no data for `lenet`");
    let model = "export MODELS/plain_legacy.onnx --bits 4 --activation-bits 8 --output DIR/x.onnx --data DATA";
    refused(model, dir, 2, "--preprocess: say how images were normalized");
    refused(&format!("{int8} --data DATA --percentile 40"), dir, 1, "not above 50");
}

#[test]
fn bitwidths_of_activations_that_were_searched_are_packed() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    said(
        "search MODELS/plain_legacy.onnx --data DATA --mean 0.1307 --std 0.3081 --activation-bits 4,8 --evaluations 4 \
         --short-epochs 0.2 --long-epochs 0.2 --learning-rate 0.001 --no-comparison --run DIR/run",
        dir,
    );
    let bits = fs::read_to_string(dir.join("run/bits.json")).unwrap();
    let bits: BTreeMap<String, u8> = serde_json::from_str(&bits).unwrap();
    let rounded = |name: &str| bits.get(&format!("{name}.activations")).copied();
    assert!([4, 8].contains(&rounded("input").unwrap()), "{bits:?}");
    // On the data of the run, or on what is named.
    for data in ["", "--data DATA"] {
        let line = format!("export DIR/run --form packed --output DIR/p.safetensors {data}");
        let told = said(&line, dir);
        assert!(told.contains("with activations of"), "{told}");
    }
    let packed = packed::load(dir.join("p.safetensors")).unwrap();
    assert_eq!(packed.frame.input, "input");
    let grids = packed.activations.unwrap();
    assert_eq!(Some(grids.input.bits.get()), rounded("input"));
    let searched = grids.layers.iter().filter(|(name, grid)| {
        let found = rounded(name);
        assert!(found.is_none_or(|bits| bits == grid.bits.get()), "{name}");
        found.is_some()
    });
    assert_eq!(searched.count() + 1, bits.len() - packed.model.layers().count());
    let told = said("run DIR/p.safetensors --explain", dir);
    assert!(told.contains("int8"), "{told}");
    // Other forms have the weights alone, under the names of the model.
    said("export DIR/run --output DIR/answer.onnx", dir);
    assert_eq!(onnx::open(dir.join("answer.onnx")).unwrap().frame.output, "logits");
    // A packed file may have them alone too, and then takes no images.
    said("export DIR/run --form packed --activation-bits 32 --output DIR/w.safetensors", dir);
    assert!(packed::load(dir.join("w.safetensors")).unwrap().activations.is_none());
    let page = fs::read_to_string(dir.join("run/report.html")).unwrap();
    assert!(page.contains("to the bits that were found or to 8"));
    assert!(page.contains("of activations 4 and 8"));
    let layers = packed.model.layers().count();
    assert!(page.contains(&format!("of the weights of each of {layers} layers")));

    refused(
        "search lenet --data DATA --activation-bits 4,9 --no-run",
        dir,
        2,
        "--activation-bits 9: activations are rounded to 1 to 8 bits",
    );
    refused(
        "pareto resnet20 --data DATA --activation-bits 4,8 --no-run",
        dir,
        2,
        "7 bitwidths for weights and 2 for activations to choose from are more than",
    );
    // Its configuration has layers that a checkpoint knows nothing of.
    let printed = |line: &str| {
        let output = command(line, dir).output().unwrap();
        assert!(output.status.success(), "releq {line}\n{}", text(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    let written =
        printed("search lenet --weights WEIGHTS --data DATA --activation-bits 4,8 --print-config");
    fs::write(dir.join("config.toml"), &written).unwrap();
    let read = printed("search --config DIR/config.toml --weights WEIGHTS --print-config");
    assert_eq!(read, written);
}

#[test]
fn packed_networks_with_activations_run_on_integers() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let packed = "export lenet --weights WEIGHTS --bits 4 --activation-bits 8 --form packed --output DIR/p.safetensors";
    let told = said(&format!("{packed} --data DATA --calibration-images 100"), dir);
    assert!(
        told.contains("with activations of 8 bits") && told.contains("with integer kernels"),
        "{told}"
    );
    // Upright strokes, as normalized as the digits that ranges come from.
    let pixel = |at: usize| {
        let (image, row, column) = (at / 784, at / 28 % 28, at % 28);
        let is_stroke = (4..24).contains(&row) && (12..15 + image).contains(&column);
        if is_stroke { 2.8 } else { -0.42 }
    };
    let images: Vec<f32> = (0..3 * 784).map(pixel).collect();
    let array = npz::Array { shape: vec![3, 1, 28, 28], values: images };
    npz::write(dir.join("x.npz"), &[("x", &array)]).unwrap();
    let run = "run DIR/p.safetensors --input DIR/x.npz";
    let told = said(&format!("{run} --output DIR/integers.npz --top 2"), dir);
    assert!(told.contains("class") && told.contains("3 images"), "{told}");
    said(&format!("{run} --output DIR/floats.npz --backend native"), dir);
    let logits = |file: &str| npz::read(dir.join(file), "logits").unwrap().values;
    let (integers, floats) = (logits("integers.npz"), logits("floats.npz"));
    assert_ne!(integers, floats);
    let reach = floats.iter().fold(0.0_f32, |reach, logit| reach.max(logit.abs()));
    for (a, b) in integers.iter().zip(&floats) {
        assert!((a - b).abs() < 0.1 * reach, "{a} {b}, of {reach}");
    }
    // Every instruction set and any number of threads give the same.
    for how in ["--isa portable", "--threads 3"] {
        said(&format!("{run} --output DIR/again.npz {how}"), dir);
        assert_eq!(logits("again.npz"), integers, "{how}");
    }
    let told = said("run DIR/p.safetensors --explain", dir);
    assert!(told.contains("conv1") && told.contains("int8"), "{told}");
    // The grids stay in another file of the same weights.
    said("export DIR/p.safetensors --form packed --output DIR/q.safetensors", dir);
    assert_eq!(
        packed::load(dir.join("q.safetensors")).unwrap().activations,
        packed::load(dir.join("p.safetensors")).unwrap().activations
    );
    // Fewer bits for what some layers read.
    let few =
        packed.replace("-bits 8", "-bits 8,4,4,6").replace("p.safetensors", "few.safetensors");
    let told = said(&format!("{few} --data DATA --calibration-images 100"), dir);
    assert!(told.contains("with activations of 8-4-4-6 bits"), "{told}");
    let bits = |layer: &str| {
        let packed = packed::load(dir.join("few.safetensors")).unwrap();
        packed.activations.unwrap().layers[layer].bits.get()
    };
    assert_eq!(["pool1", "pool2", "relu3"].map(bits), [4, 4, 6]);
    let run_few = "run DIR/few.safetensors --input DIR/x.npz";
    said(&format!("{run_few} --output DIR/few.npz"), dir);
    said(&format!("{run_few} --output DIR/again.npz --isa portable"), dir);
    assert_eq!(logits("again.npz"), logits("few.npz"));
    assert_ne!(logits("few.npz"), integers);
    let uneven = few.replace("8,4,4,6", "8,4");
    refused(&format!("{uneven} --data DATA"), dir, 1, "2 bitwidths for 4 layers");
    let told = said("bench DIR/p.safetensors --repeats 2", dir);
    assert!(told.contains("conv1") && told.contains("single precision"), "{told}");
    refused("bench DIR/p.safetensors lenet", dir, 2, "name either");
    refused(&format!("{run} --top 2 --bits 4 --isa portable"), dir, 2, "--isa");
    refused("run lenet --weights WEIGHTS --explain", dir, 2, "--explain");
    refused("run DIR/p.safetensors", dir, 2, "--input");
}

/// Image files are decoded and normalized as the network's images are, and named in what is told.
#[test]
fn image_files_run_as_their_numbers_do() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let drawn =
        digits::generate(&DigitsConfig { train: 5, test: 1, ..DigitsConfig::default() }).unwrap();
    let photos = dir.join("photos");
    fs::create_dir(&photos).unwrap();
    for index in 0..5 {
        let pixels = drawn.train.image(index).to_vec();
        let image = image::GrayImage::from_raw(28, 28, pixels).unwrap();
        image.save(photos.join(format!("{index}.png"))).unwrap();
    }
    said(
        "export lenet --weights WEIGHTS --bits 4 --activation-bits 8 --form packed --data DATA --calibration-images 100 \
         --mean 0.2 --std 0.4 --output DIR/p.safetensors",
        dir,
    );
    let about = packed::load(dir.join("p.safetensors")).unwrap().about;
    let of_file = Normalization::new(about.mean, about.std).unwrap();
    let of_preset = zoo::preset("lenet").unwrap().normalization;
    assert_ne!(of_file, of_preset);
    let logits = |file: &str| npz::read(dir.join(file), "logits").unwrap().values;
    for (network, normalization) in
        [("lenet --weights WEIGHTS", of_preset), ("DIR/p.safetensors", of_file)]
    {
        let (mut values, mut labels) = (Vec::new(), Vec::new());
        drawn.train.gather(&[0, 1, 2, 3, 4], &normalization, &mut values, &mut labels).unwrap();
        let array = npz::Array { shape: vec![5, 1, 28, 28], values };
        npz::write(dir.join("x.npz"), &[("x", &array)]).unwrap();
        said(&format!("run {network} --input DIR/x.npz --output DIR/a.npz"), dir);
        said(&format!("run {network} --input DIR/photos --output DIR/b.npz"), dir);
        assert_eq!(logits("a.npz"), logits("b.npz"), "{network}");
    }

    // By name, in the order of the files given, as a table and as JSON.
    let run = "run DIR/p.safetensors --input DIR/photos/3.png DIR/photos/1.png --top 2";
    let names = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"];
    fs::write(dir.join("names.txt"), names.join("\n")).unwrap();
    let told = said(&format!("{run} --classes DIR/names.txt"), dir);
    assert!(told.contains("3.png") && names.iter().any(|name| told.contains(name)), "{told}");
    let output = command(&format!("{run} --json"), dir).output().unwrap();
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let images = told["images"].as_array().unwrap();
    assert!(images[0]["image"].as_str().unwrap().ends_with("3.png"), "{told}");
    let outputs = |image: usize| images[image]["classes"].as_array().unwrap();
    assert!(outputs(1)[0]["output"].as_f64() >= outputs(1)[1]["output"].as_f64(), "{told}");
    let first = logits("b.npz")[30..40].iter().copied().fold(f32::MIN, f32::max);
    assert_eq!(outputs(0)[0]["output"].as_f64(), Some(f64::from(first)), "{told}");
    let output = command("run DIR/p.safetensors --explain --json", dir).output().unwrap();
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told["layers"][0]["layer"], "conv1", "{told}");

    let run = "run DIR/p.safetensors --top 1 --input";
    fs::write(photos.join("bad.png"), "no image").unwrap();
    refused(&format!("{run} DIR/photos"), dir, 1, "bad.png");
    assert!(said(&format!("{run} DIR/photos --skip-bad-images"), dir).contains("without 1 that"));
    refused(&format!("{run} DIR/none.png"), dir, 1, "none.png: there is no such file or folder");
    refused(&format!("{run} DIR/x.npz DIR/photos"), dir, 2, "named alone");
    refused(&format!("{run} DIR/x.npz --resize"), dir, 2, "--resize is for image files");
    refused(&format!("{run} DIR/x.npz --mean 0.5 --std 0.5"), dir, 2, "--mean is for image files");
    refused("run DIR/p.safetensors --input DIR/x.npz --json --output DIR/o.npz", dir, 2, "--top");
    let small = image::GrayImage::new(14, 14);
    small.save(dir.join("small.png")).unwrap();
    refused(&format!("{run} DIR/small.png"), dir, 1, "--resize scales them");
    said(&format!("{run} DIR/small.png --resize"), dir);
}

#[test]
fn what_cannot_be_exported_is_refused_with_its_reason() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let export = |rest: &str| format!("export MODELS/plain_legacy.onnx --output DIR/x.onnx {rest}");
    refused("export lenet --output DIR/x.onnx", dir, 2, "--weights: name the file");
    refused("export lenett --output DIR/x.onnx", dir, 2, "did you mean `lenet`?");
    refused(
        &export("--bits 4 --quantizer powers-of-two"),
        dir,
        1,
        "powers-of-two has no integer codes",
    );
    refused(&export("--bits 4,4"), dir, 2, "--bits: 2 bitwidths for 4 layers");
    refused(&export("--bits 8 --quantizer dorefa --form qcdq"), dir, 1, "write dq");
    refused(&export("--bits 8 --quantizer dorefa --opset 20"), dir, 1, "needs version 21");
    refused(&export("--opset 12"), dir, 2, "12 is not in 13..=25");
    refused(&export("--form packed --opset 13"), dir, 2, "--opset is for the forms of ONNX");
    refused(&export("--form packed --bits 4"), dir, 2, "a name that ends in .safetensors");
    refused(&export("--form onnx"), dir, 2, "dq, qcdq, qonnx, packed, safetensors");
    refused(
        "export MODELS/plain_legacy.onnx --output MODELS/plain_legacy.onnx",
        dir,
        2,
        "name the same file",
    );
    let told = said(&export(""), dir);
    assert!(told.contains("no layer is quantized"), "{told}");
    fs::write(dir.join("x.safetensors"), fs::read(dir.join("x.onnx")).unwrap()).unwrap();
    refused("import DIR/x.safetensors", dir, 1, "x.safetensors: this is no packed network");
}
