//! Convolution on bit planes.

use super::{Acts, BitSerialWeights, Pixels, Product, Runs, WORD, planes};
use crate::{
    BitPair, ConvShape, Isa, KernelError, Threads, Workspace,
    cpu::Cpu,
    int::{epilogue::Output, weight_rows::WeightRows},
};

/// A convolution by bit planes.
///
/// Every input row is split into planes once. If the channels fill most of their words, windows are read in place.
/// Otherwise the bits of each window are gathered into words without gaps.
#[derive(Clone, Debug)]
pub struct BitSerialConv {
    shape: ConvShape,
    weights: BitSerialWeights,
    /// How windows are gathered; `None` if they are read in place.
    pieces: Option<Vec<Piece>>,
}

/// Bits of one kernel row that fall into one word of a window.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    /// The word of the window.
    word: usize,
    /// The row of the kernel.
    pub(super) row: usize,
    /// Position of the first bit of `word`, relative to 32 bits before the kernel row, so that it is not negative.
    pub(super) bit: usize,
    /// The bits of `word` that belong to the row.
    pub(super) mask: u32,
    /// Whether this is the last piece of its word.
    pub(super) is_last: bool,
}

impl BitSerialConv {
    /// Packs `[outputs][kernel][kernel][channels]` codes.
    ///
    /// # Errors
    /// [`KernelError`] for an invalid shape, a wrong length, a code outside its bitwidth, a bitwidth outside 1 to 8,
    /// or an instruction set that this processor lacks.
    pub fn pack(codes: &[i8], shape: ConvShape, bits: u8, isa: Isa) -> Result<Self, KernelError> {
        Self::pack_rows(&mut WeightRows::of_conv(codes, shape, bits)?, shape, isa)
    }

    /// As [`pack`](Self::pack), of a shape that was checked.
    pub(crate) fn pack_rows<E: From<KernelError>>(
        rows: &mut WeightRows<'_, E>,
        mut shape: ConvShape,
        isa: Isa,
    ) -> Result<Self, E> {
        // A stride larger than the image gives a single output, whatever the stride. Clamping it keeps offsets from
        // overflowing.
        shape.stride = shape.stride.min(shape.height.max(shape.width) + 2 * shape.padding);
        let (taps, channels) = (shape.kernel * shape.kernel, shape.channels);
        let in_place = taps * channels.div_ceil(WORD);
        // Gathering takes time as well, so it has to save at least a fifth of the words. With fewer than 32
        // channels, reading in place would also pad every pixel to a whole word, which multiplies the memory of
        // the planes.
        let gathers = channels < WORD || 5 * shape.depth().div_ceil(WORD) < 4 * in_place;
        let taps = if gathers { 1 } else { taps };
        let weights = BitSerialWeights::pack_taps(rows, shape.outputs, taps, isa)?;
        Ok(Self { shape, weights, pieces: gathers.then(|| pieces(shape)) })
    }

    /// The packed weights.
    #[must_use]
    pub const fn weights(&self) -> &BitSerialWeights {
        &self.weights
    }

