//! Cost models against other people's numbers: every row of the reference tables under
//! `$RELEQ_DATA_DIR/hw-reference`. Skipped, and said so, where the variable is not set.
#![allow(clippy::unwrap_used, reason = "the helpers of a test fail as the test does")]

use std::collections::HashMap;

use csv::StringRecord;
use releq::{Problem, SearchLayer};
use releq_core::{Bitwidth, CostModel, LayerBits, LayerKind, LayerProfile};
use releq_hw::{
    BitOperations, BitSerialCpu, CostKind, CostWeighted, Energy, MemoryTraffic, ModelSize, Stripes,
    speedup, uniform, weights_only,
};

/// The reference files print six decimals, of values up to 1e12; both sides use the same formula.
const RELATIVE_TOLERANCE: f64 = 1e-6;

/// Published gains are printed with two decimals.
const PRINTED_TOLERANCE: f64 = 0.005 + 1e-9;

/// Rows of one reference file, by column name.
struct Rows {
    columns: HashMap<String, usize>,
    records: Vec<StringRecord>,
}

impl Rows {
    fn read(file: &str) -> Option<Self> {
        let path = releq_test_support::data_dir()?.join("hw-reference").join(file);
        let mut reader = csv::Reader::from_path(&path)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let columns = reader.headers().unwrap().iter().map(str::to_owned).zip(0..).collect();
        let records: Vec<_> = reader.records().map(Result::unwrap).collect();
        assert!(!records.is_empty(), "{} is empty", path.display());
        Some(Self { columns, records })
    }

    fn text<'r>(&self, record: &'r StringRecord, column: &str) -> &'r str {
        &record[*self.columns.get(column).unwrap_or_else(|| panic!("no column {column}"))]
    }

    fn number<T: std::str::FromStr>(&self, record: &StringRecord, column: &str) -> T {
        let text = self.text(record, column);
        text.parse().unwrap_or_else(|_| panic!("`{text}` in column {column} of {record:?}"))
    }
}

/// Layers of every network, in order.
fn networks() -> Option<HashMap<String, Vec<LayerProfile>>> {
    let rows = Rows::read("layer_shapes.csv")?;
    let mut networks: HashMap<String, Vec<LayerProfile>> = HashMap::new();
    for record in &rows.records {
        let size = |column| rows.number::<usize>(record, column);
        let (inputs, outputs) = (size("in_ch"), size("out_ch"));
        let mut layer = LayerProfile::linear(rows.text(record, "layer"), inputs, outputs);
        layer.kind = match rows.text(record, "type") {
            "conv" => LayerKind::Conv2d,
            "dw" => LayerKind::DepthwiseConv2d,
            "fc" => LayerKind::Linear,
            other => panic!("layer type {other}"),
        };
        (layer.in_height, layer.in_width) = (size("in_h"), size("in_w"));
        (layer.out_height, layer.out_width) = (size("out_h"), size("out_w"));
        (layer.kernel, layer.stride) = (size("kernel").into(), size("stride").into());
        (layer.padding, layer.groups) = (size("pad").into(), size("groups"));
        assert_eq!(layer.weights(), rows.number::<u64>(record, "weights"), "{layer:?}");
        assert_eq!(layer.macs(), rows.number::<u64>(record, "macs"), "{layer:?}");
        networks.entry(rows.text(record, "network").to_owned()).or_default().push(layer);
    }
    Some(networks)
}

/// The layer that a row of another file is about.
fn layer<'n>(
    networks: &'n HashMap<String, Vec<LayerProfile>>,
    rows: &Rows,
    record: &StringRecord,
) -> &'n LayerProfile {
    let index: usize = rows.number(record, "layer_index");
    let layer = &networks[rows.text(record, "network")][index];
    assert_eq!(layer.name, rows.text(record, "layer"));
    layer
}

/// The published bitwidths, on the layers that they are mapped to.
fn published_bits() -> Option<HashMap<String, Vec<Bitwidth>>> {
    let rows = Rows::read("releq_bitwidths.csv")?;
    let mut bits: HashMap<String, Vec<Bitwidth>> = HashMap::new();
    for record in &rows.records {
        if rows.text(record, "layer_index").is_empty() {
            continue;
        }
        let network = bits.entry(rows.text(record, "network").to_owned()).or_default();
        assert_eq!(network.len(), rows.number::<usize>(record, "layer_index"));
        network.push(rows.number(record, "bits"));
    }
    Some(bits)
}

fn at(weight: u8, activation: u8) -> LayerBits {
    LayerBits::new(weight.try_into().unwrap(), activation.try_into().unwrap())
}

