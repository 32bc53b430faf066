//! A network that is ready to run.

use std::path::Path;

use releq_core::{Bitwidth, parallel};
use releq_format::{
    Codes,
    onnx::End,
    packed::{self, About, Packed},
};
use releq_kernels::{CodeGrid, FloatScratch, KernelError, Threads, Workspace, quantize};
use releq_quant::ActivationGrid;

use crate::{
    Activation, Mode, Options, RuntimeError, compile,
    graph::{Graph, Node, Value},
    lower,
    slots::Slots,
    step::{self, Shared, Step, Target},
};

/// A network that is ready to run: weights laid out for the kernels of this processor, and memory for one image.
///
/// Memory for what leaves the layers is planned when it is made and taken in the first run; later runs allocate nothing. Where
/// several threads compute a layer together, each takes its memory when it first does, and the others live as long as the model.
/// Several threads that classify images at the same time each need a model of their own, which is what [`Clone`] makes.
#[derive(Clone, Debug)]
pub struct Model {
    name: String,
    input: [usize; 3],
    about: About,
    end: End,
    values: Vec<Value>,
    nodes: Vec<Planned>,
    output: usize,
    buffers: Buffers,
    shared: Shared,
    scratch: FloatScratch,
}

/// A step, and what it reads and writes.
#[derive(Clone, Debug)]
struct Planned {
    layer: String,
    kind: &'static str,
    bits: Option<Bitwidth>,
    inputs: Vec<usize>,
    output: usize,
    step: Step,
}

/// How a layer is computed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerPlan {
    /// Name of the layer. Norms, rectifiers, flattenings and dropouts are part of the layer before them.
    pub layer: String,
    /// Word for its operation.
    pub kind: &'static str,
    /// Bitwidth of its weights, if it has any.
    pub bits: Option<Bitwidth>,
    /// What computes it.
    pub kernel: String,
    /// Why.
    pub reason: String,
    /// Whether it is computed in single precision.
    pub is_float: bool,
    /// Bytes of its weights in memory.
    pub bytes: usize,
}

#[derive(Clone, Debug)]
struct Buffers {
    slots: Slots,
    codes: Vec<Vec<u8>>,
    floats: Vec<Vec<f32>>,
    /// Codes that are read in single precision, and results that become codes.
    read: Vec<Vec<f32>>,
    written: Vec<f32>,
}

impl Buffers {
    /// Takes memory for all tensors, unless that was done.
    fn reserve(&mut self) -> Result<(), RuntimeError> {
        let Slots { codes, floats, .. } = &self.slots;
        let sum =
            |lengths: &[usize]| lengths.iter().fold(0_usize, |sum, &len| sum.saturating_add(len));
        let bytes = sum(codes).saturating_add(sum(floats).saturating_mul(size_of::<f32>()));
        let is_there = codes.iter().zip(&mut self.codes).all(|(&len, to)| resize(to, len, 0))
            && floats.iter().zip(&mut self.floats).all(|(&len, to)| resize(to, len, 0.0));
        if is_there { Ok(()) } else { Err(RuntimeError::Memory { bytes }) }
    }

    fn get<'a>(&'a self, values: &[Value], value: usize) -> Activation<'a> {
        let (Value { grid, .. }, slot) = (values[value], self.slots.of[value]);
        match grid {
            Some(grid) => {
                Activation::Codes { codes: &self.codes[slot][..values[value].len()], grid }
            }
            None => Activation::Values(&self.floats[slot][..values[value].len()]),
        }
    }
}

impl Model {
    /// Reads a packed file and makes it ready to run.
    ///
    /// Every weight of a layer on integers is in memory once, as its kernel stores it, and never in another form but for blocks
    /// of few outputs.
    ///
    /// # Errors
    /// [`RuntimeError::File`], and what [`compile`](Self::compile) says.
    pub fn load(path: impl AsRef<Path>, options: &Options) -> Result<Self, RuntimeError> {
        Self::compile(&packed::open(path)?, options)
    }

    /// Makes a packed network ready to run, whether its codes are in memory or in a file ([`packed::open`]).
    ///
    /// Without grids of activations in it, all of it is computed in single precision, with the quantized weights.
    ///
    /// # Errors
    /// [`RuntimeError`] for an operation that the runtime lacks, sizes or scales that do not work, codes that cannot be read, or
    /// an instruction set that this processor lacks.
    pub fn compile<C: Codes>(packed: &Packed<C>, options: &Options) -> Result<Self, RuntimeError> {
        options.isa.check().map_err(RuntimeError::Isa)?;
        let floats = (options.mode == Mode::Float).then_some("single precision was asked for");
        let graph = lower::lower(packed, floats)?;
        let slots = Slots::plan(&graph);
        let Graph { values, nodes, output } = graph;
        let nodes = parallel::try_map(nodes.into_iter(), options.threads.get(), |node| {
            let step = compile::step(&values, &node, options)?;
            let Node { layer, kind, bits, inputs, output, .. } = node;
            Ok::<_, RuntimeError>(Planned { layer, kind, bits, inputs, output, step })
        })?;
        let network = packed.model.network();
        let buffers = Buffers {
            codes: vec![Vec::new(); slots.codes.len()],
            floats: vec![Vec::new(); slots.floats.len()],
            read: vec![Vec::new(); nodes.iter().map(|node| node.inputs.len()).max().unwrap_or(0)],
            written: Vec::new(),
            slots,
        };
        let workspace = Workspace::default();
        Ok(Self {
            name: network.name().to_owned(),
            input: network.input(),
            about: packed.about.clone(),
            end: packed.frame.end,
            values,
            nodes,
            output,
            buffers,
            shared: Shared { isa: options.isa, threads: Threads::new(options.threads), workspace },
            scratch: FloatScratch::default(),
        })
    }

