//! Layers that only move channels, and products of tensors.

use releq_core::Op as Layer;
use releq_format::Codes;
use releq_kernels::Rectifier;

use super::Lowering;
use crate::{
    RuntimeError, float,
    graph::{FloatOp, Joined, Op, Value},
};

impl<C: Codes> Lowering<'_, C> {
    /// What a layer reads, one tensor for each input.
    pub(super) fn inputs(&self, index: usize) -> Vec<Value> {
        let count = self.network.sources(index).len();
        (0..count).map(|input| self.values[self.source(index, input)]).collect()
    }

    pub(super) fn concat(&mut self, index: usize) -> Result<(), RuntimeError> {
        let (inputs, grid) = (self.inputs(index), self.grid(index));
        let Value { height, width, .. } = inputs[0];
        // Flattened images of one size are one after the other as their channels are.
        if inputs.iter().any(|value| [value.height, value.width] != [height, width]) {
            return Err(self.unsupported(index, "of flattened images of several sizes"));
        }
        let channels = inputs.iter().map(|value| value.channels);
        let grids: Option<Vec<_>> = inputs.iter().map(|value| value.grid).collect();
        let op = match (grids, grid) {
            (Some(from), Some(to)) => {
                let joined = |(channels, from)| {
                    let table = (from != to).then(|| float::table(from, to, |value| value));
                    Joined { channels, table }
                };
                Op::Concat(channels.clone().zip(from).map(joined).collect())
            }
            (None, _) if self.grids.is_some() => Op::Float(
                FloatOp::Concat(channels.clone().collect()),
                "it joins what is not rounded",
            ),
            _ => Op::Float(FloatOp::Concat(channels.clone().collect()), self.why(index)),
        };
        let channels = channels.sum();
        let output = self.push(index, &Self::alone(index), op);
        self.values[output] = Value { channels, height, width, grid };
        Ok(())
    }

    /// Channels of a tensor in another order, or some of them.
    pub(super) fn select(&mut self, index: usize) -> Result<(), RuntimeError> {
        if self.reads_flattened(index) {
            return Err(self.unsupported(index, "of a flattened image"));
        }
        let input = self.values[self.source(index, 0)];
        let channels = input.channels;
        let from = match self.network.nodes()[index].op {
            Layer::ChannelSlice { start, channels } => (start..start + channels).collect(),
            Layer::ChannelShuffle { groups } => (0..channels)
                .map(|channel| channel % groups * (channels / groups) + channel / groups)
                .collect(),
            _ => return Err(self.unsupported(index, "at all")),
        };
        let output = self.push(index, &Self::alone(index), Op::Select(from));
        // It moves codes, whatever the grid that a file gives it.
        self.values[output].grid = input.grid;
        Ok(())
    }

    /// The product of two tensors of one size, or of an image and a factor for every channel.
    pub(super) fn mul(&mut self, index: usize) -> Result<(), RuntimeError> {
        let inputs = self.inputs(index);
        let [first, second] = [inputs[0], inputs[1]];
        let size = |value: Value| [value.channels, value.height, value.width];
        let is_gate = |image: Value, factors: Value| size(factors) == [image.channels, 1, 1];
        // The image, or either of two equal tensors, is the first input of the node.
        let swapped = if size(first) == size(second) || is_gate(first, second) {
            false
        } else if is_gate(second, first) {
            true
        } else {
            return Err(self.unsupported(index, "of a flattened image and a vector"));
        };
        let grid = self.grid(index);
        let on_codes = grid.is_some() && inputs.iter().all(|value| value.grid.is_some());
        let op = match on_codes {
            true => Op::Mul,
            false if self.grids.is_none() => Op::Float(FloatOp::Mul, self.why_float),
            false if grid.is_none() => Op::Float(FloatOp::Mul, "what it gives is not rounded"),
            false => Op::Float(FloatOp::Mul, "it multiplies what is not rounded"),
        };
        let output = self.push(index, &Self::alone(index), op);
        let image = if swapped { second } else { first };
        self.values[output] = Value { grid, ..image };
        if swapped && let Some(node) = self.nodes.last_mut() {
            node.inputs.swap(0, 1);
        }
        Ok(())
    }

    /// A norm, or a factor and a summand for every channel, that is part of no layer before it.
    pub(super) fn affine(&mut self, index: usize) -> Result<(), RuntimeError> {
        if self.reads_flattened(index) {
            return Err(self.unsupported(index, "of a flattened image"));
        }
        let chain = self.chain(index, false);
        let rectifier: Rectifier = chain.rectifier;
        let affine = self.packed.model.affine(index);
        let single = |values: Vec<f64>| -> Vec<f32> {
            values.into_iter().map(|value| value as f32).collect()
        };
        let (scale, shift) = (single(affine.scale), single(affine.shift));
        let op = match (self.values[self.source(index, 0)].grid, self.grid(chain.last)) {
            (Some(from), Some(to)) => {
                let table = |(scale, shift): (&f32, &f32)| {
                    let function =
                        |value: f32| super::rectified_value(rectifier, value * scale + shift);
                    *float::table(from, to, function)
                };
                Op::ChannelTables(scale.iter().zip(&shift).map(table).collect())
            }
            _ => Op::Float(FloatOp::Affine { scale, shift, rectifier }, self.why(index)),
        };
        self.push(index, &chain, op);
        Ok(())
    }
}
