//! Every operation that costs time, in one place: the seam where faster ones can be slotted in.

use burn::tensor::{
    Int, Tensor,
    activation::{hard_sigmoid, leaky_relu, log_softmax, sigmoid, softmax},
    module,
    ops::{AvgPoolOptions, ConvOptions, MaxPoolOptions},
};
use releq_core::{Activation, Axes, Conv2d, Pool2d, Sides};
use releq_quant::ActivationGrid;

/// Convolution.
///
/// # Shapes
/// - `x`: `[batch, in, height, width]`, `weight`: `[out, in / groups, kernel height, kernel width]`
/// - output: `[batch, out, out_height, out_width]`
pub(super) fn conv2d(
    x: Tensor<4>,
    weight: Tensor<4>,
    bias: Option<Tensor<1>>,
    conv: Conv2d,
) -> Tensor<4> {
    let (stride, dilation) = (conv.stride.into(), conv.dilation.into());
    let mut options = ConvOptions::new(stride, [0; 2], dilation, conv.groups);
    options.padding = pairs(conv.padding);
    module::conv2d(x, weight, bias, options)
}

/// What is added before and behind the rows, and the columns.
const fn pairs(Sides { top, left, bottom, right }: Sides) -> [(usize, usize); 2] {
    [(top, bottom), (left, right)]
}