    /// Name of the network.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `[channels, height, width]` of an image.
    #[must_use]
    pub const fn input(&self) -> [usize; 3] {
        self.input
    }

    /// Number of outputs: the classes of a classifier.
    #[must_use]
    pub fn outputs(&self) -> usize {
        self.values[self.output].len()
    }

    /// What the file says of the network: names of classes, and how images were normalized.
    #[must_use]
    pub const fn about(&self) -> &About {
        &self.about
    }

    /// How each layer is computed, in order.
    pub fn layers(&self) -> impl ExactSizeIterator<Item = LayerPlan> {
        self.nodes.iter().map(|node| {
            let (kernel, reason, bytes) = match &node.step {
                Step::Product { layer, .. } => {
                    let choice = layer.choice();
                    (choice.kernel.to_string(), choice.reason.to_owned(), layer.bytes())
                }
                Step::ChannelTables(tables) => {
                    let why = "a function of 256 codes for each channel".to_owned();
                    ("table".to_owned(), why, 256 * tables.len())
                }
                Step::Table(_) => ("table".to_owned(), "a function of 256 codes".to_owned(), 256),
                Step::Float(step, why) => {
                    (step.kernel().to_owned(), (*why).to_owned(), step.bytes())
                }
                _ => ("codes".to_owned(), "it has no weights".to_owned(), 0),
            };
            LayerPlan {
                layer: node.layer.clone(),
                kind: node.kind,
                bits: node.bits,
                kernel,
                reason,
                is_float: matches!(node.step, Step::Float(..)),
                bytes,
            }
        })
    }

    /// Computes the outputs for one image, as users of the network see them: logits, or probabilities if its model ended with
    /// a softmax.
    ///
    /// # Shapes
    /// - `image`: `[channels][height][width]`, normalized as in training
    /// - `outputs`: `[outputs]`
    ///
    /// # Errors
    /// [`RuntimeError::Image`] and [`RuntimeError::Outputs`] for wrong lengths.
    pub fn run(&mut self, image: &[f32], outputs: &mut [f32]) -> Result<(), RuntimeError> {
        self.run_observed(image, outputs, &mut |_, _| {})
    }

