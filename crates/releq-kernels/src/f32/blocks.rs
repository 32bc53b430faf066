//! How the channels of a layer are cut into vectors.

use crate::Isa;

/// Channels that one tile sums side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Block {
    /// The first of them.
    pub(super) first: usize,
    /// How many there are.
    pub(super) channels: usize,
    /// Vectors that hold them, and lanes of each.
    pub(super) vectors: usize,
    pub(super) lanes: usize,
}

impl Block {
    /// Lanes that hold the channels; those beyond them are zero.
    pub(super) const fn width(self) -> usize {
        self.vectors * self.lanes
    }
}

/// Cuts `channels` so that few lanes stay empty: wide vectors first, a narrow one for a short rest.
pub(super) fn blocks(isa: Isa, channels: usize) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut first = 0;
    while first < channels {
        let left = channels - first;
        let (vectors, lanes) = match isa {
            Isa::Avx512 if left > 24 => (2, 16),
            Isa::Avx512 if left > 8 => (1, 16),
            Isa::Avx2 if left > 8 => (2, 8),
            _ => (1, 8),
        };
        let channels = left.min(vectors * lanes);
        blocks.push(Block { first, channels, vectors, lanes });
        first += channels;
    }
    blocks
}

/// Lanes of all blocks together. Every block but the last is full, so that a channel has the same place among
/// lanes as among channels.
pub(super) fn padded(blocks: &[Block]) -> usize {
    blocks.iter().map(|block| block.width()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_cover_all_channels_and_only_the_last_has_empty_lanes() {
        for isa in Isa::ALL {
            for channels in 0..200 {
                let blocks = blocks(isa, channels);
                let mut next = 0;
                for (index, block) in blocks.iter().enumerate() {
                    assert_eq!(block.first, next, "{isa}, {channels}");
                    assert!(block.channels == block.width() || index + 1 == blocks.len());
                    next += block.channels;
                }
                assert_eq!(next, channels, "{isa}");
                assert!(padded(&blocks) - channels < 8, "{isa}, {channels}");
            }
        }
    }
}
