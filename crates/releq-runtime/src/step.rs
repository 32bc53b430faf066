//! The steps of a run.

use releq_kernels::{
    Addend, Epilogue, Factor, Isa, KernelError, Layer, Output, PoolShape, ResultCodes, Threads,
    Workspace, add, max_pool, multiply, sum_pool,
};
use releq_quant::ActivationGrid;

use crate::{
    Activation,
    float::{FloatStep, join},
    graph::{Joined, Value},
};

/// One layer, with what is part of it.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Product { layer: Box<Layer>, epilogue: Epilogue },
    Add { factor: f32 },
    Mul { scale: f32 },
    Concat(Vec<Joined>),
    Select { from: Vec<usize>, channels: usize },
    ChannelTables(Vec<[u8; 256]>),
    Table(Box<[u8; 256]>),
    MaxPool(PoolShape),
    MeanPool(PoolShape, Epilogue),
    Pad { top: usize, left: usize, input: Value, output: Value },
    Shortcut { stride: usize, before: usize, input: Value, output: Value },
    Float(FloatStep, &'static str),
}

/// Where the result of a step goes.
pub(crate) enum Target<'a> {
    Codes(&'a mut [u8], ActivationGrid),
    Values(&'a mut [f32]),
}

/// What steps share.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    pub(crate) isa: Isa,
    pub(crate) threads: Threads,
    pub(crate) workspace: Workspace,
}

impl Step {
    /// Computes a step on integers; nothing is done for one in single precision.
    pub(crate) fn run(
        &self,
        inputs: [Option<Activation<'_>>; 2],
        target: Target<'_>,
        shared: &mut Shared,
    ) -> Result<(), KernelError> {
        let Shared { isa, threads, workspace } = shared;
        let threads = &*threads;
        match (self, inputs, target) {
            (
                Self::Product { layer, epilogue },
                [Some(Activation::Codes { codes, .. }), _],
                target,
            ) => layer.run(codes, output(epilogue, target), workspace, threads),
            (
                Self::Add { factor },
                [
                    Some(Activation::Codes { codes: a, grid: a_grid }),
                    Some(Activation::Codes { codes: b, grid: b_grid }),
                ],
                Target::Codes(out, grid),
            ) => {
                let (factor, zero_point) = (*factor, grid.zero_point);
                let to = ResultCodes { factor, zero_point, bits: grid.bits.get() };
                add(addend(a, a_grid), addend(b, b_grid), to, out, *isa, threads)
            }
            (
                Self::Mul { scale },
                [
                    Some(Activation::Codes { codes: a, grid: a_grid }),
                    Some(Activation::Codes { codes: b, grid: b_grid }),
                ],
                Target::Codes(out, grid),
            ) => {
                let (a, b) = (factor(a, a_grid), factor(b, b_grid));
                let (factor, zero_point) = (*scale, grid.zero_point);
                let to = ResultCodes { factor, zero_point, bits: grid.bits.get() };
                multiply(a, b, to, out, *isa, threads)
            }
            (
                Self::Select { from, channels },
                [Some(Activation::Codes { codes, .. }), _],
                Target::Codes(out, _),
            ) => {
                select(codes, *channels, from, out);
                Ok(())
            }
            (
                Self::Select { from, channels },
                [Some(Activation::Values(values)), _],
                Target::Values(out),
            ) => {
                select(values, *channels, from, out);
                Ok(())
            }
            (
                Self::ChannelTables(tables),
                [Some(Activation::Codes { codes, .. }), _],
                Target::Codes(out, _),
            ) => {
                let channels = tables.len();
                threads.split(out, channels, |first, out| {
                    let pixels = codes[first * channels..].chunks_exact(channels);
                    for (out, codes) in out.chunks_exact_mut(channels).zip(pixels) {
                        for (out, (&code, table)) in out.iter_mut().zip(codes.iter().zip(tables)) {
                            *out = table[usize::from(code)];
                        }
                    }
                });
                Ok(())
            }
            (
                Self::Table(table),
                [Some(Activation::Codes { codes, .. }), _],
                Target::Codes(out, _),
            ) => {
                threads.split(out, 1, |first, out| {
                    for (out, &code) in out.iter_mut().zip(&codes[first..]) {
                        *out = table[usize::from(code)];
                    }
                });
                Ok(())
            }
            (
                Self::MaxPool(shape),
                [Some(Activation::Codes { codes, .. }), _],
                Target::Codes(out, _),
            ) => max_pool(*shape, codes, out, *isa, threads),
            (
                Self::MeanPool(shape, epilogue),
                [Some(Activation::Codes { codes, .. }), _],
                target,
            ) => sum_pool(*shape, codes, output(epilogue, target), *isa, threads),
            (
                Self::Pad { top, left, input, output },
                [Some(Activation::Codes { codes, grid }), _],
                Target::Codes(out, _),
            ) => {
                out.fill(grid.zero_point);
                let row = input.width * input.channels;
                let rows = out.chunks_exact_mut(output.width * output.channels).skip(*top);
                for (out, row) in rows.zip(codes.chunks_exact(row)) {
                    out[left * input.channels..][..row.len()].copy_from_slice(row);
                }
                Ok(())
            }
            (
                Self::Shortcut { stride, before, input, output },
                [Some(Activation::Codes { codes, grid }), _],
                Target::Codes(out, _),
            ) => {
                shortcut(codes, grid.zero_point, (*stride, *before), [*input, *output], out);
                Ok(())
            }
            (
                Self::Shortcut { stride, before, input, output },
                [Some(Activation::Values(values)), _],
                Target::Values(out),
            ) => {
                shortcut(values, 0.0, (*stride, *before), [*input, *output], out);
                Ok(())
            }
            // Lowering gives every operation on integers codes.
            _ => Ok(()),
        }
    }
}

/// Joins tensors of codes.
pub(crate) fn concat<'a>(
    inputs: &[Joined],
    codes: impl Iterator<Item = Activation<'a>>,
    out: &mut [u8],
) {
    let all = inputs.iter().map(|joined| joined.channels).sum();
    let mut before = 0;
    for (Joined { channels, table }, input) in inputs.iter().zip(codes) {
        let Activation::Codes { codes, .. } = input else { continue };
        join(codes, *channels, before, out.chunks_exact_mut(all));
        if let Some(table) = table {
            for pixel in out.chunks_exact_mut(all) {
                for code in &mut pixel[before..][..*channels] {
                    *code = table[usize::from(*code)];
                }
            }
        }
        before += channels;
    }
}

