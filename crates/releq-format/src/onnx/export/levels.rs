//! Codes as the signed whole numbers that other programs multiply scales with.

use releq_quant::Quantized;

use super::Stored;
use crate::steps::Steps;

/// Weights as `scale * level`, the same numbers in single precision as `scale * (code - zero_point)`.
pub(crate) struct Levels {
    pub(crate) levels: Vec<i16>,
    /// One for the layer, or one for each output channel.
    pub(crate) scales: Vec<f32>,
    /// The lowest and the highest level that the bitwidth has.
    pub(crate) range: [i16; 2],
    /// Whether the levels are symmetric, with one code of `2^bits` left out.
    pub(crate) is_narrow: bool,
}

impl Levels {
    /// # Errors
    /// The reason, if the zero point is not one that whole numbers can express.
    pub(crate) fn of(quantized: &Quantized) -> Result<Self, String> {
        let steps = Steps::of(quantized.scales(), quantized.zero_point())?;
        let levels = quantized.codes().iter().map(|&code| steps.level(code.into())).collect();
        let (range, is_narrow) = steps.range(quantized);
        Ok(Self { levels, scales: steps.scales, range, is_narrow })
    }

    /// The smallest type that holds all levels and that `most_opset` has.
    pub(super) fn stored(&self, most_opset: i64) -> Option<Stored> {
        let [low, high] = self.range.map(i32::from);
        [Stored::Int2, Stored::Int4, Stored::Int8, Stored::Int16].into_iter().find(|stored| {
            let (bits, opset) = (stored.bits(), stored.opset());
            let half = 1 << (bits - 1);
            opset <= most_opset && -half <= low && high < half
        })
    }

    /// The values that scales are multiplied with to give the weights.
    pub(super) fn dequantize(&self) -> Vec<f32> {
        let row = self.levels.len() / self.scales.len();
        let rows = self.levels.chunks_exact(row).zip(&self.scales);
        rows.flat_map(|(levels, scale)| levels.iter().map(move |&level| scale * f32::from(level)))
            .collect()
    }
}

impl Stored {
    pub(super) const fn bits(self) -> u32 {
        match self {
            Self::Int2 => 2,
            Self::Int4 => 4,
            Self::Int8 => 8,
            Self::Int16 => 16,
            Self::Float => 32,
        }
    }

    /// The first version of the operators whose `DequantizeLinear` takes it, channel by channel as well.
    pub(super) const fn opset(self) -> i64 {
        match self {
            Self::Int2 => 25,
            Self::Int4 | Self::Int16 => 21,
            Self::Int8 | Self::Float => 13,
        }
    }

    /// Its number among ONNX's types.
    ///
    /// # Source
    /// `TensorProto.DataType` of `onnx.proto`.
    pub(super) const fn data_type(self) -> i32 {
        match self {
            Self::Int2 => 26,
            Self::Int4 => 22,
            Self::Int8 => 3,
            Self::Int16 => 5,
            Self::Float => 1,
        }
    }

    /// Whole numbers as the bytes of a tensor: few bits lowest first, the last byte filled up with zeros.
    pub(super) fn pack(self, levels: &[i16]) -> Vec<u8> {
        let bits = self.bits();
        if bits >= 8 {
            let bytes = levels.iter().map(|level| level.to_le_bytes());
            return bytes.flat_map(|pair| pair.into_iter().take(bits as usize / 8)).collect();
        }
        let per_byte = (8 / bits) as usize;
        let mask = (1u16 << bits) - 1;
        let byte = |levels: &[i16]| {
            let fields = levels.iter().enumerate();
            fields.fold(0u8, |byte, (place, &level)| {
                byte | (((level as u16) & mask) as u8) << (place as u32 * bits)
            })
        };
        levels.chunks(per_byte).map(byte).collect()
    }
}

#[cfg(test)]
mod tests {
    use releq_core::Bitwidth;

    use super::*;

    fn quantized(codes: &[u8], zero_point: f32, bits: u8) -> Quantized {
        Quantized::new(codes.to_vec(), vec![0.75], zero_point, Bitwidth::new(bits).unwrap())
            .unwrap()
    }

    #[test]
    fn levels_are_symmetric_or_odd_and_take_the_smallest_type() {
        // By hand, for codes that WRPN and DoReFa give.
        for (codes, zero_point, bits, levels, range, stored) in [
            (&[0, 1, 1][..], 0.5, 1, &[-1, 1, 1][..], [-1, 1], Stored::Int2),
            (&[0, 1, 2], 1.0, 2, &[-1, 0, 1], [-1, 1], Stored::Int2),
            (&[0, 1, 3], 1.5, 2, &[-3, -1, 3], [-3, 3], Stored::Int4),
            (&[0, 6], 3.0, 3, &[-3, 3], [-3, 3], Stored::Int4),
            (&[0, 14], 7.0, 4, &[-7, 7], [-7, 7], Stored::Int4),
            (&[0, 15], 7.5, 4, &[-15, 15], [-15, 15], Stored::Int8),
            (&[0, 15], 8.0, 4, &[-8, 7], [-8, 7], Stored::Int4),
            (&[0, 254], 127.0, 8, &[-127, 127], [-127, 127], Stored::Int8),
            (&[0, 255], 127.5, 8, &[-255, 255], [-255, 255], Stored::Int16),
            (&[0, 255], 0.0, 8, &[0, 255], [0, 255], Stored::Int16),
        ] {
            let quantized = quantized(codes, zero_point, bits);
            let got = Levels::of(&quantized).unwrap();
            assert_eq!((got.levels.as_slice(), got.range), (levels, range), "{zero_point} {bits}");
            assert_eq!(got.stored(25), Some(stored), "{zero_point} {bits}");
            assert_eq!(got.dequantize(), quantized.dequantize());
        }
        let wide = Levels::of(&quantized(&[0, 15], 7.0, 4)).unwrap();
        assert!(!wide.is_narrow, "the highest code is used");
        assert_eq!((wide.range, wide.stored(25)), ([-7, 8], Some(Stored::Int8)));
        let two = Levels::of(&quantized(&[0, 2], 1.0, 2)).unwrap();
        assert_eq!(
            [24, 20, 12].map(|most| two.stored(most)),
            [Some(Stored::Int4), Some(Stored::Int8), None]
        );
    }

    #[test]
    fn what_whole_numbers_cannot_express_is_refused() {
        assert!(Levels::of(&quantized(&[0], 0.3, 2)).err().unwrap().contains("zero point 0.3"));
        assert!(Levels::of(&quantized(&[0], 1e9, 2)).is_err());
        let tiny = Quantized::new(vec![0], vec![f32::from_bits(1)], 0.5, Bitwidth::ONE).unwrap();
        assert!(Levels::of(&tiny).err().unwrap().contains("half a scale"));
    }

    #[test]
    fn few_bits_are_packed_lowest_first() {
        // By hand: -1 is 1111, 0 and 1 follow; 11, 00, 01, 10 from the lowest bits up, then 11.
        assert_eq!(Stored::Int4.pack(&[-1, 0, 7]), [0x0f, 0x07]);
        assert_eq!(Stored::Int2.pack(&[-1, 0, 1, -2, -1]), [0b10_01_00_11, 0b11]);
        assert_eq!(Stored::Int8.pack(&[-1, 5]), [0xff, 5]);
        assert_eq!(Stored::Int16.pack(&[-255]), [0x01, 0xff]);
    }
}
