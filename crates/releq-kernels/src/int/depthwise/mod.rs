//! Depthwise convolution: each channel is convolved with its own kernel.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;

#[cfg(target_arch = "x86_64")]
use crate::int::int8::Line;
use crate::{
    ConvShape, Isa, KernelError, Threads, Workspace,
    cpu::Cpu,
    int::{
        epilogue::{AsCodes, AsSums, AsValues, Block, Finish, LANES, Output},
        scratch::SCRATCH,
        weight_rows::WeightRows,
    },
    threads::{Grid, Part, share},
    vectorise::{Loops, vectorise},
};

/// Pixels whose sums are kept before the epilogue runs over them.
const PIXELS: usize = 32;

/// A depthwise convolution with weights of 1 to 8 bits.
///
/// Each sum has few products, so moving activations dominates the time and fewer bits would save nothing. One kernel
/// therefore serves all bitwidths.
#[derive(Clone, Debug)]
pub struct DepthwiseConv {
    cpu: Cpu,
    shape: ConvShape,
    bits: u8,
    weights: Weights,
    padding_code: u8,
}

/// Weights laid out for an instruction set, in lines of 16 channels that are padded with zeros.
#[derive(Clone, Debug)]
enum Weights {
    /// `[kernel][kernel][channels / 16, rounded up]`
    Taps(Vec<[i16; LANES]>),
    /// `[taps / 2, rounded up][channels / 16, rounded up][16][2]`
    #[cfg(target_arch = "x86_64")]
    Pairs(crate::cpu::Avx2, Vec<avx2::Pair>, Vec<[usize; avx2::TAPS]>),
    /// `[columns][rows / 4, rounded up][channels / 16, rounded up][16][4]`
    #[cfg(target_arch = "x86_64")]
    Columns(crate::cpu::Avx512, Vec<Line>),
}

impl Weights {
    /// From `[channels][kernel][kernel]`.
    fn pack(codes: &[i8], shape: ConvShape, cpu: Cpu) -> Self {
        let ConvShape { channels, kernel, .. } = shape;
        let groups = channels.div_ceil(LANES);
        let taps = kernel * kernel;
        // Each code with its tap and its channel.
        let each = codes.iter().enumerate().map(|(at, &code)| (at % taps, at / taps, code));
        match cpu {
            Cpu::Portable => {
                let mut lines = vec![[0; LANES]; taps * groups];
                for (tap, channel, code) in each {
                    lines[tap * groups + channel / LANES][channel % LANES] = code.into();
                }
                Self::Taps(lines)
            }
            #[cfg(target_arch = "x86_64")]
            Cpu::Avx2(avx2) => {
                let none = avx2::Pair([0; LANES * avx2::TAPS]);
                let mut pairs = vec![none; taps.div_ceil(avx2::TAPS) * groups];
                for (tap, channel, code) in each {
                    let avx2::Pair(lanes) = &mut pairs[tap / avx2::TAPS * groups + channel / LANES];
                    lanes[channel % LANES * avx2::TAPS + tap % avx2::TAPS] = code.into();
                }
                let row = (shape.width + 2 * shape.padding) * channels;
                Self::Pairs(avx2, pairs, avx2::places(kernel, row, channels))
            }
            #[cfg(target_arch = "x86_64")]
            Cpu::Avx512(avx512) => {
                let quads = kernel.div_ceil(avx512::ROWS);
                let mut lines = vec![Line::ZERO; kernel * quads * groups];
                for (tap, channel, code) in each {
                    let (row, column) = (tap / kernel, tap % kernel);
                    let line = (column * quads + row / avx512::ROWS) * groups + channel / LANES;
                    lines[line].0[channel % LANES * avx512::ROWS + row % avx512::ROWS] = code;
                }
                Self::Columns(avx512, lines)
            }
        }
    }
}

impl DepthwiseConv {
    /// Packs `[channels][kernel][kernel]` codes of `bits` bits. The shape must have as many outputs as channels.
    ///
    /// # Errors
    /// [`KernelError`] for an invalid shape, a wrong length, a code outside its bitwidth, a bitwidth outside 1 to 8,
    /// or an instruction set that this processor lacks.
    pub fn pack(codes: &[i8], shape: ConvShape, bits: u8, isa: Isa) -> Result<Self, KernelError> {
        check(shape)?;
        let taps = shape.kernel * shape.kernel;
        Self::pack_rows(&mut WeightRows::of(codes, shape.channels, taps, bits)?, shape, isa)
    }

