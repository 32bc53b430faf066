//! Measured latencies: as a cost model, as a file, and what is refused.
#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

use std::{fs, num::NonZeroUsize, path::Path, time::Duration};

use releq_core::{
    Bitwidth, Conv2d, CostModel, LayerBits, LayerKind, LayerProfile, Network, sealed, with_causes,
};
use releq_hw::{
    CpuKernels, CpuLatency, CpuNetwork, LatencyConfig, LatencyError, LatencyTable, cost_report,
    uniform,
};
use serde_json::Value;

fn layers() -> Vec<LayerProfile> {
    let network = Network::builder("small", [3, 12, 12])
        .conv2d("first", 16, 3)
        .conv2d("second", 16, 3)
        .conv2d("third", 16, 3)
        .flatten("flat")
        .linear("fc", 10)
        .build()
        .unwrap();
    network.profiles()
}

fn quick(kernels: CpuKernels) -> LatencyConfig {
    let repeats = NonZeroUsize::new(3).unwrap();
    LatencyConfig { kernels, repeats, sample: Duration::from_micros(50), ..Default::default() }
}

fn measure(kernels: CpuKernels) -> LatencyTable {
    let layers = layers();
    let bits = [2, 8].map(|bits| uniform(bits, 1).unwrap()[0]);
    let work = layers.iter().flat_map(|layer| bits.map(|bits| (layer, bits)));
    LatencyTable::measure(work, &quick(kernels), &mut |_, _| ()).unwrap()
}

#[test]
fn a_measured_network_has_costs_layer_by_layer() {
    let (layers, table) = (layers(), measure(CpuKernels::Best));
    assert_eq!(table.rows.len(), 4 * 2, "every layer has a shape of its own");
    let cpu = CpuLatency::new(table).unwrap();
    assert_eq!((cpu.name(), cpu.unit()), ("cpu-latency", "us"));
    let bits = uniform(2, layers.len()).unwrap();
    let each: Vec<f64> =
        layers.iter().zip(&bits).map(|(l, &b)| cpu.layer_cost(l, b).unwrap().0).collect();
    assert!(each.iter().all(|&us| us > 0.0));
    let total = cpu.network_cost(&layers, &bits).unwrap().0;
    assert!((total - each.iter().sum::<f64>()).abs() < 1e-9);

    // The same shape by another name costs the same; another shape or other bits were not measured.
    let mut renamed = layers[0].clone();
    renamed.name = "other".into();
    renamed.bias = !renamed.bias;
    assert_eq!(cpu.layer_cost(&renamed, bits[0]).unwrap().0, each[0]);
    let mut wider = layers[0].clone();
    wider.out_channels = 17;
    let error = cpu.layer_cost(&wider, bits[0]).unwrap_err().to_string();
    assert!(error.contains("`first`") && error.contains("2 x 2 bits"), "{error}");
    let other = uniform(3, 1).unwrap()[0];
    assert!(cpu.layer_cost(&layers[0], other).is_err());
}

#[test]
fn measuring_for_a_report_measures_its_baseline_too() {
    let layers = layers();
    let bits = uniform(4, layers.len()).unwrap();
    let cpu = CpuLatency::measure(&layers, &bits, &quick(CpuKernels::Best)).unwrap();
    let report = cost_report([cpu], &layers, &bits, None).unwrap();
    assert_eq!((report.models.len(), report.unpriced.len()), (1, 0));
    assert!(report.models[0].total.gain_over_uniform8() > 0.0);
    let short = CpuLatency::measure(&layers, &bits[1..], &quick(CpuKernels::Best)).unwrap_err();
    assert!(matches!(short, LatencyError::LengthMismatch { layers: 4, bits: 3 }));
}

#[test]
fn shapes_are_measured_once_and_progress_ends_at_all() {
    let layers = layers();
    let bits = uniform(4, layers.len()).unwrap();
    let twice = || layers.iter().chain(&layers).zip(bits.iter().chain(&bits).copied());
    let config = quick(CpuKernels::BitSerial);
    let mut heard = Vec::new();
    let mut table =
        LatencyTable::measure(twice(), &config, &mut |done, all| heard.push((done, all))).unwrap();
    assert_eq!(table.rows.len(), 4);
    assert_eq!((heard.first(), heard.last()), (Some(&(0, 4)), Some(&(4, 4))));
    assert!(table.rows.iter().all(|row| row.kernel.starts_with("bit-serial: ")));

    let before = table.clone();
    table.extend(twice(), &config, &mut |_, _| ()).unwrap();
    assert_eq!(table, before);
    let more = uniform(5, 1).unwrap()[0];
    table.extend([(&layers[0], more)], &config, &mut |_, _| ()).unwrap();
    assert_eq!(table.rows[..4], before.rows);
    assert_eq!(table.rows[4].bits, more);
    let other = table.extend(twice(), &quick(CpuKernels::Int8), &mut |_, _| ()).unwrap_err();
    let other = other.to_string();
    assert!(other.contains("kernels bit-serial") && other.contains("int8"), "{other}");
}