/// `x * weight^T + bias`.
///
/// # Shapes
/// - `x`: `[batch, in]`, `weight`: `[out, in]`, output: `[batch, out]`
pub(super) fn linear(x: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<2> {
    module::linear(x, weight.transpose(), bias)
}

/// Largest value of every window; padding is never it.
///
/// # Shapes
/// - `x`: `[batch, channels, height, width]`
pub(super) fn max_pool(x: Tensor<4>, pool: Pool2d) -> Tensor<4> {
    let mut options = MaxPoolOptions::new(pool.kernel.into());
    options.stride = pool.stride.into();
    options.padding = pairs(pool.padding);
    options.ceil_mode = pool.ceil_mode;
    module::max_pool2d(x, options)
}

/// Mean value of every window.
///
/// # Shapes
/// - `x`: `[batch, channels, height, width]`
pub(super) fn avg_pool(x: Tensor<4>, pool: Pool2d) -> Tensor<4> {
    let mut options = AvgPoolOptions::new(pool.kernel.into());
    options.stride = pool.stride.into();
    options.padding = pairs(pool.padding);
    options.ceil_mode = pool.ceil_mode;
    options.count_include_pad = pool.count_include_pad;
    module::avg_pool2d(x, options)
}

/// Mean of every channel.
///
/// # Shapes
/// - `x`: `[batch, channels, height, width]`, output: `[batch, channels]`
pub(super) fn global_avg_pool(x: Tensor<4>) -> Tensor<2> {
    let [batch, channels, height, width] = x.dims();
    x.reshape([batch, channels, height * width]).mean_dim(2).reshape([batch, channels])
}

/// Every `stride`-th pixel of every `stride`-th row, between channels of zeros.
///
/// # Shapes
/// - `x`: `[batch, channels, height, width]`
/// - output: `[batch, out_channels, out_height, out_width]`
pub(super) fn padded_shortcut(x: Tensor<4>, out_channels: usize, stride: usize) -> Tensor<4> {
    // A window of one pixel keeps it, whatever the mean; its gradient is what we need, too.
    let pool = Pool2d::new(1, stride);
    let x = if stride == 1 { x } else { avg_pool(x, pool) };
    let [batch, channels, height, width] = x.dims();
    let added = out_channels - channels;
    let before = added / 2;
    let zeros = |channels| Tensor::zeros([batch, channels, height, width], &x.device());
    let mut parts = Vec::with_capacity(3);
    parts.extend((before > 0).then(|| zeros(before)));
    parts.push(x.clone());
    parts.extend((added > before).then(|| zeros(added - before)));
    Tensor::cat(parts, 1)
}

/// A function of every value.
pub(super) fn activate<const D: usize>(x: Tensor<D>, activation: Activation) -> Tensor<D> {
    match activation {
        Activation::Clip { min, max } => {
            // Unlike `clamp`, this has no slope at the ends, like PyTorch's `relu6` and `hardtanh`.
            let (below, above) =
                (x.clone().lower_equal_elem(min), x.clone().greater_equal_elem(max));
            x.mask_fill(below, min).mask_fill(above, max)
        }
        Activation::Sigmoid => sigmoid(x),
        Activation::HardSigmoid { alpha, beta } => hard_sigmoid(x, alpha.into(), beta.into()),
        Activation::Silu => x.clone() * sigmoid(x),
        Activation::HardSwish => x.clone() * hard_sigmoid(x, 1.0 / 6.0, 0.5),
        Activation::LeakyRelu { slope } => leaky_relu(x, slope.into()),
        Activation::Tanh => x.tanh(),
        Activation::Gelu => {
            // By its parts, since some backends have an approximation for the derivative of the whole.
            let half = x.clone().mul_scalar(0.5);
            half * (x.mul_scalar(std::f64::consts::FRAC_1_SQRT_2).erf().add_scalar(1.0))
        }
        other => unreachable!("`is_covered` lacks {other:?}"),
    }
}

/// Values rounded to a grid; the gradient passes where [`ActivationGrid::covers`] them.
pub(super) fn fake_quantize<const D: usize>(x: Tensor<D>, grid: ActivationGrid) -> Tensor<D> {
    let (zero, highest) = (f32::from(grid.zero_point), f32::from(grid.highest()));
    let codes = x.clone().detach().div_scalar(grid.scale).round().add_scalar(zero);
    let beyond = codes.clone().lower_elem(0.0).bool_or(codes.clone().greater_elem(highest));
    let rounded = codes.clamp(0.0, highest).sub_scalar(zero).mul_scalar(grid.scale);
    if !x.is_tracked() {
        return rounded;
    }
    let within = x.mask_fill(beyond, 0.0);
    within.clone() + (rounded - within.detach())
}

/// `x * scale + shift` for every channel.
///
/// # Shapes
/// - `x`: `[batch, channels, ...]`, everything else `[channels]`
pub(super) fn scale_shift<const D: usize>(
    x: Tensor<D>,
    [scale, shift]: [Tensor<1>; 2],
) -> Tensor<D> {
    let mut shape = [1; D];
    shape[1] = x.dims()[1];
    x * scale.reshape(shape) + shift.reshape(shape)
}

/// The first channel of every group, then the second, and so on.
///
/// # Shapes
/// - `x`: `[batch, channels, ...]`
pub(super) fn shuffle<const D: usize>(x: Tensor<D>, groups: usize) -> Tensor<D> {
    let dims = x.dims();
    let area: usize = dims[2..].iter().product();
    let grouped: Tensor<4> = x.reshape([dims[0], groups, dims[1] / groups, area]);
    grouped.swap_dims(1, 2).reshape(dims)
}

/// Every value over a power of the mean square of its neighbours in other channels.
///
/// # Shapes
/// - `x`: `[batch, channels, height, width]`
pub(super) fn response_norm(x: Tensor<4>, size: usize, [alpha, beta, bias]: [f32; 3]) -> Tensor<4> {
    let [batch, channels, height, width] = x.dims();
    let squares = (x.clone() * x.clone()).reshape([batch, 1, channels, height * width]);
    let window = Pool2d::new([size, 1], 1).padding(Axes::new(size / 2, 0)).count_include_pad(true);
    let mean = avg_pool(squares, window).reshape([batch, channels, height, width]);
    x / mean.mul_scalar(alpha).add_scalar(bias).powf_scalar(beta)
}

/// Batch norm with the statistics of the batch, and those: mean and biased variance, untracked.
///
/// # Shapes
/// - `x`: `[batch, channels, ...]`, everything else `[channels]`
pub(super) fn batch_norm_train<const D: usize>(
    x: Tensor<D>,
    [weight, bias]: [Tensor<1>; 2],
    epsilon: f64,
) -> (Tensor<D>, [Tensor<1>; 2]) {
    let trained = module::batch_norm_train(x, weight, bias, epsilon);
    (trained.output, [trained.mean.inner(), trained.variance.inner()])
}

/// Batch norm with given statistics.
///
/// # Shapes
/// - `x`: `[batch, channels, ...]`, everything else `[channels]`
pub(super) fn batch_norm<const D: usize>(
    x: Tensor<D>,
    [weight, bias]: [Tensor<1>; 2],
    [mean, variance]: [Tensor<1>; 2],
    epsilon: f64,
) -> Tensor<D> {
    module::batch_norm(x, weight, bias, mean, variance, epsilon)
}

/// Mean cross-entropy.
///
/// # Shapes
/// - `logits`: `[batch, classes]`, `labels`: `[batch]`, output: `[1]`
pub(super) fn cross_entropy(logits: Tensor<2>, labels: Tensor<1, Int>) -> Tensor<1> {
    let [batch, _] = logits.dims();
    log_softmax(logits, 1).gather(1, labels.reshape([batch, 1])).mean().neg()
}

/// Mean cross-entropy between the softmax of a teacher's logits and that of `logits`.
///
/// # Shapes
/// - both: `[batch, classes]`, output: `[1]`
pub(super) fn distillation(logits: Tensor<2>, teacher: Tensor<2>) -> Tensor<1> {
    let terms = softmax(teacher, 1) * log_softmax(logits, 1);
    terms.sum_dim(1).mean().neg()
}
