//! `releq list`: the names that options take.

use std::process::ExitCode;

use anyhow::Result;
use clap::ValueEnum;
use releq::{
    core::Network, data::DataKind, hw::CostKind, quant::QuantizerKind, reward::RewardKind,
    train::Backend, zoo,
};
use serde::Serialize;

use crate::{
    args::{AgentArg, data::DIGITS},
    terminal::{output::print, tables},
};

/// List the names that options take, with one line on each
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  releq list networks
  releq list costs --json")]
pub(crate) struct Args {
    /// What to list [default: everything]
    #[arg(value_name = "KIND")]
    kind: Option<Kind>,
    /// Print a JSON object instead of tables
    #[arg(long)]
    json: bool,
}

/// Kinds of names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// For NETWORK
    Networks,
    /// For --data
    Data,
    /// For --quantizer
    Quantizers,
    /// For --reward
    Rewards,
    /// For --cost and --limit
    Costs,
    /// For --agent
    Agents,
    /// For --backend
    Backends,
}

/// A name and what it stands for.
#[derive(Debug, Serialize)]
struct Item {
    name: String,
    description: String,
}

impl Args {
    pub(crate) fn run(&self) -> Result<ExitCode> {
        let kinds = match &self.kind {
            Some(kind) => std::slice::from_ref(kind),
            None => Kind::value_variants(),
        };
        let lists = kinds.iter().map(|&kind| (title(kind), items(kind)));
        if self.json {
            let object: serde_json::Map<String, serde_json::Value> = lists
                .map(|(title, items)| Ok((title, serde_json::to_value(items)?)))
                .collect::<Result<_>>()?;
            print(serde_json::to_string_pretty(&object)?)?;
            return Ok(ExitCode::SUCCESS);
        }
        let text = lists.map(|(title, items)| {
            let mut table = tables::plain();
            for Item { name, description } in items {
                table.add_row([name, description]);
            }
            match self.kind {
                Some(_) => tables::text(&table),
                None => format!("{title}:\n{}\n", tables::text(&table)),
            }
        });
        let text: Vec<String> = text.collect();
        print(text.join("\n").trim_end())?;
        Ok(ExitCode::SUCCESS)
    }
}

