//! Codes stored at exactly as many bits as they need.

use releq_core::Bitwidth;
use serde::{Deserialize, Serialize};

use crate::{QuantError, layer_weights::check_length};

/// `len` codes of `bits` bits each in one run of bits, lowest bit first; unused bits at the end are 0.
///
/// ```
/// use releq_core::Bitwidth;
/// use releq_quant::PackedCodes;
///
/// let packed = PackedCodes::pack(&[5, 0, 7, 2, 1], Bitwidth::new(3)?)?;
/// assert_eq!(packed.as_bytes().len(), 2); // 15 bits
/// assert_eq!(packed.unpack(), [5, 0, 7, 2, 1]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Raw", into = "Raw")]
pub struct PackedCodes {
    bytes: Vec<u8>,
    len: usize,
    bits: Bitwidth,
}

#[derive(Serialize, Deserialize)]
struct Raw {
    bytes: Vec<u8>,
    len: usize,
    bits: Bitwidth,
}

impl TryFrom<Raw> for PackedCodes {
    type Error = QuantError;
    fn try_from(raw: Raw) -> Result<Self, QuantError> {
        Self::from_bytes(raw.bytes, raw.len, raw.bits)
    }
}

impl From<PackedCodes> for Raw {
    fn from(packed: PackedCodes) -> Self {
        Self { bytes: packed.bytes, len: packed.len, bits: packed.bits }
    }
}

/// Bytes that `len` codes need.
fn bytes_for(len: usize, bits: Bitwidth) -> Result<usize, QuantError> {
    if bits > Bitwidth::EIGHT {
        let (quantizer, supported) = ("packing".to_owned(), (1..=8).collect());
        return Err(QuantError::BitwidthNotSupported { quantizer, got: bits, supported });
    }
    len.checked_mul(usize::from(bits.get()))
        .map(|total| total.div_ceil(8))
        .ok_or(QuantError::Length { what: "codes", got: len, expected: usize::MAX / 8 })
}

/// Writes codes of `B` bits, one in each byte. Eight of them take `B` bytes, so that the loop over eight has constant shifts.
fn unpack<const B: usize>(bytes: &[u8], codes: &mut [u8]) {
    let eight = |bytes: &[u8]| {
        let mut word = [0; 8];
        word[..bytes.len()].copy_from_slice(bytes);
        let (word, mask) = (u64::from_le_bytes(word), (1_u64 << B) - 1);
        std::array::from_fn::<u8, 8, _>(|at| (word >> (at * B) & mask) as u8)
    };
    let (whole, rest) = codes.as_chunks_mut::<8>();
    let (runs, last) = bytes.as_chunks::<B>();
    for (codes, run) in whole.iter_mut().zip(runs) {
        *codes = eight(run);
    }
    // What is left is less than eight codes, whose bytes may be as many as those of eight.
    let last = runs.get(whole.len()).map_or(last, <[u8; B]>::as_slice);
    rest.copy_from_slice(&eight(last)[..rest.len()]);
}

/// Writes codes of up to 8 bits, of which there are as many bytes as they need.
fn unpack_any(bytes: &[u8], bits: Bitwidth, codes: &mut [u8]) {
    match bits.get() {
        1 => unpack::<1>(bytes, codes),
        2 => unpack::<2>(bytes, codes),
        3 => unpack::<3>(bytes, codes),
        4 => unpack::<4>(bytes, codes),
        5 => unpack::<5>(bytes, codes),
        6 => unpack::<6>(bytes, codes),
        7 => unpack::<7>(bytes, codes),
        _ => codes.copy_from_slice(bytes),
    }
}

impl PackedCodes {
    /// Packs codes that are all below `2^bits`.
    ///
    /// # Errors
    /// [`QuantError::CodeTooWide`] at the first that is not; [`QuantError::BitwidthNotSupported`]
    /// above 8 bits.
    pub fn pack(codes: &[u8], bits: Bitwidth) -> Result<Self, QuantError> {
        let mut bytes = Vec::with_capacity(bytes_for(codes.len(), bits)?);
        let width = u32::from(bits.get());
        let (mut pending, mut count) = (0u32, 0u32);
        for (index, &code) in codes.iter().enumerate() {
            if u32::from(code) >> width != 0 {
                return Err(QuantError::CodeTooWide { index, code, bits: bits.get() });
            }
            pending |= u32::from(code) << count;
            count += width;
            while count >= 8 {
                bytes.push((pending & 0xff) as u8);
                pending >>= 8;
                count -= 8;
            }
        }
        if count > 0 {
            bytes.push((pending & 0xff) as u8);
        }
        Ok(Self { bytes, len: codes.len(), bits })
    }

    /// Takes bytes that [`as_bytes`](Self::as_bytes) gave.
    ///
    /// # Errors
    /// [`QuantError::Length`] if that many codes need another number of bytes, and
    /// [`QuantError::Padding`] if the bits after the last code are not zero.
    pub fn from_bytes(bytes: Vec<u8>, len: usize, bits: Bitwidth) -> Result<Self, QuantError> {
        Self::check_bytes(bytes.len(), bytes.last().copied(), len, bits)?;
        Ok(Self { bytes, len, bits })
    }

    /// Checks that `bytes` bytes, of which this is the last one, can be those of `len` codes: what
    /// [`from_bytes`](Self::from_bytes) checks, of bytes that are elsewhere.
    ///
    /// # Errors
    /// As [`from_bytes`](Self::from_bytes).
    pub fn check_bytes(
        bytes: usize,
        last: Option<u8>,
        len: usize,
        bits: Bitwidth,
    ) -> Result<(), QuantError> {
        check_length("packed bytes", bytes, bytes_for(len, bits)?)?;
        // The first reduction keeps the product small; only the remainder by 8 matters.
        let used = len % 8 * usize::from(bits.get()) % 8;
        match last {
            Some(last) if used > 0 && last >> used != 0 => {
                Err(QuantError::Padding { unused: 8 - used as u8, last })
            }
            _ => Ok(()),
        }
    }

    /// The codes, one in each byte.
    #[must_use]
    pub fn unpack(&self) -> Vec<u8> {
        let mut codes = vec![0; self.len];
        unpack_any(&self.bytes, self.bits, &mut codes);
        codes
    }

    /// Writes as many codes as there is room for, from the beginning of `bytes` on: a part of those of
    /// [`as_bytes`](Self::as_bytes) that begins with a whole code, as it does wherever eight times a number of codes precede.
    ///
    /// # Errors
    /// [`QuantError::Length`] if that many codes need another number of bytes; [`QuantError::BitwidthNotSupported`] above 8
    /// bits.
    pub fn unpack_part(bytes: &[u8], bits: Bitwidth, codes: &mut [u8]) -> Result<(), QuantError> {
        check_length("packed bytes", bytes.len(), bytes_for(codes.len(), bits)?)?;
        unpack_any(bytes, bits, codes);
        Ok(())
    }

    /// The packed bits.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Number of codes.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no code.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bits of each code.
    #[must_use]
    pub const fn bits(&self) -> Bitwidth {
        self.bits
    }
}
