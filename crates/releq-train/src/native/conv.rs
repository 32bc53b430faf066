//! Convolution.

use releq_core::{Axes, Conv2d, Shape, Sides};
use releq_kernels::{
    ConvGradients, FloatAxis, FloatConv, FloatConvShape, FloatDepthwise, FloatPrecision, Isa,
    KernelError, Rectifier, Upstream,
};

use super::layer::{Backward, Layer, Parameters, Pass};

pub(super) struct Conv {
    kernel: Kernel,
    rectifier: Rectifier,
}

enum Kernel {
    Direct(FloatConv),
    Depthwise(FloatDepthwise),
}

impl Conv {
    pub(super) fn new(
        conv: Conv2d,
        input: Shape,
        rectifier: Rectifier,
        (isa, precision): (Isa, FloatPrecision),
    ) -> Result<Self, KernelError> {
        let [rows, columns] = axes(input, conv.kernel, conv.stride, conv.padding);
        let shape = FloatConvShape {
            channels: input.channels(),
            outputs: conv.out_channels,
            groups: conv.groups,
            rows: FloatAxis { dilation: conv.dilation.height, ..rows },
            columns: FloatAxis { dilation: conv.dilation.width, ..columns },
        };
        let kernel = if FloatDepthwise::fits(shape) && shape.groups > 1 {
            Kernel::Depthwise(FloatDepthwise::new(shape, isa)?)
        } else {
            Kernel::Direct(FloatConv::with_precision(shape, isa, precision)?)
        };
        Ok(Self { kernel, rectifier })
    }
}

/// Windows down and across an image, of adjacent pixels; a vector is one pixel.
pub(super) fn axes(input: Shape, kernel: Axes, stride: Axes, padding: Sides) -> [FloatAxis; 2] {
    let [height, width] = match input {
        Shape::Image { height, width, .. } => [height, width],
        Shape::Vector { .. } => [1, 1],
    };
    let Sides { top, left, bottom, right } = padding;
    let axis = |size, kernel, stride, padding| FloatAxis {
        stride,
        padding,
        ..FloatAxis::new(size, kernel)
    };
    [
        axis(height, kernel.height, stride.height, [top, bottom]),
        axis(width, kernel.width, stride.width, [left, right]),
    ]
}

impl Layer for Conv {
    fn prepare(&mut self, weights: &[f32], bias: Option<&[f32]>, rectifier: Rectifier) {
        self.rectifier = rectifier;
        match &mut self.kernel {
            Kernel::Direct(kernel) => kernel.load(weights, bias),
            Kernel::Depthwise(kernel) => kernel.load(weights, bias),
        }
    }

    fn keeps_output(&self) -> bool {
        self.rectifier != Rectifier::None
    }

    fn forward(
        &mut self,
        inputs: &[&[f32]],
        _: &mut Parameters,
        pass: &mut Pass<'_>,
        out: &mut [f32],
    ) {
        match &self.kernel {
            Kernel::Direct(kernel) => kernel.forward(inputs[0], self.rectifier, out, pass.scratch),
            Kernel::Depthwise(kernel) => kernel.forward(inputs[0], self.rectifier, out),
        }
    }

    fn backward(&mut self, back: Backward<'_>, parameters: &mut Parameters, pass: &mut Pass<'_>) {
        let Backward { inputs, output, gradient, mut upstream } = back;
        let Parameters { weight: Some(weight), bias, .. } = parameters else { return };
        let output = (self.rectifier, output);
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
