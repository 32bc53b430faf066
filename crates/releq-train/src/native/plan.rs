//! From a network to the layers that run: which of its operations need no pass of their own.

use releq_core::{Activation, Bitwidth, Conv2d, Network, Op, Shape};
use releq_kernels::{FloatPrecision, Isa, KernelError, Rectifier};

use super::{
    activation::Activate,
    batch_norm::BatchNorm,
    channels::{Channels, Shuffle},
    conv::Conv,
    elementwise::{Add, Dropout, Rectify},
    fake_quantize::FakeQuantize,
    flatten::Flatten,
    layer::{Layer, Parameters, pixels},
    linear::Linear,
    pool::{Avg, GlobalAvg, Max},
    product::{Gate, Mul},
    response_norm::ResponseNorm,
    scale_shift::ScaleShift,
    shortcut::PaddedShortcut,
};
use crate::TrainError;

/// One layer that runs.
pub(super) struct Unit {
    /// Index of the layer in the network.
    pub(super) node: usize,
    /// Index of the layer whose output it gives: a rectifier behind it that needs no pass of its own, or itself.
    pub(super) last: usize,
    pub(super) layer: Box<dyn Layer>,
    pub(super) parameters: Parameters,
    pub(super) bits: Option<Bitwidth>,
    /// The units that it reads; `None` is the network's input.
    pub(super) sources: Vec<Option<usize>>,
    /// Values of one sample as they leave.
    pub(super) values: usize,
    /// What becomes of its outputs.
    pub(super) rectifier: Rectifier,
    /// Whether it works in its first source's buffer, which nobody else needs.
    pub(super) takes_over: bool,
    /// The batch norm (or scale and shift) that reads nothing but this convolution; in evaluation it is part of the
    /// weights.
    pub(super) norm: Option<usize>,
    /// Whether this is such a norm.
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
pub(super) fn plan(
    network: &Network,
    isa: Isa,
    precision: FloatPrecision,
) -> Result<Plan, TrainError> {
    let nodes = network.nodes();
    let readers = |node: usize| -> Vec<usize> {
        let reads = |reader: &usize| {
            network.sources(*reader).iter().filter(|source| **source == Some(node)).count()
        };
        (0..nodes.len()).flat_map(|reader| vec![reader; reads(&reader)]).collect()
    };
    // A rectifier is folded into the layer before it, if that can do it and nobody else reads that layer.
    let folded = |node: usize| {
        let &[Some(source)] = network.sources(node) else { return false };
        let folds = matches!(
            nodes[source].op,
            Op::Conv2d(_) | Op::Linear { .. } | Op::BatchNorm { .. } | Op::ScaleShift | Op::Add
        );
        rectifier(nodes[node].op) != Rectifier::None && folds && readers(source).len() == 1
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
            Op::Flatten => channels == 1 || area == 1,
            _ => folded(index),
        };
        if same {
            if let Some(unit) = sources[0].filter(|_| node.op != Op::Flatten) {
                units[unit].last = index;
            }
            home.push(sources[0]);
            continue;
        }
        let rectifier = match readers(index)[..] {
            [reader] if folded(reader) => rectifier(nodes[reader].op),
            _ => Rectifier::None,
        };
        let unsupported = |what: String| TrainError::Unsupported {
            layer: node.name.clone(),
            trainer: "native",
            what,
        };
        let layer = layer(network, index, rectifier, (isa, precision))
            .map_err(|error| unsupported(format!("it: {error}; the flex backend does")))?
            .ok_or_else(|| unsupported(format!("the operation `{}`", node.op.kind())))?;
        home.push(Some(units.len()));
        units.push(Unit {
            node: index,
            last: index,
            layer,
            parameters: Parameters::default(),
            bits: None,
            sources,
            values: network.shape(index).len(),
            rectifier,
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

/// The rectifier that an operation is, if it is one.
fn rectifier(op: Op) -> Rectifier {
    match op {
        Op::Relu => Rectifier::Relu,
        Op::Activation(Activation::Clip { min: 0.0, max }) => Rectifier::Clipped { ceiling: max },
        _ => Rectifier::None,
    }
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
        let norm = matches!(op(&units[index]), Op::BatchNorm { .. } | Op::ScaleShift);
        let plain = units[source].rectifier == Rectifier::None;
        if norm && matches!(op(&units[source]), Op::Conv2d(_)) && plain {
            units[source].norm = Some(index);
            units[index].absorbed = true;
        }
    }
}

/// The one place that knows which layer kind serves which operation; `None` for one that no layer does.
fn layer(
    network: &Network,
    index: usize,
    rectifier: Rectifier,
    (isa, precision): (Isa, FloatPrecision),
) -> Result<Option<Box<dyn Layer>>, KernelError> {
    let (input, output) = (network.input_shape(index), network.shape(index));
    let (channels, area) = pixels(input);
    // A rectifier that stayed a layer of its own.
    let alone = self::rectifier(network.nodes()[index].op);
    let layer: Box<dyn Layer> = match network.nodes()[index].op {
        Op::Conv2d(conv) => Box::new(Conv::new(conv, input, rectifier, (isa, precision))?),
        Op::Linear { out_features: outputs, .. } if precision == FloatPrecision::Fp32 => {
            Box::new(Linear::new(input.len(), outputs, rectifier))
        }
        // As a convolution of an image of one pixel, which has the products in other precisions.
        Op::Linear { out_features: outputs, .. } => {
            let pixel = Shape::Image { channels: input.len(), height: 1, width: 1 };
            let conv = Conv2d::new(outputs, 1);
            Box::new(Conv::new(conv, pixel, rectifier, (isa, precision))?)
        }
        Op::BatchNorm { epsilon, momentum } => {
            Box::new(BatchNorm::new(channels, (epsilon, momentum), rectifier, isa)?)
        }
        Op::ScaleShift => Box::new(ScaleShift::new(channels, rectifier, isa)?),
        Op::Relu | Op::Activation(_) if alone != Rectifier::None => Box::new(Rectify(alone)),
        Op::Activation(activation) => match Activate::new(activation, isa)? {
            Some(layer) => Box::new(layer),
            None => return Ok(None),
        },
        Op::MaxPool(pool) => Box::new(Max::new(pool, [input, output], isa)?),
        Op::AvgPool(pool) => Box::new(Avg::new(pool, [input, output], isa)?),
        Op::GlobalAvgPool => Box::new(GlobalAvg { channels, area }),
        Op::Flatten => Box::new(Flatten { channels, area }),
        Op::Dropout { probability } => {
            Box::new(Dropout { node: index, probability, shape: input, mask: Vec::new() })
        }
        Op::Add => Box::new(Add { rectifier }),
        Op::Mul => match inputs(network, index)[..] {
            [first, second] if first == second => Box::new(Mul),
            [first, _] => {
                let image = usize::from(first != output);
                let (channels, area) = pixels(output);
                Box::new(Gate { image, channels, area })
            }
            _ => return Ok(None),
        },
        Op::Concat => {
            let channels = inputs(network, index).iter().map(Shape::channels).collect();
            Box::new(Channels::concat(channels))
        }
        Op::ChannelSlice { start, channels: count } => {
            Box::new(Channels::slice(channels, start, count))
        }
        Op::ChannelShuffle { groups } => Box::new(Shuffle::new(channels, groups)),
        Op::LocalResponseNorm { size, alpha, beta, bias } => {
            Box::new(ResponseNorm::new(channels, size, [alpha, beta, bias]))
        }
        Op::FakeQuantize => Box::<FakeQuantize>::default(),
        Op::PaddedShortcut { out_channels, stride } => {
            Box::new(PaddedShortcut::new(input, out_channels, stride))
        }
        _ => return Ok(None),
    };
    Ok(Some(layer))
}

/// Shapes of one sample of every input of a layer.
fn inputs(network: &Network, index: usize) -> Vec<Shape> {
    let [channels, height, width] = network.input();
    let input = Shape::Image { channels, height, width };
    let sources = network.sources(index).iter();
    sources.map(|source| source.map_or(input, |source| network.shape(source))).collect()
}
