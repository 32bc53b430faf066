//! From a network to the layers that run: which of its operations need no pass of their own.

use releq_core::{Bitwidth, Network, Op, Shape};
use releq_kernels::{Isa, KernelError};

use super::{
    batch_norm::BatchNorm,
    conv::Conv,
    elementwise::{Add, Dropout, Relu},
    flatten::Flatten,
    layer::{Layer, Parameters, pixels},
    linear::Linear,
    pool::{Avg, GlobalAvg, Max},
    shortcut::PaddedShortcut,
};
use crate::TrainError;

/// One layer that runs.
pub(super) struct Unit {
    /// Index of the layer in the network.
    pub(super) node: usize,
    pub(super) layer: Box<dyn Layer>,
    pub(super) parameters: Parameters,
    pub(super) bits: Option<Bitwidth>,
    /// The units that it reads; `None` is the network's input.
    pub(super) sources: Vec<Option<usize>>,
    /// Values of one sample as they leave.
    pub(super) values: usize,
    /// Whether negative outputs become zero.
    pub(super) relu: bool,
    /// Whether it works in its first source's buffer, which nobody else needs.
    pub(super) takes_over: bool,
    /// The batch norm that reads nothing but this convolution; in evaluation it is part of the weights.
    pub(super) norm: Option<usize>,
    /// Whether this is such a batch norm.
    pub(super) absorbed: bool,
    /// The last unit that reads this one; itself if none does.
    pub(super) last_reader: usize,
    /// Whether a gradient arrived in the last step; where none does, nothing is trained.
    pub(super) reached: bool,
}

/// The layers of a network that run, and the one that gives the output.
pub(super) struct Plan {
    pub(super) units: Vec<Unit>,
    pub(super) output: Option<usize>,
}

/// # Errors
/// [`TrainError::Unsupported`], naming the first layer that the kernels refuse.
pub(super) fn plan(network: &Network, isa: Isa) -> Result<Plan, TrainError> {
    let nodes = network.nodes();
    let readers = |node: usize| -> Vec<usize> {
        let reads = |reader: &usize| {
            network.sources(*reader).iter().filter(|source| **source == Some(node)).count()
        };
        (0..nodes.len()).flat_map(|reader| vec![reader; reads(&reader)]).collect()
    };
    // A ReLU is folded into the layer before it, if that can do it and nobody else reads that layer.
    let folded = |relu: usize| {
        let &[Some(source)] = network.sources(relu) else { return false };
        let folds = matches!(
            nodes[source].op,
            Op::Conv2d(_) | Op::Linear { .. } | Op::BatchNorm { .. } | Op::Add
        );
        nodes[relu].op == Op::Relu && folds && readers(source).len() == 1
    };
    let mut units: Vec<Unit> = Vec::new();
    // For every layer of the network, the unit that gives its values; `None` is the network's input.
    let mut home: Vec<Option<usize>> = Vec::new();
    for (index, node) in nodes.iter().enumerate() {
        let sources: Vec<Option<usize>> = network
            .sources(index)
            .iter()
            .map(|source| source.and_then(|source| home[source]))
            .collect();
        let input = network.input_shape(index);
        let (channels, area) = pixels(input);
        let same = match node.op {
            Op::Relu => folded(index),
            Op::Flatten => channels == 1 || area == 1,
            _ => false,
        };
        if same {
            home.push(sources[0]);
            continue;
        }
        let relu = matches!(readers(index)[..], [reader] if folded(reader));
        let unsupported = |what: String| TrainError::Unsupported {
            layer: node.name.clone(),
            trainer: "native",
            what,
        };
        let layer = layer(network, index, relu, isa)
            .map_err(|error| unsupported(format!("it: {error}; the flex backend does")))?
            .ok_or_else(|| unsupported(format!("the operation `{}`", node.op.kind())))?;
        home.push(Some(units.len()));
        units.push(Unit {
            node: index,
            layer,
            parameters: Parameters::default(),
            bits: None,
            sources,
            values: network.shape(index).len(),
            relu,
            takes_over: false,
            norm: None,
            absorbed: false,
            last_reader: units.len(),
            reached: false,
        });
    }
    let output = home.last().copied().flatten();
    connect(&mut units, output, network);
    Ok(Plan { units, output })
}

/// Fills in what depends on who reads a unit.
fn connect(units: &mut [Unit], output: Option<usize>, network: &Network) {
    let mut readers = vec![0; units.len()];
    for index in 0..units.len() {
        for source in units[index].sources.clone().into_iter().flatten() {
            readers[source] += 1;
            units[source].last_reader = index;
        }
    }
    if let Some(output) = output {
        readers[output] += 1;
        units[output].last_reader = units.len();
    }
    let op = |unit: &Unit| network.nodes()[unit.node].op;
    for index in 0..units.len() {
        let Some(Some(source)) = units[index].sources.first().copied() else { continue };
        if readers[source] != 1 {
            continue;
        }
        units[index].takes_over =
            units[index].layer.is_in_place() && !units[source].layer.keeps_output();
        let norm = matches!(op(&units[index]), Op::BatchNorm { .. });
        if norm && matches!(op(&units[source]), Op::Conv2d(_)) && !units[source].relu {
            units[source].norm = Some(index);
            units[index].absorbed = true;
        }
    }
}

/// The one place that knows which layer kind serves which operation; `None` for one that no layer does.
fn layer(
    network: &Network,
    index: usize,
    relu: bool,
    isa: Isa,
) -> Result<Option<Box<dyn Layer>>, KernelError> {
    let input: Shape = network.input_shape(index);
    let (channels, area) = pixels(input);
    let layer: Box<dyn Layer> = match network.nodes()[index].op {
        Op::Conv2d(conv) => Box::new(Conv::new(conv, input, relu, isa)?),
        Op::Linear { out_features: outputs, .. } => {
            Box::new(Linear::new(input.len(), outputs, relu))
        }
        Op::BatchNorm { epsilon, momentum } => {
            Box::new(BatchNorm::new(channels, (epsilon, momentum), relu, isa)?)
        }
        Op::Relu => Box::new(Relu),
        Op::MaxPool(pool) => Box::new(Max::new(pool, input, isa)?),
        Op::AvgPool(pool) => Box::new(Avg::new(pool, input, isa)?),
        Op::GlobalAvgPool => Box::new(GlobalAvg { channels, area }),
        Op::Flatten => Box::new(Flatten { channels, area }),
        Op::Dropout { probability } => {
            Box::new(Dropout { node: index, probability, shape: input, mask: Vec::new() })
        }
        Op::Add => Box::new(Add { relu }),
        Op::PaddedShortcut { out_channels, stride } => {
            Box::new(PaddedShortcut::new(input, out_channels, stride))
        }
        _ => return Ok(None),
    };
    Ok(Some(layer))
}