/// Channels of every pixel, by their numbers.
fn select<T: Copy>(pixels: &[T], channels: usize, from: &[usize], out: &mut [T]) {
    let places = out.chunks_exact_mut(from.len());
    for (out, pixel) in places.zip(pixels.chunks_exact(channels)) {
        for (out, &channel) in out.iter_mut().zip(from) {
            *out = pixel[channel];
        }
    }
}

const fn factor(codes: &[u8], grid: ActivationGrid) -> Factor<'_> {
    Factor { codes, zero_point: grid.zero_point }
}

fn output<'a>(epilogue: &'a Epilogue, target: Target<'a>) -> Output<'a> {
    match target {
        Target::Codes(out, grid) => Output::Codes { epilogue, bits: grid.bits.get(), out },
        Target::Values(out) => Output::Values { epilogue, out },
    }
}

const fn addend(codes: &[u8], grid: ActivationGrid) -> Addend<'_> {
    Addend::Codes { scale: grid.scale, zero_point: grid.zero_point, codes }
}

/// Pixels that are kept, with channels of `zero` around theirs.
fn shortcut<T: Copy>(
    from: &[T],
    zero: T,
    (stride, before): (usize, usize),
    [input, output]: [Value; 2],
    out: &mut [T],
) {
    let kept =
        (0..output.height).flat_map(|row| (0..output.width).map(move |column| (row, column)));
    for ((row, column), out) in kept.zip(out.chunks_exact_mut(output.channels)) {
        let at = (row * input.width + column) * stride * input.channels;
        out.fill(zero);
        out[before..][..input.channels].copy_from_slice(&from[at..][..input.channels]);
    }
}
