//! Convolution.

use releq_core::{Axes, Conv2d, Shape, Sides};
use releq_kernels::{
    ConvGradients, ConvShape, FloatConv, FloatConvShape, FloatDepthwise, Isa, KernelError, Upstream,
};

use super::layer::{Backward, Layer, Parameters, Pass};

pub(super) struct Conv {
    kernel: Kernel,
    relu: bool,
}

enum Kernel {
    Direct(FloatConv),
    Depthwise(FloatDepthwise),
}

impl Conv {
    pub(super) fn new(
        conv: Conv2d,
        input: Shape,
        relu: bool,
        isa: Isa,
    ) -> Result<Self, KernelError> {
        let (channels, height, width) = match input {
            Shape::Image { channels, height, width } => (channels, height, width),
            Shape::Vector { features } => (features, 1, 1),
        };
        let Conv2d { out_channels: outputs, groups, dilation, .. } = conv;
        let [kernel, stride, padding] = even(conv.kernel, conv.stride, conv.padding)?;
        if dilation.equal() != Some(1) {
            return Err(uneven("dilation"));
        }
        let image = ConvShape { channels, height, width, outputs, kernel, stride, padding };
        let shape = FloatConvShape { image, groups };
        let kernel = if FloatDepthwise::fits(shape) && groups > 1 {
            Kernel::Depthwise(FloatDepthwise::new(shape, isa)?)
        } else {
            Kernel::Direct(FloatConv::new(shape, isa)?)
        };
        Ok(Self { kernel, relu })
    }
}

/// A geometry that is the same on all sides.
pub(super) fn even(kernel: Axes, stride: Axes, padding: Sides) -> Result<[usize; 3], KernelError> {
    let of = |what, size: Option<usize>| size.ok_or(uneven(what));
    Ok([
        of("kernel", kernel.equal())?,
        of("stride", stride.equal())?,
        of("padding", padding.equal())?,
    ])
}

const fn uneven(what: &'static str) -> KernelError {
    KernelError::Shape {
        what,
        got: 0,
        reason: "must be the same on all sides, and pixels of a window adjacent",
    }
}

impl Layer for Conv {
    fn prepare(&mut self, weights: &[f32], bias: Option<&[f32]>, relu: bool) {
        self.relu = relu;
        match &mut self.kernel {
            Kernel::Direct(kernel) => kernel.load(weights, bias),
            Kernel::Depthwise(kernel) => kernel.load(weights, bias),
        }
    }

    fn keeps_output(&self) -> bool {
        self.relu
    }

    fn forward(
        &mut self,
        inputs: &[&[f32]],
        _: &mut Parameters,
        pass: &mut Pass<'_>,
        out: &mut [f32],
    ) {
        match &self.kernel {
            Kernel::Direct(kernel) => kernel.forward(inputs[0], self.relu, out, pass.scratch),
            Kernel::Depthwise(kernel) => kernel.forward(inputs[0], self.relu, out),
        }
    }

    fn backward(&mut self, back: Backward<'_>, parameters: &mut Parameters, pass: &mut Pass<'_>) {
        let Backward { inputs, output, gradient, mut upstream } = back;
        let Parameters { weight: Some(weight), bias, .. } = parameters else { return };
        let output = self.relu.then_some(output);
        let (scratch, buffers) = (&mut *pass.scratch, &mut *pass.buffers);
        let kernel = &mut self.kernel;
        let mut run = |input: Option<Upstream<'_>>| {
            let bias = bias.as_mut().map(|bias| &mut bias.gradient[..]);
            let into = ConvGradients { weights: &mut weight.gradient, bias, input };
            match kernel {
                Kernel::Direct(kernel) => {
                    kernel.backward(inputs[0], output, &gradient, into, scratch)
                }
                Kernel::Depthwise(kernel) => kernel.backward(inputs[0], output, &gradient, into),
            }
        };
        if upstream.wants(0) {
            upstream.write(0, inputs[0].len(), buffers, |gradient, accumulate| {
                run(Some(Upstream { gradient, accumulate }));
            });
        } else {
            run(None);
        }
        buffers.give(gradient);
    }
}