#[test]
fn stripes_equals_the_simulator_in_every_row() {
    let (Some(networks), Some(rows)) = (networks(), Rows::read("stripes_dnnsim_layers.csv")) else {
        return;
    };
    for record in &rows.records {
        let layer = layer(&networks, &rows, record);
        let bits = at(rows.number(record, "serial_bits"), 8);
        let cycles = Stripes::default().cycles(layer, bits).unwrap();
        assert_eq!(cycles, rows.number::<u64>(record, "compute_cycles"), "{record:?}");
    }
    println!("{} rows are equal", rows.records.len());
}

#[test]
fn cost_metrics_equal_every_row() {
    let (Some(networks), Some(rows)) = (networks(), Rows::read("cost_metrics_layers.csv")) else {
        return;
    };
    let narrow = BitSerialCpu { word_bits: 32.try_into().unwrap(), ..BitSerialCpu::default() };
    for record in &rows.records {
        let layer = layer(&networks, &rows, record);
        let bits = at(rows.number(record, "weight_bits"), rows.number(record, "act_bits"));
        let traffic = MemoryTraffic::default().bits(layer, bits);
        for (column, count) in [
            ("bops", BitOperations.count(layer, bits)),
            ("weight_bits_total", ModelSize::weights_only().bits(layer, bits)),
            ("weight_bits_total", traffic.weights),
            ("in_act_bits", traffic.inputs),
            ("out_act_bits", traffic.outputs),
            ("popcount_words_u64", BitSerialCpu::default().words(layer, bits).unwrap()),
            ("popcount_words_u32", narrow.words(layer, bits).unwrap()),
        ] {
            assert_eq!(count, rows.number::<u64>(record, column), "{column} of {record:?}");
        }
        let energy = Energy::default().breakdown(layer, bits);
        for (column, pj) in [
            ("mac_energy_pJ_qkeras_horowitz", energy.mac),
            ("weight_dram_energy_pJ_20p3125_per_bit", energy.weight_memory),
        ] {
            let expected: f64 = rows.number(record, column);
            let error = (pj - expected).abs() / expected.max(1.0);
            assert!(error <= RELATIVE_TOLERANCE, "{column} of {record:?}: {pj}");
        }
    }
    println!("{} rows are equal", rows.records.len());
}

/// The gains of the published bitwidths that the README of `releq-hw` prints.
#[test]
fn gains_of_the_published_bitwidths() {
    let (Some(networks), Some(bits)) = (networks(), published_bits()) else { return };
    let models: [&dyn CostModel; 4] =
        [&Stripes::default(), &Stripes::proportional(), &BitOperations, &ModelSize::weights_only()];
    for (network, expected) in [
        ("lenet", [3.83, 3.84, 3.68, 2.73]),
        ("simplenet", [1.60, 1.60, 1.60, 1.60]),
        ("svhn", [2.00, 2.00, 2.00, 2.00]),
        ("vgg11", [1.30, 1.30, 1.36, 1.33]),
        ("resnet20", [2.89, 2.89, 3.44, 3.55]),
        ("alexnet", [1.44, 1.66, 1.81, 1.87]),
        ("mobilenet_v1", [1.28, 1.28, 1.20, 1.14]),
        ("vgg16", [1.09, 1.09, 1.12, 1.16]),
    ] {
        let layers = &networks[network];
        let bits = weights_only(&bits[network]);
        let baseline = uniform(8, layers.len()).unwrap();
        for (model, expected) in models.into_iter().zip(expected) {
            let gain = speedup(model, layers, &bits, &baseline).unwrap();
            assert!(
                (gain - expected).abs() <= PRINTED_TOLERANCE,
                "{network}, {}: {gain}, not {expected}",
                model.name()
            );
        }
    }
}

#[test]
fn states_of_quantization_of_the_published_bitwidths() {
    let (Some(networks), Some(bits)) = (networks(), published_bits()) else { return };
    for (network, fixed_ends, mean_bits, cost_weighted) in
        [("lenet", false, 0.28125, 0.362_134_636), ("vgg11", true, 0.75, 0.7478)]
    {
        let (layers, bits) = (&networks[network], &bits[network]);
        for (cost, expected, tolerance) in [
            (CostKind::MeanBits, mean_bits, 1e-9),
            (CostKind::CostWeighted(CostWeighted::default()), cost_weighted, 5e-5),
        ] {
            let ends = [&layers[0].name, &layers[layers.len() - 1].name];
            let layer = |profile: &LayerProfile| SearchLayer {
                profile: profile.clone(),
                weight_std: 0.0,
                fixed: (fixed_ends && ends.contains(&&profile.name)).then_some(Bitwidth::EIGHT),
            };
            let problem = Problem::builder()
                .layers(layers.iter().map(layer).collect())
                .cost(cost.build().unwrap())
                .build()
                .unwrap();
            let state = problem.quant_state(bits).unwrap();
            assert!((state - expected).abs() <= tolerance, "{network}, {cost}: {state}");
        }
    }
}