    /// As [`run`](Self::run), and shows what leaves each layer, in the order of [`layers`](Self::layers).
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn run_observed(
        &mut self,
        image: &[f32],
        outputs: &mut [f32],
        observe: &mut dyn FnMut(&str, Activation<'_>),
    ) -> Result<(), RuntimeError> {
        let [channels, height, width] = self.input;
        let (expected, got) = (self.values[0].len(), image.len());
        if got != expected {
            return Err(RuntimeError::Image { channels, height, width, expected, got });
        }
        if outputs.len() != self.outputs() {
            let (expected, got) = (self.outputs(), outputs.len());
            return Err(RuntimeError::Outputs { expected, got });
        }
        if let Some(place) = not_finite(image) {
            return Err(RuntimeError::NotFinite { place, value: image[place] });
        }
        let Self { values, nodes, buffers, shared, scratch, .. } = self;
        buffers.reserve()?;
        read_image(image, values[0], buffers, shared).map_err(RuntimeError::Isa)?;
        for node in nodes {
            node.run(values, buffers, shared, scratch)
                .map_err(|source| RuntimeError::Layer { layer: node.layer.clone(), source })?;
            observe(&node.layer, buffers.get(values, node.output));
        }
        self.write_outputs(outputs);
        Ok(())
    }

    fn write_outputs(&self, outputs: &mut [f32]) {
        let Value { channels, .. } = self.values[self.output];
        let area = outputs.len() / channels;
        // A flattened image leaves channel by channel.
        let place = |at: usize| at % channels * area + at / channels;
        match self.buffers.get(&self.values, self.output) {
            Activation::Values(values) => {
                for (at, value) in values.iter().enumerate() {
                    outputs[place(at)] = *value;
                }
            }
            Activation::Codes { codes, grid } => {
                let zero = f32::from(grid.zero_point);
                for (at, &code) in codes.iter().enumerate() {
                    outputs[place(at)] = grid.scale * (f32::from(code) - zero);
                }
            }
        }
        self.end.apply(outputs);
    }
}

/// Makes a buffer as long as that, if there is memory for it.
fn resize<T: Copy>(buffer: &mut Vec<T>, len: usize, value: T) -> bool {
    let missing = len.saturating_sub(buffer.len());
    let is_there = buffer.try_reserve_exact(missing).is_ok();
    if is_there {
        buffer.resize(len, value);
    }
    is_there
}

/// The first value that is no finite number.
fn not_finite(image: &[f32]) -> Option<usize> {
    // All are looked at, without a branch for each, so that the compiler vectorizes it.
    let are_finite = image.iter().fold(true, |all, value| all & value.is_finite());
    if are_finite { None } else { image.iter().position(|value| !value.is_finite()) }
}

/// Brings an image into the first tensor: rounded if that has a grid, and its channels last.
fn read_image(
    image: &[f32],
    value: Value,
    buffers: &mut Buffers,
    shared: &Shared,
) -> Result<(), KernelError> {
    let slot = buffers.slots.of[0];
    let Some(grid) = value.grid else {
        channels_last(image, value.channels, &mut buffers.floats[slot]);
        return Ok(());
    };
    let out = &mut buffers.codes[slot][..image.len()];
    to_codes(image, value.channels, grid, out, shared)
}

/// Rounds values to a grid.
fn to_codes(
    values: &[f32],
    channels: usize,
    grid: ActivationGrid,
    out: &mut [u8],
    shared: &Shared,
) -> Result<(), KernelError> {
    let ActivationGrid { scale, zero_point, bits } = grid;
    let grid = CodeGrid { scale, zero_point, bits: bits.get() };
    quantize(values, channels, grid, out, shared.isa, &shared.threads)
}

/// From `[channels][pixels]` to `[pixels][channels]`.
fn channels_last(planes: &[f32], channels: usize, out: &mut [f32]) {
    for (channel, plane) in planes.chunks_exact(planes.len() / channels).enumerate() {
        let to = out[channel..].iter_mut().step_by(channels);
        to.zip(plane).for_each(|(out, value)| *out = *value);
    }
}

impl Planned {
    /// Computes the tensor. Its buffer is taken out of the others for as long.
    fn run(
        &self,
        values: &[Value],
        buffers: &mut Buffers,
        shared: &mut Shared,
        scratch: &mut FloatScratch,
    ) -> Result<(), KernelError> {
        let (slot, output) = (buffers.slots.of[self.output], values[self.output]);
        match output.grid {
            Some(grid) => {
                let mut codes = std::mem::take(&mut buffers.codes[slot]);
                let target = Target::Codes(&mut codes[..output.len()], grid);
                let result = self.compute(target, values, buffers, shared, scratch);
                buffers.codes[slot] = codes;
                result
            }
            None => {
                let mut floats = std::mem::take(&mut buffers.floats[slot]);
                let target = Target::Values(&mut floats[..output.len()]);
                let result = self.compute(target, values, buffers, shared, scratch);
                buffers.floats[slot] = floats;
                result
            }
        }
    }

    fn compute(
        &self,
        mut target: Target<'_>,
        values: &[Value],
        buffers: &mut Buffers,
        shared: &mut Shared,
        scratch: &mut FloatScratch,
    ) -> Result<(), KernelError> {
        if let (Step::Concat(inputs), Target::Codes(out, _)) = (&self.step, &mut target) {
            step::concat(inputs, self.inputs.iter().map(|&input| buffers.get(values, input)), out);
            return Ok(());
        }
        let Step::Float(step, _) = &self.step else {
            let input = |at: usize| self.inputs.get(at).map(|&input| buffers.get(values, input));
            return self.step.run([input(0), input(1)], target, shared);
        };
        // Codes become values before a step in single precision, and its results codes.
        let (mut read, mut written) =
            (std::mem::take(&mut buffers.read), std::mem::take(&mut buffers.written));
        for (&input, read) in self.inputs.iter().zip(&mut read) {
            if let Activation::Codes { codes, grid } = buffers.get(values, input) {
                let zero = f32::from(grid.zero_point);
                read.clear();
                read.extend(codes.iter().map(|&code| grid.scale * (f32::from(code) - zero)));
            }
        }
        let input = |at: usize| match buffers.get(values, self.inputs[at]) {
            Activation::Codes { .. } => read[at].as_slice(),
            Activation::Values(values) => values,
        };
        let count = self.inputs.len();
        let result = match target {
            Target::Values(out) => {
                step.run(count, input, out, scratch);
                Ok(())
            }
            Target::Codes(out, grid) => {
                written.resize(out.len(), 0.0);
                step.run(count, input, &mut written, scratch);
                to_codes(&written, 1, grid, out, shared)
            }
        };
        (buffers.read, buffers.written) = (read, written);
        result
    }
}