    /// Splits the activations into planes and convolves, written in the form that `out` asks for. The sums
    /// equal [`reference::conv2d`](crate::reference::conv2d), which takes the same operands. Splitting runs on
    /// the calling thread, everything after it on all threads.
    ///
    /// # Errors
    /// [`KernelError`] for a wrong length, a code outside its bitwidth, or sums that could overflow.
    pub fn run<'a>(
        &self,
        acts: &[u8],
        act_bits: u8,
        out: impl Into<Output<'a>>,
        workspace: &mut Workspace,
        threads: &Threads,
    ) -> Result<(), KernelError> {
        let (shape, out) = (self.shape, out.into());
        let pair = BitPair::new(self.weights.bits, act_bits)?;
        shape.check_lengths(shape.outputs * shape.depth(), acts.len(), out.len())?;
        out.check(shape.outputs)?;
        pair.check_depth(shape.depth())?;
        pair.check_acts(acts)?;
        let ConvShape { channels, kernel, stride, .. } = shape;
        let bits = usize::from(act_bits);
        let (rows, columns) = (shape.out_height(), shape.out_width());

        // Distance between pixels of a row, in codes.
        let pitch = if self.pieces.is_some() { channels } else { channels.next_multiple_of(WORD) };
        let row_words = self.split_rows(acts, pitch, act_bits, workspace)?;
        let Some(pieces) = &self.pieces else {
            let pixel = pitch / WORD * bits;
            let (step, row_step) = (stride * pixel, stride * row_words);
            let pixels = Pixels { count: rows * columns, columns, step, row_step };
            let runs = Runs { count: kernel, words: kernel * pitch / WORD, stride: row_words };
            // Only gathering uses the word before the image.
            let acts = Acts::InPlace(&workspace.planes[bits..]);
            Product { weights: &self.weights, acts, bits, pixels, runs }.run(out, threads);
            return Ok(());
        };
        let image = Image { planes: &workspace.planes, row_words, shape, pieces };
        let words = self.weights.words;
        let pixels = Pixels::in_line(rows * columns, words * bits);
        let runs = Runs { count: 1, words, stride: 0 };
        let acts = Acts::Gathered(image);
        Product { weights: &self.weights, acts, bits, pixels, runs }.run(out, threads);
        Ok(())
    }

    /// Splits the image into planes in the workspace: a word of zeros, all rows with their padding, and another
    /// word of zeros, where a word has one `u32` per plane. Returns the number of `u32`s of a row.
    ///
    /// The extra words let gathering read 64 bits around any position.
    fn split_rows(
        &self,
        acts: &[u8],
        pitch: usize,
        act_bits: u8,
        workspace: &mut Workspace,
    ) -> Result<usize, KernelError> {
        let ConvShape { channels, height, width, padding, .. } = self.shape;
        let bits = usize::from(act_bits);
        let codes = (width + 2 * padding).checked_mul(pitch);
        let codes = codes.and_then(|codes| codes.checked_next_multiple_of(WORD));
        let row_words = codes.unwrap_or(usize::MAX) / WORD * bits;
        let words = row_words.checked_mul(height + 2 * padding);
        // The larger buffer first, so that an impossible size fails before memory is touched.
        planes::resize(&mut workspace.planes, words.and_then(|words| words.checked_add(2 * bits)))?;
        planes::resize(&mut workspace.row, codes)?;
        let row = workspace.row.as_mut_slice();
        let split = planes::splitter(self.weights.cpu);
        let rows = workspace.planes[bits + padding * row_words..].chunks_exact_mut(row_words);
        for (words, acts) in rows.zip(acts.chunks_exact(width * channels)) {
            let row_acts = &mut row[padding * pitch..][..width * pitch];
            if pitch == channels {
                row_acts.copy_from_slice(acts);
            } else {
                for (to, from) in row_acts.chunks_exact_mut(pitch).zip(acts.chunks_exact(channels))
                {
                    to[..channels].copy_from_slice(from);
                }
            }
            split(row, act_bits, words);
        }
        Ok(row_words)
    }
}

/// The pieces of a window, ordered by word. Every word has at least one.
fn pieces(shape: ConvShape) -> Vec<Piece> {
    let bits = shape.kernel * shape.channels;
    let pieces = (0..shape.kernel).flat_map(|row| {
        let (start, end) = (row * bits, (row + 1) * bits);
        (start / WORD..end.div_ceil(WORD)).map(move |word| {
            let low = start.saturating_sub(word * WORD);
            let high = (end - word * WORD).min(WORD);
            let mask = (u32::MAX >> (WORD - (high - low))) << low;
            Piece { word, row, bit: WORD + word * WORD - start, mask, is_last: false }
        })
    });
    let mut pieces: Vec<_> = pieces.collect();
    pieces.sort_by_key(|piece| piece.word);
    for at in 0..pieces.len() {
        pieces[at].is_last = pieces.get(at + 1).is_none_or(|next| next.word > pieces[at].word);
    }
    pieces
}

