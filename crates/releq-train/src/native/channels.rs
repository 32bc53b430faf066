//! Layers that move channels from their inputs to their output: concatenation, slices, shuffles.

use super::layer::{Backward, Layer, Parameters, Pass};

/// Adjacent channels that stay together.
#[derive(Clone, Copy)]
struct Run {
    /// The input that they come from.
    input: usize,
    /// The first of them there.
    from: usize,
    /// Their number.
    count: usize,
}

/// Channels of a pixel of the output, in order.
pub(super) struct Channels {
    runs: Vec<Run>,
    /// Channels of every input.
    inputs: Vec<usize>,
    outputs: usize,
}

impl Channels {
    fn new(runs: Vec<Run>, inputs: Vec<usize>) -> Self {
        let outputs = runs.iter().map(|run| run.count).sum();
        Self { runs, inputs, outputs }
    }

    /// All channels of all inputs.
    pub(super) fn concat(inputs: Vec<usize>) -> Self {
        let run = |(input, &count): (usize, &usize)| Run { input, from: 0, count };
        Self::new(inputs.iter().enumerate().map(run).collect(), inputs)
    }

    /// `count` channels of one input, from `start` on.
    pub(super) fn slice(channels: usize, start: usize, count: usize) -> Self {
        Self::new(vec![Run { input: 0, from: start, count }], vec![channels])
    }

    /// The runs that come from an input, and where they begin in the output.
    fn of(&self, input: usize) -> Vec<(usize, Run)> {
        let placed = self.runs.iter().scan(0, |at, run| {
            let here = *at;
            *at += run.count;
            Some((here, *run))
        });
        placed.filter(|(_, run)| run.input == input).collect()
    }
}

impl Layer for Channels {
    fn forward(
        &mut self,
        inputs: &[&[f32]],
        _: &mut Parameters,
        _: &mut Pass<'_>,
        out: &mut [f32],
    ) {
        for (pixel, mut out) in out.chunks_exact_mut(self.outputs).enumerate() {
            for &Run { input, from, count } in &self.runs {
                let (to, rest) = out.split_at_mut(count);
                out = rest;
                to.copy_from_slice(&inputs[input][pixel * self.inputs[input] + from..][..count]);
            }
        }
    }

    fn backward(&mut self, back: Backward<'_>, _: &mut Parameters, pass: &mut Pass<'_>) {
        let Backward { inputs, gradient, mut upstream, .. } = back;
        for (input, &channels) in self.inputs.iter().enumerate() {
            let runs = self.of(input);
            let moved: usize = runs.iter().map(|(_, run)| run.count).sum();
            upstream.write(input, inputs[input].len(), pass.buffers, |into, accumulate| {
                if !accumulate && moved < channels {
                    into.fill(0.0);
                }
                let pixels = into.chunks_exact_mut(channels);
                for (into, gradient) in pixels.zip(gradient.chunks_exact(self.outputs)) {
                    for &(at, Run { from, count, .. }) in &runs {
                        let (into, gradient) =
                            (&mut into[from..][..count], &gradient[at..][..count]);
                        if accumulate {
                            into.iter_mut().zip(gradient).for_each(|(into, value)| *into += value);
                        } else {
                            into.copy_from_slice(gradient);
                        }
                    }
                }
            });
        }
        pass.buffers.give(gradient);
    }
}

/// Channels in another order: the first of every group, then the second, and so on.
pub(super) struct Shuffle {
    /// For every channel of the output, the one that it is of the input.
    order: Vec<usize>,
}

impl Shuffle {
    pub(super) fn new(channels: usize, groups: usize) -> Self {
        let size = channels / groups;
        Self { order: (0..channels).map(|to| to % groups * size + to / groups).collect() }
    }
}

impl Layer for Shuffle {
    fn forward(
        &mut self,
        inputs: &[&[f32]],
        _: &mut Parameters,
        _: &mut Pass<'_>,
        out: &mut [f32],
    ) {
        let channels = self.order.len();
        for (pixel, out) in inputs[0].chunks_exact(channels).zip(out.chunks_exact_mut(channels)) {
            out.iter_mut().zip(&self.order).for_each(|(out, from)| *out = pixel[*from]);
        }
    }

    fn backward(&mut self, back: Backward<'_>, _: &mut Parameters, pass: &mut Pass<'_>) {
        let Backward { inputs, gradient, mut upstream, .. } = back;
        let channels = self.order.len();
        upstream.write(0, inputs[0].len(), pass.buffers, |into, accumulate| {
            let pixels = into.chunks_exact_mut(channels).zip(gradient.chunks_exact(channels));
            for (into, gradient) in pixels {
                for (to, gradient) in self.order.iter().zip(gradient) {
                    into[*to] = if accumulate { into[*to] + gradient } else { *gradient };
                }
            }
        });
        pass.buffers.give(gradient);
    }
}
