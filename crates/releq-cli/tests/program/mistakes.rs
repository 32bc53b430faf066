//! The mistakes of newcomers: each is answered with the option, what was expected, and the remedy.

use std::{fs, path::Path};

use releq::data::npz::{self, Array};

use crate::support::{command, refused, said, text};

#[test]
fn a_mistake_is_named_with_what_was_expected_and_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    fs::write(dir.join("notes.txt"), "these are no weights").unwrap();
    fs::write(dir.join("agent.json"), r#"{"lr": 0.1}"#).unwrap();
    fs::write(dir.join("agent.toml"), "gama = 0.1\n").unwrap();
    fs::write(dir.join("schedule.json"), r#"{"epoch": 3}"#).unwrap();
    fs::write(dir.join("shares.csv"), "bits;accuracy\n2-2;94.1\n").unwrap();
    let cases: &[(&str, i32, &[&str])] = &[
        ("train lenett --data digits --output DIR/w", 2, &["`lenett`", "did you mean `lenet`?"]),
        ("train --data digits --output DIR/w", 2, &["name a network", "releq list networks"]),
        ("trian lenet", 2, &["'trian'", "'train'"]),
        ("train lenet --outptu DIR/w", 2, &["'--outptu'", "'--output'"]),
        ("train lenet --data digits", 2, &["required", "--output <FILE>"]),
        (
            "train lenet --output DIR/w",
            2,
            &["no data for `lenet`", "--data digits", "RELEQ_DATA_DIR"],
        ),
        (
            "train lenet --data nowhere --output DIR/w",
            1,
            &["--data nowhere", "no such file or folder"],
        ),
        ("train lenet --data mnits --output DIR/w", 1, &["did you mean the data set `mnist`?"]),
        ("train lenet --data mnist --output DIR/w", 1, &["MNIST", "RELEQ_DATA_DIR", "--download"]),
        ("train lenet --data DIR --output DIR/w", 1, &["no data set in DIR", "train/CLASS"]),
        ("train lenet --data DATA --output DIR/no/w", 1, &["--output", "DIR/no"]),
        ("train lenet --data DATA --output DIR/w --bits 0", 2, &["--bits", "8,4,4,8"]),
        (
            "train lenet --data DATA --output DIR/w --bits 16",
            2,
            &["--bits 16: quantizer `wrpn-scaled-per-channel` takes 1 to 8 bits", "`float`"],
        ),
        (
            "train lenet --data DATA --output DIR/w --bits 2,4",
            2,
            &["--bits: 2 bitwidths for 4 layers (conv1, conv2, fc1, fc2)", "one for all"],
        ),
        ("train lenet --data DATA --output DIR/w --quantizer wrqn", 2, &["did you mean `wrpn`?"]),
        ("train lenet --data DATA --output DIR/w --backend gpu", 2, &["native, native-bf16, flex"]),
        ("train lenet --data DATA --output DIR/w --seed -1", 2, &["--seed", "0 or more"]),
        (
            "train lenet --data DATA --output DIR/w --schedule DIR/schedule.json",
            1,
            &["--schedule", "schedule.json", "unknown field `epoch`", "line 1"],
        ),
        (
            "train simplenet --data DATA --output DIR/w",
            1,
            &["[1, 28, 28]", "`simplenet` takes [3, 32, 32]"],
        ),
        ("train lenet --data DATA --output DIR/w --resize --image-memory 0", 2, &["above 0"]),
        ("evaluate lenet --data DATA", 2, &["--weights", "name the file"]),
        ("evaluate lenet --data DATA --weights DIR/notes.txt", 1, &["notes.txt"]),
        ("evaluate lenet --data DATA --weights DIR/none.pt", 1, &["none.pt"]),
        ("evaluate simplenet --data DATA --weights WEIGHTS", 1, &["it fits --network lenet"]),
        (
            "evaluate lenet --data DATA --weights WEIGHTS --threads 0",
            2,
            &["1 to 1024", "all cores"],
        ),
        ("evaluate lenet --data DATA --weights WEIGHTS --images 0", 2, &["1 or more"]),
        (
            "evaluate lenet --data digits --weights WEIGHTS --classes DIR/none.csv",
            2,
            &["--classes is for image files, but the digits are drawn"],
        ),
        ("cost lenet --bits 2,2", 2, &["2 bitwidths for 4 layers"]),
        ("cost lenet --bits 4 --cost stripe", 2, &["did you mean `stripes`?"]),
        ("cost vgg16", 2, &["--bits", "one for all"]),
        ("cost --layers DIR/none.csv --bits 4", 1, &["none.csv"]),
        (
            "replay --table TABLE --max-loss -1",
            2,
            &["--max-loss", "percentage points from 0 to 100"],
        ),
        ("replay --table TABLE --tolerance 1", 2, &["'--tolerance'"]),
        ("replay --table TABLE --cost size", 2, &["--cost size", "`releq replay lenet`"]),
        ("replay --table TABLE --limit size=80kB", 2, &["--limit size", "`releq replay lenet`"]),
        ("replay lenet --table TABLE --limit size=1kB", 1, &["met by no assignment"]),
        ("replay lenet --table TABLE --limit size=80KB", 2, &["--limit", "`KB` is not its unit"]),
        ("replay lenet --table TABLE --keep conv3=2", 2, &["--keep", "did you mean `conv"]),
        (
            "replay svhn --table TABLE",
            1,
            &["`svhn` has 8 quantizable layers, the table 4", "without"],
        ),
        ("export runs/nosuch --output DIR/a.onnx", 1, &["runs/nosuch", "is not a run folder"]),
        ("replay --table TABLE --bits 2,8", 2, &["--bits 8", "2, 3, 4 bits", "--on-miss nearest"]),
        ("replay --table TABLE --reward shape", 2, &["did you mean `shaped`?"]),
        ("replay --table TABLE --agent gready", 2, &["did you mean `greedy`?"]),
        ("replay --table TABLE --agent DIR/agent.json", 1, &["agent.json", "unknown field `lr`"]),
        ("replay --table TABLE --agent DIR/agent.toml", 1, &["agent.toml", "unknown field `gama`"]),
        ("replay --table DIR/shares.csv", 1, &["shares.csv", "line 2", "`accuracy_percent`"]),
        ("quantize --quantizer powers-of-two --bits 1", 2, &["--bits 1", "takes 2 to"]),
        ("quantize --channels 3", 1, &["--channels", "10000"]),
        ("bench lenet --repeats 0", 2, &["1 to 100000"]),
        ("bench lenet --repeats 18446744073709551615", 2, &["1 to 100000"]),
        ("bench vgg16", 2, &["no bitwidths for vgg16; set --bits"]),
        ("experiment clips", 2, &["'clips'", "'clip'"]),
        ("experiment clip", 2, &["--table", "--config"]),
        ("experiment clip --table TABLE --seeds 0 --into DIR/x", 2, &["--seeds", "3,8,21"]),
        ("experiment clip --table TABLE --clip-range 0 --into DIR/x", 2, &["above 0"]),
        ("experiment clip --table TABLE --agent greedy --into DIR/x", 2, &["\"greedy\"", "ppo"]),
        ("experiment clip --table TABLE --cost size --into DIR/x", 2, &["--cost size", "network"]),
        ("experiment rewards --table TABLE --reward division --into DIR/x", 2, &["--rewards"]),
        ("experiment pareto --config DIR/run.toml --into DIR/x", 2, &["releq pareto"]),
        ("experiment stripes --assignment a=4 --into DIR/x", 2, &["name the network"]),
        ("experiment stripes lenet --assignment found=4 --into DIR/x", 2, &["are taken"]),
        (
            "experiment stripes lenet --assignment a=4,4 --into DIR/x",
            2,
            &["--assignment", "4 layers"],
        ),
        ("experiment admm vgg11 --into DIR/x", 2, &["vgg11; give --admm-bits"]),
        ("experiment admm --admm-bits 4 --into DIR/x", 2, &["--admm-bits", "name their network"]),
        ("list network", 2, &["'networks'"]),
        ("completions bsh", 2, &["'bash'"]),
        ("", 2, &["Usage: releq"]),
    ];
    let mut wrong = Vec::new();
    for (line, code, expected) in cases {
        let output = command(line, dir).output().unwrap();
        let said = text(&output);
        let lacks = expected.iter().find(|expected| {
            let expected = expected.replace("_DIR", "_\0").replace("DIR", dir.to_str().unwrap());
            !said.contains(&expected.replace('\0', "DIR"))
        });
        let panicked = said.contains("panicked") || !output.stdout.is_empty();
        if output.status.code() != Some(*code) || lacks.is_some() || panicked {
            let status = output.status;
            wrong.push(format!("releq {line}\n{said}\n{status}, not {code}; lacks {lacks:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    assert_eq!(fs::read_dir(dir).unwrap().count(), 5, "a mistake leaves no file behind");
}

/// An image folder of another size, whose images can be scaled.
#[test]
fn a_size_that_does_not_fit_names_resize() {
    let folder = tempfile::tempdir().unwrap();
    for half in ["train", "test"] {
        let class = folder.path().join(half).join("0");
        fs::create_dir_all(&class).unwrap();
        image::GrayImage::new(20, 20).save(class.join("a.png")).unwrap();
    }
    let line = "train lenet --data DIR --output DIR/weights";
    let output = command(line, folder.path()).output().unwrap();
    let said = text(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for expected in ["[1, 20, 20]", "`lenet` takes [1, 28, 28]", "--resize scales its images"] {
        assert!(said.contains(expected), "{said}");
    }
}

/// Images of 28 x 28 as NumPy has them, for LeNet.
fn images(path: &Path, count: usize, change: impl Fn(&mut Vec<f32>), labels: Option<Vec<f32>>) {
    let mut values = vec![1.0; count * 784];
    change(&mut values);
    let x = Array { shape: vec![count, 1, 28, 28], values };
    let y = labels.map(|values| Array { shape: vec![count], values });
    let all: Vec<_> = [("x", &x)].into_iter().chain(y.as_ref().map(|y| ("y", y))).collect();
    npz::write(path, &all).unwrap();
}

#[test]
fn images_without_labels_have_no_accuracy() {
    let dir = tempfile::tempdir().unwrap();
    images(&dir.path().join("x.npz"), 10, |_| {}, None);
    let line = "evaluate lenet --weights WEIGHTS --data DIR/x.npz";
    refused(line, dir.path(), 1, "the images have no labels");
}

#[test]
fn images_that_are_no_numbers_get_no_class() {
    let dir = tempfile::tempdir().unwrap();
    let export = "export lenet --weights WEIGHTS --data DATA --bits 4 --activation-bits 8 --form packed --output DIR/p.safetensors";
    said(export, dir.path());
    for (value, expected) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf")] {
        images(&dir.path().join("x.npz"), 2, |values| values[784 + 9] = value, None);
        let expected = format!("array `x`: value 9 of image 1 is {expected}");
        for network in ["DIR/p.safetensors", "lenet --weights WEIGHTS"] {
            let line = format!("run {network} --input DIR/x.npz --top 1");
            refused(&line, dir.path(), 1, &expected);
        }
    }
}

#[test]
fn names_of_classes_that_are_not_all_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let files = shades(dir.path());
    let rows = |label: &dyn Fn(usize) -> String| {
        let mut text = "path,label,split\n".to_owned();
        for (index, file) in files.iter().enumerate() {
            for split in ["train", "test"] {
                text += &format!("{file},{},{split}\n", label(index));
            }
        }
        text
    };
    let list = dir.path().join("list.csv");
    let line = "evaluate lenet --weights WEIGHTS --data DIR/list.csv";
    fs::write(&list, rows(&|index| index.to_string())).unwrap();
    said(line, dir.path());
    fs::write(&list, rows(&|index| format!("digit {index}"))).unwrap();
    refused(line, dir.path(), 1, "has 9 classes, but network `lenet` has 10 outputs");
    // A list may have some of the network's classes, of folders too.
    let class = |split: &str, name: &str| dir.path().join("photos").join(split).join(name);
    for (split, name) in
        [("train", "dark"), ("train", "light"), ("test", "dark"), ("test", "light")]
    {
        fs::create_dir_all(class(split, name)).unwrap();
        for file in &files[if name == "dark" { 0..4 } else { 4..8 }] {
            fs::copy(dir.path().join(file), class(split, name).join(file)).unwrap();
        }
    }
    let line = "evaluate lenet --weights WEIGHTS --data DIR/photos";
    refused(line, dir.path(), 1, "has 2 classes, but network `lenet` has 10 outputs");
    let numbers = dir.path().join("numbers.json");
    fs::write(&numbers, r#"{"dark": 3, "light": 7}"#).unwrap();
    said(&format!("{line} --classes DIR/numbers.json"), dir.path());
    fs::write(&numbers, r#"{"dark": 3, "light": 17}"#).unwrap();
    let line = format!("{line} --classes DIR/numbers.json");
    refused(&line, dir.path(), 1, "has 18 classes, but network `lenet` has 10 outputs");
}

/// Writes nine images, and gives their names.
fn shades(dir: &Path) -> Vec<String> {
    (0..9)
        .map(|index| {
            let name = format!("{index}.png");
            image::GrayImage::from_pixel(28, 28, image::Luma([index]))
                .save(dir.join(&name))
                .unwrap();
            name
        })
        .collect()
}

#[test]
fn a_table_of_more_layers_than_any_network_has_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let row = vec!["2"; 100_000].join("-");
    fs::write(dir.path().join("wide.csv"), format!("bits,accuracy_percent\n{row},92\n")).unwrap();
    let expected = "wide.csv, line 2: 100000 bitwidths; networks have at most 2000 layers";
    refused("replay --table DIR/wide.csv", dir.path(), 1, expected);
}
