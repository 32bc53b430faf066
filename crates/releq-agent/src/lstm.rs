//! A long short-term memory.

use burn::tensor::{Device, Tensor, activation};

/// Kernel and bias of all four gates, in the order input, forget, candidate, output:
/// [`Parameter`](crate::parameter::Parameter)s on the host, tensors on a device.
///
/// One kernel for all gates makes a step one matrix product.
///
/// # Shapes
/// - `kernel`: `[inputs + units, 4 * units]`, the rows of the input first; `bias`: `[1, 4 * units]`
///
/// # Source
/// Gers et al. 2000, "Learning to forget", without peepholes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Lstm<P> {
    pub(crate) kernel: P,
    pub(crate) bias: P,
}

/// What an LSTM remembers of every episode, `[episodes, units]` each.
#[derive(Clone, Debug)]
pub(crate) struct LstmState {
    hidden: Tensor<2>,
    cell: Tensor<2>,
}

impl LstmState {
    /// The zero state at the start of an episode.
    pub(crate) fn zeros(episodes: usize, units: usize, device: &Device) -> Self {
        let zeros = Tensor::zeros([episodes, units], device);
        Self { hidden: zeros.clone(), cell: zeros }
    }
}

impl Lstm<Tensor<2>> {
    fn units(&self) -> usize {
        self.bias.dims()[1] / 4
    }

    /// The rows of the kernel for the input, and for the hidden state.
    fn kernels(&self) -> (Tensor<2>, Tensor<2>) {
        let inputs = self.kernel.dims()[0] - self.units();
        (
            self.kernel.clone().narrow(0, 0, inputs),
            self.kernel.clone().narrow(0, inputs, self.units()),
        )
    }

    /// One step: advances `state` and returns the hidden state.
    ///
    /// # Shapes
    /// - input: `[episodes, inputs]`; output: `[episodes, units]`
    pub(crate) fn step(&self, input: Tensor<2>, state: &mut LstmState) -> Tensor<2> {
        let (from_input, from_hidden) = self.kernels();
        let gates = input.matmul(from_input) + self.bias.clone();
        *state = self.advance(gates, state.clone(), &from_hidden);
        state.hidden.clone()
    }

    /// The hidden states at every step of whole episodes, from the zero state on.
    ///
    /// # Shapes
    /// - input: `[steps * episodes, inputs]`, step by step; output: `[steps * episodes, units]`
    pub(crate) fn whole(&self, input: Tensor<2>, steps: usize, episodes: usize) -> Tensor<2> {
        let (from_input, from_hidden) = self.kernels();
        let mut state = LstmState::zeros(episodes, self.units(), &input.device());
        // The input's share of the gates is one product for all steps; only the rest is recurrent.
        let gates = input.matmul(from_input) + self.bias.clone();
        let mut hidden = Vec::with_capacity(steps);
        for step in 0..steps {
            let gates = gates.clone().narrow(0, step * episodes, episodes);
            state = self.advance(gates, state, &from_hidden);
            hidden.push(state.hidden.clone());
        }
        Tensor::cat(hidden, 0)
    }

    /// The next state, from the input's share of the gates.
    fn advance(&self, gates: Tensor<2>, state: LstmState, from_hidden: &Tensor<2>) -> LstmState {
        let units = self.units();
        let gates = gates + state.hidden.matmul(from_hidden.clone());
        let gate = |index: usize| gates.clone().narrow(1, index * units, units);
        let input = activation::sigmoid(gate(0));
        let forget = activation::sigmoid(gate(1));
        let candidate = gate(2).tanh();
        let output = activation::sigmoid(gate(3));
        let cell = forget * state.cell + input * candidate;
        LstmState { hidden: output * cell.clone().tanh(), cell }
    }
}
