//! Reference implementations that every kernel must equal bit for bit: slow, but short enough to verify by reading.

use crate::{BitPair, ConvShape, GemmShape, KernelError};

/// `out[p][o] = sum_k acts[p][k] * weights[o][k]`.
///
/// # Errors
/// [`KernelError`] for a wrong length, a code outside its bitwidth, or sums that could overflow.
pub fn gemm(
    shape: GemmShape,
    bits: BitPair,
    weights: &[i8],
    acts: &[u8],
    out: &mut [i32],
) -> Result<(), KernelError> {
    shape.check(weights.len(), acts.len(), out.len())?;
    bits.check_depth(shape.depth)?;
    bits.check_weights(weights)?;
    bits.check_acts(acts)?;
    for pixel in 0..shape.pixels {
        for output in 0..shape.outputs {
            let acts = &acts[pixel * shape.depth..][..shape.depth];
            let weights = &weights[output * shape.depth..][..shape.depth];
            let products = acts.iter().zip(weights).map(|(&a, &w)| i32::from(a) * i32::from(w));
            out[pixel * shape.outputs + output] = products.sum();
        }
    }
    Ok(())
}

/// Convolution with zero padding; see [`ConvShape`] for the layout of the operands.
///
/// # Errors
/// [`KernelError`] for an invalid shape, a wrong length, a code outside its bitwidth, or sums that could overflow.
pub fn conv2d(
    shape: ConvShape,
    bits: BitPair,
    weights: &[i8],
    acts: &[u8],
    out: &mut [i32],
) -> Result<(), KernelError> {
    shape.check_lengths(weights.len(), acts.len(), out.len())?;
    bits.check_depth(shape.depth())?;
    bits.check_weights(weights)?;
    bits.check_acts(acts)?;
    let ConvShape { channels, height, width, outputs, kernel, stride, padding } = shape;
    for row in 0..shape.out_height() {
        for column in 0..shape.out_width() {
            for output in 0..outputs {
                let mut sum = 0;
                for (ky, kx) in (0..kernel * kernel).map(|k| (k / kernel, k % kernel)) {
                    // Wraps around in the padding left of and above the image, which is skipped below.
                    let y = (row * stride + ky).wrapping_sub(padding);
                    let x = (column * stride + kx).wrapping_sub(padding);
                    if y >= height || x >= width {
                        continue;
                    }
                    for channel in 0..channels {
                        let act = acts[(y * width + x) * channels + channel];
                        let at = ((output * kernel + ky) * kernel + kx) * channels + channel;
                        sum += i32::from(act) * i32::from(weights[at]);
                    }
                }
                out[(row * shape.out_width() + column) * outputs + output] = sum;
            }
        }
    }
    Ok(())
}

/// Depthwise convolution with weights `[channels][kernel][kernel]` and zero padding.
///
/// # Errors
/// [`KernelError`] for an invalid shape, a wrong length, a code outside its bitwidth, or sums that could overflow.
pub fn depthwise(
    shape: ConvShape,
    bits: BitPair,
    weights: &[i8],
    acts: &[u8],
    out: &mut [i32],
) -> Result<(), KernelError> {
    crate::int::depthwise::check(shape)?;
    let ConvShape { channels, height, width, kernel, stride, padding, .. } = shape;
    let pixels = shape.out_height() * shape.out_width();
    for (what, expected, got) in [
        ("weights", channels * kernel * kernel, weights.len()),
        ("activations", height * width * channels, acts.len()),
        ("out", pixels * channels, out.len()),
    ] {
        if got != expected {
            return Err(KernelError::Length { what, expected, got });
        }
    }
    bits.check_depth(kernel * kernel)?;
    bits.check_weights(weights)?;
    bits.check_acts(acts)?;
    for (at, out) in out.iter_mut().enumerate() {
        let (pixel, channel) = (at / channels, at % channels);
        let (row, column) = (pixel / shape.out_width(), pixel % shape.out_width());
        *out = 0;
        for (ky, kx) in (0..kernel * kernel).map(|k| (k / kernel, k % kernel)) {
            // Wraps around in the padding left of and above the image, which is skipped below.
            let y = (row * stride + ky).wrapping_sub(padding);
            let x = (column * stride + kx).wrapping_sub(padding);
            if y < height && x < width {
                let act = acts[(y * width + x) * channels + channel];
                *out += i32::from(act) * i32::from(weights[(channel * kernel + ky) * kernel + kx]);
            }
        }
    }
    Ok(())
}
