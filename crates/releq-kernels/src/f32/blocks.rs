//! How the channels of a layer are split into vectors.

use crate::Isa;

/// Channels that are computed together by one tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Block {
    /// Index of the first channel.
    pub(super) first: usize,
    /// Number of channels.
    pub(super) channels: usize,
    /// Number of vectors that hold them.
    pub(super) vectors: usize,
    /// Lanes of a vector.
    pub(super) lanes: usize,
}

impl Block {
    /// Number of lanes; those past the channels hold zeros.
    pub(super) const fn width(self) -> usize {
        self.vectors * self.lanes
    }
}

/// Splits `channels` so that few lanes stay empty: pairs of wide vectors first, and a narrow vector if few
/// channels are left.
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

/// Number of lanes of all blocks. All blocks except the last are full, so that the index of a lane equals that of its
/// channel.
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
