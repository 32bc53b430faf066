//! The layout of packed weights. Each weight is split into fields of 4, 2 and 1 bits, so that shifts and masks
//! of whole lines unpack them on every processor.
//!
//! A weight is first moved to the top of its byte, and its bits are split from the top: 7 bits are fields of 4,
//! 2 and 1. The `size`-bit fields of 8 lines share `size` lines: the field of line `i` is part `i / size` of
//! line `i % size`, with the first part at the top. So 8 lines of `b`-bit weights take exactly `b` lines.

use crate::{
    cpu::Cpu,
    int::int8::{GROUP, LANES, Line},
    vectorise::{Loops, vectorise},
};

/// Number of lines that are packed together.
pub(super) const CHUNK: usize = 8;

/// One field of a weight.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    /// Its bits, which is also the number of lines that hold it.
    pub(super) size: usize,
    /// Bits of the weight above it, which is also the number of lines before its own.
    pub(super) offset: usize,
}

impl Field {
    /// The field of `size` bits (8, 4, 2 or 1) of a weight of `bits` bits, if there is one.
    pub(super) const fn new(bits: usize, size: usize) -> Option<Self> {
        if bits & size == 0 {
            return None;
        }
        Some(Self { size, offset: bits & !(2 * size - 1) })
    }

    /// Mask of the field in a weight that was moved to the top of its byte.
    pub(super) const fn mask(self) -> u8 {
        (0xff_u8 << (8 - self.size)) >> self.offset
    }

    /// The packed line that holds the field of line `i`.
    pub(super) const fn line(self, i: usize) -> usize {
        self.offset + i % self.size
    }

    /// Distance of that field from the top of the byte.
    pub(super) const fn shift(self, i: usize) -> usize {
        i / self.size * self.size
    }
}

/// Packs `CHUNK` lines of codes into `bits` lines, the first of the returned ones.
pub(super) fn pack(codes: &[Line; CHUNK], bits: u8) -> [Line; CHUNK] {
    let mut packed = [Line::ZERO; CHUNK];
    for field in [8, 4, 2, 1].into_iter().filter_map(|size| Field::new(bits.into(), size)) {
        for (i, codes) in codes.iter().enumerate() {
            let line = &mut packed[field.line(i)];
            for (to, &code) in line.0.iter_mut().zip(&codes.0) {
                let top = (code as u8) << (8 - bits);
                let part = (top & field.mask()) << field.offset >> field.shift(i);
                *to |= part as i8;
            }
        }
    }
    packed
}

/// Expands chunks `[chunks][width][bits]` to lines `[8 chunks][width]`.
pub(super) fn unpack(cpu: Cpu, bits: u8, packed: &[Line], width: usize, lines: &mut Vec<Line>) {
    let len = packed.len() / usize::from(bits) * CHUNK;
    if lines.len() < len {
        lines.resize(len, Line::ZERO);
    }
    let lines = &mut lines[..len];
    match bits {
        1 => vectorise(cpu, Unpack::<1> { packed, width, lines }),
        2 => vectorise(cpu, Unpack::<2> { packed, width, lines }),
        3 => vectorise(cpu, Unpack::<3> { packed, width, lines }),
        4 => vectorise(cpu, Unpack::<4> { packed, width, lines }),
        5 => vectorise(cpu, Unpack::<5> { packed, width, lines }),
        6 => vectorise(cpu, Unpack::<6> { packed, width, lines }),
        7 => vectorise(cpu, Unpack::<7> { packed, width, lines }),
        _ => copy(packed, width, lines),
    }
}

/// Weights of 8 bits only change places.
fn copy(packed: &[Line], width: usize, lines: &mut [Line]) {
    for (index, chunk) in packed.as_chunks::<CHUNK>().0.iter().enumerate() {
        let (first, column) = (index / width * CHUNK, index % width);
        for (i, line) in chunk.iter().enumerate() {
            lines[(first + i) * width + column] = *line;
        }
    }
}

struct Unpack<'a, const B: usize> {
    packed: &'a [Line],
    width: usize,
    lines: &'a mut [Line],
}

impl<const B: usize> Loops for Unpack<'_, B> {
    #[inline(always)]
    fn run(self) {
        let (chunks, _) = self.packed.as_chunks::<B>();
        for (index, chunk) in chunks.iter().enumerate() {
            let (first, column) = (index / self.width * CHUNK, index % self.width);
            // The line is a const generic, so that all shifts and masks are constants.
            let lines = [
                line::<B, 0>(chunk),
                line::<B, 1>(chunk),
                line::<B, 2>(chunk),
                line::<B, 3>(chunk),
                line::<B, 4>(chunk),
                line::<B, 5>(chunk),
                line::<B, 6>(chunk),
                line::<B, 7>(chunk),
            ];
            for (i, line) in lines.into_iter().enumerate() {
                self.lines[(first + i) * self.width + column] = line;
            }
        }
    }
}

/// Expands line `I` of a chunk.
#[inline(always)]
fn line<const B: usize, const I: usize>(chunk: &[Line; B]) -> Line {
    let mut line = Line::ZERO;
    for at in 0..LANES * GROUP {
        let top = part::<B, I, 8>(chunk, at)
            | part::<B, I, 4>(chunk, at)
            | part::<B, I, 2>(chunk, at)
            | part::<B, I, 1>(chunk, at);
        line.0[at] = (top as i8) >> (8 - B);
    }
    line
}

/// The field of `S` bits of a weight at the top of its byte.
#[inline(always)]
fn part<const B: usize, const I: usize, const S: usize>(chunk: &[Line; B], at: usize) -> u8 {
    match const { Field::new(B, S) } {
        None => 0,
        Some(field) => {
            let byte = chunk[field.line(I)].0[at] as u8;
            byte << field.shift(I) >> field.offset & field.mask()
        }
    }
}