    /// As [`pack`](Self::pack), of a shape that was checked.
    pub(crate) fn pack_rows<E: From<KernelError>>(
        rows: &mut WeightRows<'_, E>,
        shape: ConvShape,
        isa: Isa,
    ) -> Result<Self, E> {
        let cpu = Cpu::new(isa)?;
        rows.pair().check_depth(rows.depth())?;
        let bits = rows.pair().weight();
        let weights = Weights::pack(rows.get(0, shape.channels)?, shape, cpu);
        Ok(Self { cpu, shape, bits, weights, padding_code: 0 })
    }

    /// Sets the code that images are padded with: the zero point of the activations.
    #[must_use]
    pub fn with_padding_code(self, padding_code: u8) -> Self {
        Self { padding_code, ..self }
    }

    /// The shape that the weights were packed for.
    #[must_use]
    pub const fn shape(&self) -> ConvShape {
        self.shape
    }

    /// Bits of a weight.
    #[must_use]
    pub const fn bits(&self) -> u8 {
        self.bits
    }

    /// Size of the packed weights, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match &self.weights {
            Weights::Taps(lines) => size_of_val(lines.as_slice()),
            #[cfg(target_arch = "x86_64")]
            Weights::Pairs(_, pairs, _) => size_of_val(pairs.as_slice()),
            #[cfg(target_arch = "x86_64")]
            Weights::Columns(_, lines) => size_of_val(lines.as_slice()),
        }
    }

    /// The instruction set that the weights are packed for.
    #[must_use]
    pub const fn isa(&self) -> Isa {
        self.cpu.isa()
    }

    /// Convolves activations `[height][width][channels]` into `[out_height][out_width][channels]`, written in
    /// the form that `out` asks for. The sums equal [`reference::depthwise`](crate::reference::depthwise).
    ///
    /// # Errors
    /// [`KernelError`] for a wrong length.
    pub fn run<'a>(
        &self,
        acts: &[u8],
        out: impl Into<Output<'a>>,
        workspace: &mut Workspace,
        threads: &Threads,
    ) -> Result<(), KernelError> {
        let (shape, out) = (self.shape, out.into());
        let pixels = shape.out_height() * shape.out_width();
        for (what, expected, got) in [
            ("activations", shape.height * shape.width * shape.channels, acts.len()),
            ("out", pixels * shape.channels, out.len()),
        ] {
            if got != expected {
                return Err(KernelError::Length { what, expected, got });
            }
        }
        out.check(shape.channels)?;
        let acts = workspace.pad(acts, shape, self.padding_code, threads)?;
        match out {
            Output::Sums(out) => self.finish(&AsSums, acts, out, threads),
            Output::Codes { epilogue, bits, out } => {
                self.finish(&AsCodes::new(epilogue, bits), acts, out, threads);
            }
            Output::Values { epilogue, out } => {
                self.finish(&AsValues(epilogue), acts, out, threads);
            }
        }
        Ok(())
    }

    fn finish<F: Finish>(&self, finish: &F, acts: &[u8], out: &mut [F::Out], threads: &Threads) {
        let channels = self.shape.channels;
        let groups = channels.div_ceil(LANES);
        let row = (self.shape.width + 2 * self.shape.padding) * channels;
        // A single panel, so that threads always split the pixels: a depthwise layer has few channels and many
        // pixels.
        let depth = self.shape.kernel * self.shape.kernel;
        share(Grid { outputs: channels, panel: channels, depth }, out, threads, |part| {
            let Part { first_pixel, out, pitch, .. } = part;
            let rows = Rows { acts, shape: self.shape, row, groups, first_pixel, pixels: 0 };
            #[cfg(target_arch = "x86_64")]
            if let (Weights::Columns(avx512, lines), Some(codes)) =
                (&self.weights, finish.fused(&mut *out))
            {
                let rows = Rows { pixels: codes.out.len() / pitch, ..rows };
                return avx512::run_fused(*avx512, &rows, lines, codes);
            }
            let mut scratch = SCRATCH.take();
            let sums = &mut scratch.sums;
            sums.resize(PIXELS * groups, [0; LANES]);
            for (index, out) in out.chunks_mut(PIXELS * pitch).enumerate() {
                let pixels = out.len() / pitch;
                let first_pixel = first_pixel + index * PIXELS;
                let sums = &mut sums[..pixels * groups];
                let rows = Rows { first_pixel, pixels, ..rows };
                match &self.weights {
                    Weights::Taps(lines) => {
                        vectorise(self.cpu, Taps { rows, lines, sums: &mut *sums });
                    }
                    #[cfg(target_arch = "x86_64")]
                    Weights::Pairs(avx2, pairs, places) => {
                        avx2::run(*avx2, &rows, pairs, places, sums);
                    }
                    #[cfg(target_arch = "x86_64")]
                    Weights::Columns(avx512, lines) => avx512::run(*avx512, &rows, lines, sums),
                }
                finish.finish(Block { cpu: self.cpu, sums, first: 0, channels, pitch }, out);
            }
            SCRATCH.set(scratch);
        });
    }
}

