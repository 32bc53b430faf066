//! Fully connected layer, as matrix products over the batch.

use releq_kernels::{Matrix, Rectifier, matmul};

use super::layer::{Backward, Layer, Parameters, Pass, transpose};

pub(super) struct Linear {
    inputs: usize,
    outputs: usize,
    rectifier: Rectifier,
    /// The weights as `[inputs, outputs]`, made by the first evaluation that uses them. The product packs
    /// weights in the other order anew for every batch, which costs more than multiplying a few images.
    transposed: Vec<f32>,
}

impl Linear {
    pub(super) fn new(inputs: usize, outputs: usize, rectifier: Rectifier) -> Self {
        Self { inputs, outputs, rectifier, transposed: Vec::new() }
    }
}

impl Layer for Linear {
    fn prepare(&mut self, _: &[f32], _: Option<&[f32]>, rectifier: Rectifier) {
        self.rectifier = rectifier;
        self.transposed.clear();
    }

    fn keeps_output(&self) -> bool {
        self.rectifier != Rectifier::None
    }

    fn forward(
        &mut self,
        inputs: &[&[f32]],
        parameters: &mut Parameters,
        pass: &mut Pass<'_>,
        out: &mut [f32],
    ) {
        if let Some(bias) = &parameters.bias {
            out.chunks_exact_mut(self.outputs).for_each(|row| row.copy_from_slice(&bias.values));
        }
        let weight = if pass.step.is_some() {
            Matrix::new(&parameters.used, self.outputs, self.inputs).transposed()
        } else {
            if self.transposed.is_empty() {
                self.transposed.resize(parameters.used.len(), 0.0);
                transpose(&parameters.used, self.inputs, &mut self.transposed);
            }
            Matrix::new(&self.transposed, self.inputs, self.outputs)
        };
        let x = Matrix::new(inputs[0], pass.batch, self.inputs);
        matmul(x, weight, out, parameters.bias.is_some());
        self.rectifier.rectify(out);
    }

    fn backward(&mut self, back: Backward<'_>, parameters: &mut Parameters, pass: &mut Pass<'_>) {
        let Backward { inputs, output, mut gradient, mut upstream } = back;
        self.rectifier.rectify_backward(&mut gradient, output);
        if let Some(bias) = &mut parameters.bias {
            bias.gradient.fill(0.0);
            for row in gradient.chunks_exact(self.outputs) {
                for (sum, gradient) in bias.gradient.iter_mut().zip(row) {
                    *sum += gradient;
                }
            }
        }
        let rows = Matrix::new(&gradient, pass.batch, self.outputs);
        if let Some(weight) = &mut parameters.weight {
            let x = Matrix::new(inputs[0], pass.batch, self.inputs);
            matmul(rows.transposed(), x, &mut weight.gradient, false);
        }
        let weight = Matrix::new(&parameters.used, self.outputs, self.inputs);
        upstream.write(0, inputs[0].len(), pass.buffers, |into, accumulate| {
            matmul(rows, weight, into, accumulate);
        });
        pass.buffers.give(gradient);
    }
}