/// Rows of planes from [`BitSerialConv::split_rows`], and how windows are gathered from them.
#[derive(Clone, Copy)]
pub(super) struct Image<'a> {
    pub(super) planes: &'a [u32],
    pub(super) row_words: usize,
    pub(super) shape: ConvShape,
    pub(super) pieces: &'a [Piece],
}

impl Image<'_> {
    /// Gathers windows of `words` words with `bits` planes from pixel `first` on, as many as `windows` has space for.
    pub(super) fn gather_on(
        &self,
        cpu: Cpu,
        bits: usize,
        words: usize,
        first: usize,
        windows: &mut [u32],
    ) {
        match bits {
            1 => self.gather_planes::<1>(cpu, words, first, windows),
            2 => self.gather_planes::<2>(cpu, words, first, windows),
            3 => self.gather_planes::<3>(cpu, words, first, windows),
            4 => self.gather_planes::<4>(cpu, words, first, windows),
            5 => self.gather_planes::<5>(cpu, words, first, windows),
            6 => self.gather_planes::<6>(cpu, words, first, windows),
            7 => self.gather_planes::<7>(cpu, words, first, windows),
            _ => self.gather_planes::<8>(cpu, words, first, windows),
        }
    }

    fn gather_planes<const A: usize>(
        &self,
        cpu: Cpu,
        words: usize,
        first: usize,
        windows: &mut [u32],
    ) {
        match cpu {
            #[cfg(target_arch = "x86_64")]
            Cpu::Avx512(avx512) => {
                super::avx512::gather::<A>(avx512, self, words, first, windows);
            }
            #[cfg(target_arch = "x86_64")]
            Cpu::Avx2(avx2) => super::avx2::gather::<A>(avx2, self, words, first, windows),
            Cpu::Portable => self.gather::<A>(words, first, windows),
        }
    }

    /// Copies the bits of every window into words, `[pixels][words][A]`. Inlined, so that it is compiled with the
    /// instructions of the caller.
    ///
    /// Piece by piece, and for each piece along a row of windows: then only the position changes from window to
    /// window.
    #[inline(always)]
    pub(super) fn gather<const A: usize>(&self, words: usize, first: usize, windows: &mut [u32]) {
        windows.fill(0);
        let columns = self.shape.out_width();
        let step = self.shape.stride * self.shape.channels;
        let (mut pixel, mut rest) = (first, windows);
        while !rest.is_empty() {
            // The rest of a row of pixels, or less at the end.
            let (y, x) = (pixel / columns, pixel % columns);
            let len = ((columns - x) * words * A).min(rest.len());
            let (row_windows, after) = rest.split_at_mut(len);
            for piece in self.pieces {
                let row = (y * self.shape.stride + piece.row) * self.row_words;
                let (planes, _) = self.planes[row..].as_chunks::<A>();
                let (windows, _) = row_windows.as_chunks_mut::<A>();
                let mut bit = piece.bit + x * step;
                for window in windows[piece.word..].iter_mut().step_by(words) {
                    // Local copies cannot overlap what is written, which lets the compiler vectorize over planes.
                    let (low, high) = (planes[bit / WORD], planes[bit / WORD + 1]);
                    let shift = (bit % WORD) as u32;
                    let mut moved = [0; A];
                    for plane in 0..A {
                        let both = u64::from(high[plane]) << 32 | u64::from(low[plane]);
                        moved[plane] = (both >> shift) as u32;
                    }
                    let mut whole = *window;
                    for (to, moved) in whole.iter_mut().zip(moved) {
                        *to |= moved & piece.mask;
                    }
                    *window = whole;
                    bit += step;
                }
            }
            pixel += columns - x;
            rest = after;
        }
    }
}