#[test]
fn a_table_survives_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("latency.json");
    let mut table = measure(CpuKernels::Int8);
    table.commit = Some("abc1234".into());
    table.save(&path).unwrap();
    assert_eq!(LatencyTable::load(&path).unwrap(), table);
    assert_eq!(table.date.len(), "2026-11-23T00:00:00Z".len());
    let text = fs::read_to_string(&path).unwrap();
    for field in ["\"processor\"", "\"median_us\"", "\"high_us\"", "\"repeats\": 3", "abc1234"] {
        assert!(text.contains(field), "{field}");
    }
}

#[test]
fn foreign_tables_are_refused_unless_told_otherwise() {
    let mut table = measure(CpuKernels::Best);
    table.machine.processor = "Another Processor 9000".into();
    let error = CpuLatency::new(table.clone()).unwrap_err();
    assert!(matches!(error, LatencyError::Foreign { .. }));
    assert!(error.to_string().contains("Another Processor 9000"), "{error}");
    let layers = layers();
    let bits = uniform(8, layers.len()).unwrap();
    let work = layers.iter().zip(bits.iter().copied());
    let extended = table.extend(work, &quick(CpuKernels::Best), &mut |_, _| ());
    assert!(matches!(extended, Err(LatencyError::Foreign { .. })));
    let cpu = CpuLatency::of_any_machine(table);
    assert!(cpu.network_cost(&layers, &bits).unwrap().0 > 0.0);
}

#[test]
fn damaged_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("latency.json");
    let load = |path: &Path| LatencyTable::load(path).unwrap_err();
    assert!(matches!(load(&path), LatencyError::Text(_)));
    let table = measure(CpuKernels::Best);
    table.save(&path).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    let first = serde_json::to_string(&table.rows[0]).unwrap();
    let resealed = |text: String| {
        let mut object = serde_json::from_str(&text).unwrap();
        sealed::seal(&mut object);
        serde_json::to_string(&object).unwrap()
    };
    // By place and not by value: two rows may well have the same time.
    let second_median = |median: f64| {
        let mut object: Value = serde_json::from_str(&text).unwrap();
        object["rows"][1]["timing"]["median_us"] = median.into();
        object.to_string()
    };
    for (damaged, expected) in [
        (String::new(), "not a latency table"),
        (text[..text.len() / 2].to_owned(), "line"),
        (text.replace("\"format\": 2", "\"format\": 1"), "format is 1"),
        (second_median(table.rows[1].timing.median_us + 0.25), "checksum is of other content"),
        (resealed(second_median(-1.0)), "row 1"),
        (
            resealed(text.replacen("\"rows\": [", &format!("\"rows\": [{first},"), 1)),
            "occurs twice",
        ),
        (resealed(text.replacen("\"threads\": 1", "\"threads\": 0", 1)), "nonzero"),
        ("{\"weights\": []}".to_owned(), "no checksum"),
        (resealed("{\"weights\": []}".to_owned()), "unknown field `weights`"),
    ] {
        assert_ne!(damaged, text);
        fs::write(&path, damaged).unwrap();
        let error = load(&path);
        assert!(matches!(error, LatencyError::Damaged { .. }));
        let error = error.to_string();
        assert!(error.contains("latency.json") && error.contains(expected), "{error}");
    }
}

#[test]
fn a_table_with_any_bit_flipped_or_any_end_missing_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("latency.json");
    let table = measure(CpuKernels::Best);
    table.save(&path).unwrap();
    let whole = fs::read(&path).unwrap();
    // The line's end and the brace before it.
    let last = whole.len() - 2;
    let mut refused = 0;
    for case in 0..200 {
        let place = case * last / 199;
        let mut flipped = whole.clone();
        flipped[place] ^= 1 << (case % 8);
        for damaged in [&flipped, &whole[..place]] {
            fs::write(&path, damaged).unwrap();
            match LatencyTable::load(&path) {
                // Another last digit may be the same number.
                Ok(read) => assert_eq!(read, table, "bit {} of byte {place}", case % 8),
                Err(error) => {
                    assert!(error.to_string().contains("latency.json"), "{error}");
                    refused += 1;
                }
            }
        }
    }
    assert!(refused > 390, "{refused}");
}

