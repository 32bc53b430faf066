//! Which tensors share memory: those that are not needed at the same time.

use crate::graph::Graph;

/// Buffers of codes and of values, and which of them each tensor is in.
#[derive(Clone, Debug, Default)]
pub(crate) struct Slots {
    /// By tensor; of codes or of values, as the tensor has a grid or none.
    pub(crate) of: Vec<usize>,
    /// Lengths of the buffers of codes.
    pub(crate) codes: Vec<usize>,
    /// Lengths of the buffers of values.
    pub(crate) floats: Vec<usize>,
}

impl Slots {
    pub(crate) fn plan(graph: &Graph<'_>) -> Self {
        // The last node that reads each tensor; the output is read in the end.
        let mut last_read = vec![0; graph.values.len()];
        for (index, node) in graph.nodes.iter().enumerate() {
            for &input in &node.inputs {
                last_read[input] = index;
            }
        }
        last_read[graph.output] = graph.nodes.len();
        let mut slots = Self { of: vec![0; graph.values.len()], ..Self::default() };
        let mut free = [Vec::new(), Vec::new()];
        slots.place(0, graph, &mut free);
        for (index, node) in graph.nodes.iter().enumerate() {
            slots.place(node.output, graph, &mut free);
            let mut read = node.inputs.clone();
            read.push(node.output);
            read.sort_unstable();
            read.dedup();
            for value in read.into_iter().filter(|&value| last_read[value] <= index) {
                free[usize::from(graph.values[value].grid.is_none())].push(slots.of[value]);
            }
        }
        slots
    }

    /// Places a tensor in the smallest free buffer that has room, or else in the largest, which grows.
    fn place(&mut self, value: usize, graph: &Graph<'_>, free: &mut [Vec<usize>; 2]) {
        let needed = graph.values[value].len();
        let is_float = graph.values[value].grid.is_none();
        let lengths = if is_float { &mut self.floats } else { &mut self.codes };
        let free = &mut free[usize::from(is_float)];
        let fitting = free.iter().enumerate().filter(|&(_, &slot)| lengths[slot] >= needed);
        let best = fitting
            .min_by_key(|&(_, &slot)| lengths[slot])
            .or_else(|| free.iter().enumerate().max_by_key(|&(_, &slot)| lengths[slot]))
            .map(|(place, _)| place);
        self.of[value] = match best {
            Some(place) => free.swap_remove(place),
            None => {
                lengths.push(0);
                lengths.len() - 1
            }
        };
        let length = &mut lengths[self.of[value]];
        *length = needed.max(*length);
    }
}
