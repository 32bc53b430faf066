//! How weights share lines: split into fields of 4, 2 and 1 bits, so that shifts and masks of whole lines, alike
//! on every processor, take them apart.
//!
//! A weight is first moved to the top of its byte. Its bits from there on make fields: 7 bits are 4, 2 and 1. The
//! fields of `size` bits of 8 lines share `size` lines: field of line `i` is part `i / size` of line `i % size`,
//! the first part at the top.

use crate::{
    cpu::Cpu,
    int::int8::{GROUP, LANES, Line},
    vectorise::{Loops, vectorise},
};

/// Lines that are packed together.
pub(super) const CHUNK: usize = 8;

/// One field of a weight.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    /// Bits of it, and lines of it.
    pub(super) size: usize,
    /// Bits of the weight above it, and lines before its own.
    pub(super) offset: usize,
}

impl Field {
    /// The field of 8, 4, 2 or 1 bits of a weight of so many bits, if it has that.
    pub(super) const fn new(bits: usize, size: usize) -> Option<Self> {
        if bits & size == 0 {
            return None;
        }
        Some(Self { size, offset: bits & !(2 * size - 1) })
    }

    /// Its bits in a weight at the top of its byte.
    pub(super) const fn mask(self) -> u8 {
        (0xff_u8 << (8 - self.size)) >> self.offset
    }

    /// Where line `i` finds it.
    pub(super) const fn line(self, i: usize) -> usize {
        self.offset + i % self.size
    }

    /// How far it lies below the top there.
    pub(super) const fn shift(self, i: usize) -> usize {
        i / self.size * self.size
    }
}

/// `CHUNK` lines of codes in `bits` lines, the first of those returned.
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

/// Weights of 8 bits have but to be brought into order.
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
            // Constants, so that shifts and masks are.
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

/// Line `I` of a chunk.
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