#[test]
fn a_table_that_an_editor_saved_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("latency.json");
    let table = measure(CpuKernels::Best);
    table.save(&path).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("\u{feff}{text}")).unwrap();
    assert_eq!(LatencyTable::load(&path).unwrap(), table);
}

#[test]
fn windows_that_the_integer_kernels_lack_are_refused_by_name() {
    let eight = uniform(8, 1).unwrap()[0];
    for (conv, part) in [
        (Conv2d::new(4, [1, 3]), "kernel [1, 3]"),
        (Conv2d::new(4, 3).stride([1, 2]), "stride [1, 2]"),
        (Conv2d::new(4, 3).padding([0, 0, 1, 1]), "padding [0, 0, 1, 1]"),
        (Conv2d::new(4, 3).dilation(2), "dilation 2"),
    ] {
        let layer = LayerProfile::conv2d("uneven", [4, 8, 8], conv).unwrap();
        let settings = quick(CpuKernels::Best);
        let error = LatencyTable::measure([(&layer, eight)], &settings, &mut |_, _| ());
        let message = error.unwrap_err().to_string();
        assert!(message.contains("layer `uneven`") && message.contains(part), "{message}");
    }
}

#[test]
fn grouped_convolutions_are_measured() {
    let conv = |outputs, groups| {
        let conv = Conv2d::new(outputs, 3).padding(1).groups(groups).without_bias();
        LayerProfile::conv2d("conv", [16, 8, 8], conv).unwrap()
    };
    let eight = uniform(8, 1).unwrap()[0];
    let kernel = |layer: &LayerProfile, kernels| {
        let table = LatencyTable::measure([(layer, eight)], &quick(kernels), &mut |_, _| ());
        table.unwrap().rows[0].kernel.clone()
    };
    let grouped = kernel(&conv(16, 4), CpuKernels::Best);
    assert!(grouped.starts_with("int8: ") && grouped.ends_with("each of 4 groups"), "{grouped}");
    assert!(kernel(&conv(16, 4), CpuKernels::BitSerial).starts_with("bit-serial: "));
    // Two outputs for every channel are more than the depthwise kernel takes.
    assert!(kernel(&conv(32, 16), CpuKernels::Best).ends_with("each of 16 groups"));

    // A depthwise convolution is one by either name, also in a table that has the other.
    let depthwise = conv(16, 16);
    let mut renamed = depthwise.clone();
    renamed.kind = LayerKind::Conv2d;
    assert!(kernel(&renamed, CpuKernels::Best).starts_with("depthwise: "));
    let work = [(&depthwise, eight)];
    let table = LatencyTable::measure(work, &quick(CpuKernels::Best), &mut |_, _| ()).unwrap();
    let cpu = CpuLatency::new(table).unwrap();
    assert_eq!(cpu.layer_cost(&renamed, eight), cpu.layer_cost(&depthwise, eight));
    assert!(cpu.layer_cost(&renamed, eight).is_ok());
}

#[test]
fn layers_without_a_kernel_are_named() {
    let mut layers = layers();
    let bits = |bits: u8| LayerBits::weights_only(bits.try_into().unwrap());
    let config = quick(CpuKernels::Best);
    let mut never = |_: usize, _: usize| ();
    let float = LayerBits::weights_only(Bitwidth::FLOAT);
    let error = LatencyTable::measure([(&layers[0], float)], &config, &mut never).unwrap_err();
    assert!(error.to_string().contains("no CPU kernel for float x 8 bits"), "{error}");
    let wide = LatencyTable::measure([(&layers[0], bits(9))], &config, &mut never).unwrap_err();
    let wide = with_causes(&wide);
    assert!(wide.contains("layer `first`") && wide.contains('9'), "{wide}");
    layers[1].groups = 3;
    let uneven = LatencyTable::measure([(&layers[1], bits(4))], &config, &mut never);
    let uneven = uneven.unwrap_err().to_string();
    assert!(uneven.contains("layer `second`") && uneven.contains("3 groups"), "{uneven}");

    let (isa, one) = (config.isa, NonZeroUsize::MIN);
    let short = CpuNetwork::new(&layers[..1], &[], CpuKernels::Best, isa, one).unwrap_err();
    assert!(matches!(short, LatencyError::LengthMismatch { layers: 1, bits: 0 }));
    let mut network =
        CpuNetwork::new(&layers[..1], &[bits(4)], CpuKernels::Best, isa, one).unwrap();
    network.run();
    let (name, choice) = network.choices().next().unwrap();
    assert_eq!((name, choice.to_string().starts_with("int8: ")), ("first", true));
}