fn title(kind: Kind) -> String {
    kind.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

fn items(kind: Kind) -> Vec<Item> {
    match kind {
        Kind::Networks => zoo::NAMES
            .iter()
            .filter_map(|name| {
                let description = network(&zoo::by_name(name).ok()?);
                Some(Item { name: (*name).to_owned(), description })
            })
            .collect(),
        Kind::Data => described(
            [DIGITS.to_owned()]
                .into_iter()
                .chain(DataKind::ALL.into_iter().map(|kind| kind.slug().to_owned())),
            &DATA,
        ),
        Kind::Quantizers => described(QuantizerKind::ALL, &QUANTIZERS),
        Kind::Rewards => {
            let names = RewardKind::all().into_iter().map(|kind| kind.to_string());
            described(names.chain(["exchange".to_owned()]), &REWARDS)
        }
        Kind::Costs => {
            let others = ["roofline", "cpu-latency", "weighted-sum"].map(str::to_owned);
            let names = CostKind::all().into_iter().map(|kind| kind.name().to_owned());
            described(names.chain(others), &COSTS)
        }
        Kind::Agents => AgentArg::presets()
            .map(|(name, description)| Item { name: name.into(), description: description.into() })
            .collect(),
        Kind::Backends => described(Backend::ALL, &BACKENDS),
    }
}

/// What the network itself says, so that nothing here can be wrong of it.
fn network(network: &Network) -> String {
    let layers = network.profiles();
    let [channels, height, width] = network.input();
    let weights: u64 = layers.iter().map(|layer| layer.weights()).sum();
    let macs: u64 = layers.iter().map(|layer| layer.macs()).sum();
    let preset = zoo::preset(network.name());
    let data = preset.map_or_else(String::new, |preset| format!("{}, ", preset.data));
    format!(
        "{data}{channels}x{height}x{width}, {} layers, {} weights, {} MACs",
        layers.len(),
        rounded(weights),
        rounded(macs)
    )
}

fn rounded(count: u64) -> String {
    let count = count as f64;
    if count < 1e6 { format!("{:.0} k", count / 1e3) } else { format!("{:.1} M", count / 1e6) }
}

/// Every name with its description; one without is listed all the same.
fn described<N: ToString>(
    names: impl IntoIterator<Item = N>,
    descriptions: &[(&str, &str)],
) -> Vec<Item> {
    let item = |name: N| {
        let name = name.to_string();
        let known = descriptions.iter().find(|(known, _)| *known == name);
        let description = known.map_or_else(String::new, |(_, text)| (*text).to_owned());
        Item { name, description }
    };
    names.into_iter().map(item).collect()
}

const DATA: [(&str, &str); 8] = [
    (DIGITS, "digits of 28 x 28 that releq draws, always the same"),
    ("mnist", "MNIST: handwritten digits, 28 x 28"),
    ("fashion-mnist", "Fashion-MNIST: pieces of clothing, 28 x 28"),
    ("cifar10", "CIFAR-10: animals and vehicles, 32 x 32 in colour"),
    ("svhn", "SVHN: house numbers, 32 x 32 in colour"),
    (
        "image-folder",
        "a folder with train/CLASS/ and test/CLASS/, or with images alone, named by its path",
    ),
    ("image-list", "a table of images, .csv with columns path, label and split, named by its path"),
    ("arrays", "images x and labels y in a file of NumPy, .npz, named by its path"),
];

const QUANTIZERS: [(&str, &str); 5] = [
    ("wrpn", "levels from -1 to 1, including zero; no scale"),
    ("dorefa", "levels from -1 to 1 after a tanh, without zero"),
    ("wrpn-scaled", "wrpn on [-c, c], with the best c of each layer"),
    ("wrpn-scaled-per-channel", "wrpn on [-c, c], with the best c of each channel"),
    ("powers-of-two", "zero and signed powers of two"),
];

const REWARDS: [(&str, &str); 5] = [
    (
        "exchange",
        "accuracy for cost at a rate: exchange:rate=20; without --reward, at that of --max-loss",
    ),
    ("shaped", "the paper's, with a threshold: shaped:a=0.2,b=0.4,threshold=0.4"),
    ("division", "State_Accuracy over State_Quantization"),
    ("subtraction", "State_Accuracy minus State_Quantization"),
    ("linear-grid", "a linear grid, as in the authors' code"),
];

const COSTS: [(&str, &str); 15] = [
    ("mean-bits", "mean bitwidth of the searched layers"),
    ("cost-weighted", "bitwidths weighted by memory accesses and MACs, as in the paper"),
    ("stripes", "cycles on Stripes"),
    ("stripes-proportional", "cycles on Stripes, without its rounding"),
    ("stripes-energy", "energy on Stripes, relative"),
    ("dadiannao", "cycles on DaDianNao, whatever the bitwidths"),
    ("bitops", "bit operations: MACs times both bitwidths"),
    ("bitops-nncf", "bit operations as NNCF counts them"),
    ("bitserial-cpu", "words popcounted by a bit-serial kernel"),
    ("size", "bytes of the weights, with scales and biases"),
    ("traffic", "bytes moved for one image"),
    ("energy", "picojoules of a bit-parallel circuit"),
    ("roofline", r#"microseconds: roofline{"macs_per_s": 1e12, "bytes_per_s": 1e10}"#),
    ("cpu-latency", "microseconds on this CPU: cpu-latency:FILE of `releq cost --cpu-table`"),
    ("weighted-sum", "several costs: write stripes-energy=2,size=1"),
];

const BACKENDS: [(&str, &str); 5] = [
    ("native", "our CPU kernels, one thread for each training"),
    ("native-bf16", "the same with products in bf16: faster, on AVX512-BF16 alone"),
    ("flex", "Burn on the CPU"),
    ("ndarray", "Burn on the CPU; built in by the feature of that name"),
    ("wgpu", "Burn on a GPU; built in by the feature of that name"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_of_the_libraries_is_described() {
        for &kind in Kind::value_variants() {
            let items = items(kind);
            assert!(!items.is_empty(), "{kind:?}");
            for Item { name, description } in items {
                assert!(!description.is_empty(), "{kind:?}: {name}");
                assert!(name.len() + description.len() < 96, "{kind:?}: {name} is long");
            }
        }
        for descriptions in [&DATA[..], &QUANTIZERS, &REWARDS, &COSTS, &BACKENDS] {
            let all: Vec<Item> =
                Kind::value_variants().iter().flat_map(|&kind| items(kind)).collect();
            for (name, _) in descriptions {
                assert!(all.iter().any(|item| item.name == *name), "{name} is gone");
            }
        }
    }
}