/// Checks that a shape is that of a depthwise convolution.
///
/// # Errors
/// [`KernelError`] if it is not.
pub(crate) fn check(shape: ConvShape) -> Result<(), KernelError> {
    shape.check()?;
    if shape.outputs != shape.channels {
        let reason = "must be the number of channels in a depthwise convolution";
        return Err(KernelError::Shape { what: "outputs", got: shape.outputs, reason });
    }
    Ok(())
}

/// Some output pixels, and the activations of [`Workspace::pad`] that they are computed from, which can be read 16 at a time.
#[derive(Clone, Copy, Debug)]
struct Rows<'a> {
    acts: &'a [u8],
    shape: ConvShape,
    /// Activations of a padded row.
    row: usize,
    /// Channels / 16, rounded up.
    groups: usize,
    first_pixel: usize,
    pixels: usize,
}

/// Output pixels of one row.
#[derive(Clone, Copy, Debug)]
struct Segment {
    /// Index among the pixels.
    first: usize,
    /// Where the window of the first one starts.
    start: usize,
    count: usize,
}

impl Rows<'_> {
    /// Distance between the windows of neighbouring pixels.
    const fn step(&self) -> usize {
        // A stride larger than the image gives a single output, whatever the stride. Clamping it keeps offsets from
        // overflowing.
        let ConvShape { height, width, padding, .. } = self.shape;
        let side = if height > width { height } else { width } + 2 * padding;
        let stride = if self.shape.stride < side { self.shape.stride } else { side };
        stride * self.shape.channels
    }

    fn segments(&self) -> impl Iterator<Item = Segment> {
        let (columns, row_step) =
            (self.shape.out_width(), self.step() / self.shape.channels * self.row);
        let mut first = 0;
        std::iter::from_fn(move || {
            let (pixel, left) = (self.first_pixel + first, self.pixels - first);
            let (y, x) = (pixel / columns, pixel % columns);
            let segment = Segment {
                first,
                start: y * row_step + x * self.step(),
                count: left.min(columns - x),
            };
            first += segment.count;
            (segment.count > 0).then_some(segment)
        })
    }

    /// Checks what the vector kernels rely on: the windows of all pixels lie inside the activations, and 16 bytes can be
    /// read from each of their pixels.
    ///
    /// # Panics
    /// If they do not.
    #[cfg(target_arch = "x86_64")]
    fn check(&self) {
        let ConvShape { channels, height, width, padding, .. } = self.shape;
        assert_eq!(self.row, (width + 2 * padding) * channels, "padded rows");
        assert!(self.row * (height + 2 * padding) + LANES <= self.acts.len(), "the padded image");
        let pixels = self.shape.out_height() * self.shape.out_width();
        assert!(self.first_pixel + self.pixels <= pixels, "pixels of the output");
        assert_eq!(self.groups, channels.div_ceil(LANES), "all channels");
    }
}

/// Plain loops.
struct Taps<'a> {
    rows: Rows<'a>,
    lines: &'a [[i16; LANES]],
    /// `[pixels][channels / 16, rounded up]`
    sums: &'a mut [[i32; LANES]],
}

impl Loops for Taps<'_> {
    #[inline(always)]
    fn run(self) {
        let Rows { acts, shape: ConvShape { channels, kernel, .. }, row, groups, .. } = self.rows;
        for Segment { first, start, count } in self.rows.segments() {
            let sums = self.sums[first * groups..].chunks_exact_mut(groups);
            for (pixel, sums) in sums.take(count).enumerate() {
                let start = start + pixel * self.rows.step();
                for (group, sums) in sums.iter_mut().enumerate() {
                    let mut acc = [0; LANES];
                    for ky in 0..kernel {
                        for kx in 0..kernel {
                            let at = start + ky * row + kx * channels + group * LANES;
                            let weights = &self.lines[(ky * kernel + kx) * groups + group];
                            let acts: &[u8] = &acts[at..at + LANES];
                            for i in 0..LANES {
                                // At most 128 * 255 in magnitude, which fits in 16 bits.
                                acc[i] += i32::from(weights[i] * i16::from(acts[i]));
                            }
                        }
                    }
                    *sums = acc;
                }
            }
        }
    }
}
