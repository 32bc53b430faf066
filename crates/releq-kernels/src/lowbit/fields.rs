//! How weights share lines: split into fields of 4, 2 and 1 bits, so that shifts and masks of whole lines, alike
//! on every processor, take them apart.
//!
//! A weight is first moved to the top of its byte. Its bits from there on make fields: 7 bits are 4, 2 and 1. The
//! fields of `size` bits of 8 lines share `size` lines: field of line `i` is part `i / size` of line `i % size`,
//! the first part at the top.

use crate::{
    Isa,
    int8::{GROUP, LANES, Line},
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
    /// Its bits in a weight at the top of its byte.
    pub(super) const fn mask(self) -> u8 {
        (0xff_u8 << (8 - self.size)) >> self.offset
    }

    /// The fields of a weight of so many bits.
    pub(super) const fn all(bits: usize) -> [Option<Self>; 4] {
        let mut fields = [None; 4];
        let (mut offset, mut count) = (0, 0);
        while offset < bits {
            let left = bits - offset;
            let size = if left >= 4 {
                4
            } else if left >= 2 {
                2
            } else {
                1
            };
            fields[count] = Some(Self { size, offset });
            offset += size;
            count += 1;
        }
        fields
    }
}

/// `CHUNK` lines of codes in `bits` lines, the first of those returned.
pub(super) fn pack(codes: &[Line; CHUNK], bits: u8) -> [Line; CHUNK] {
    let mut packed = [Line::ZERO; CHUNK];
    for field in Field::all(bits.into()).into_iter().flatten() {
        for (i, codes) in codes.iter().enumerate() {
            let line = &mut packed[field.offset + i % field.size];
            for (to, &code) in line.0.iter_mut().zip(&codes.0) {
                let top = (code as u8) << (8 - bits);
                let part = (top & field.mask()) << field.offset >> (i / field.size * field.size);
                *to |= part as i8;
            }
        }
    }
    packed
}

/// Expands chunks `[chunks][width][bits]` to lines `[8 chunks][width]`.
pub(super) fn unpack(isa: Isa, bits: u8, packed: &[Line], width: usize, lines: &mut Vec<Line>) {
    let len = packed.len() / usize::from(bits) * CHUNK;
    if lines.len() < len {
        lines.resize(len, Line::ZERO);
    }
    let lines = &mut lines[..len];
    match bits {
        1 => vectorise(isa, Unpack::<1> { packed, width, lines }),
        2 => vectorise(isa, Unpack::<2> { packed, width, lines }),
        3 => vectorise(isa, Unpack::<3> { packed, width, lines }),
        4 => vectorise(isa, Unpack::<4> { packed, width, lines }),
        5 => vectorise(isa, Unpack::<5> { packed, width, lines }),
        6 => vectorise(isa, Unpack::<6> { packed, width, lines }),
        7 => vectorise(isa, Unpack::<7> { packed, width, lines }),
        _ => vectorise(isa, Unpack::<8> { packed, width, lines }),
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
            for i in 0..CHUNK {
                self.lines[(first + i) * self.width + column] = line(chunk, i);
            }
        }
    }
}

/// Line `i` of a chunk.
#[inline(always)]
fn line<const B: usize>(chunk: &[Line; B], i: usize) -> Line {
    let mut line = Line::ZERO;
    for at in 0..LANES * GROUP {
        let mut top = 0;
        for field in const { Field::all(B) }.into_iter().flatten() {
            let part = chunk[field.offset + i % field.size].0[at] as u8;
            top |= part << (i / field.size * field.size) >> field.offset & field.mask();
        }
        line.0[at] = (top as i8) >> (8 - B);
    }
    line
}
