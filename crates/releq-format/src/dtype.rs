//! Types of tensor elements, under the names that each format has for them.

use ::safetensors::Dtype as Named;
use half::{bf16, f16};

/// What the elements of a tensor are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dtype {
    F32,
    F64,
    F16,
    BF16,
    I64,
    I32,
    I16,
    I8,
    U8,
    Bool,
    /// A type of quantized tensors, stored as the integer.
    Quantized(Integer),
    /// Any other: its name and its bytes in a storage.
    Other(&'static str, u64),
}

/// Integers that quantized tensors are stored as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Integer {
    I8,
    U8,
    I32,
}

/// PyTorch's names of types and of the legacy storages that hold them.
const TYPES: [(&str, &str, Dtype); 33] = [
    ("float32", "FloatStorage", Dtype::F32),
    ("float64", "DoubleStorage", Dtype::F64),
    ("float16", "HalfStorage", Dtype::F16),
    ("bfloat16", "BFloat16Storage", Dtype::BF16),
    ("int64", "LongStorage", Dtype::I64),
    ("int32", "IntStorage", Dtype::I32),
    ("int16", "ShortStorage", Dtype::I16),
    ("int8", "CharStorage", Dtype::I8),
    ("uint8", "ByteStorage", Dtype::U8),
    ("bool", "BoolStorage", Dtype::Bool),
    ("qint8", "QInt8Storage", Dtype::Quantized(Integer::I8)),
    ("quint8", "QUInt8Storage", Dtype::Quantized(Integer::U8)),
    ("qint32", "QInt32Storage", Dtype::Quantized(Integer::I32)),
    ("quint4x2", "QUInt4x2Storage", Dtype::Other("quint4x2", 1)),
    ("quint2x4", "QUInt2x4Storage", Dtype::Other("quint2x4", 1)),
    ("complex32", "ComplexHalfStorage", Dtype::Other("complex32", 4)),
    ("complex64", "ComplexFloatStorage", Dtype::Other("complex64", 8)),
    ("complex128", "ComplexDoubleStorage", Dtype::Other("complex128", 16)),
    ("bcomplex32", "", Dtype::Other("bcomplex32", 4)),
    ("uint16", "", Dtype::Other("uint16", 2)),
    ("uint32", "", Dtype::Other("uint32", 4)),
    ("uint64", "", Dtype::Other("uint64", 8)),
    ("float8_e4m3fn", "", Dtype::Other("float8_e4m3fn", 1)),
    ("float8_e5m2", "", Dtype::Other("float8_e5m2", 1)),
    ("float8_e4m3fnuz", "", Dtype::Other("float8_e4m3fnuz", 1)),
    ("float8_e5m2fnuz", "", Dtype::Other("float8_e5m2fnuz", 1)),
    ("float8_e8m0fnu", "", Dtype::Other("float8_e8m0fnu", 1)),
    ("float4_e2m1fn_x2", "", Dtype::Other("float4_e2m1fn_x2", 1)),
    ("bits8", "", Dtype::Other("bits8", 1)),
    ("bits16", "", Dtype::Other("bits16", 2)),
    ("bits1x8", "", Dtype::Other("bits1x8", 1)),
    ("bits2x4", "", Dtype::Other("bits2x4", 1)),
    ("bits4x2", "", Dtype::Other("bits4x2", 1)),
];

impl Dtype {
    /// The type that PyTorch calls `torch.NAME`.
    pub(crate) fn of_torch(name: &str) -> Option<Self> {
        if let Some(&(.., dtype)) = TYPES.iter().find(|(torch, ..)| *torch == name) {
            return Some(dtype);
        }
        // Types of a few bits: `torch.uint1` to `torch.uint7` and their signed twins.
        let bits = name.strip_prefix("uint").or_else(|| name.strip_prefix("int"))?;
        matches!(bits, "1" | "2" | "3" | "4" | "5" | "6" | "7")
            .then_some(Self::Other("sub-byte", 1))
    }

    /// The type that a storage of PyTorch's class `name` holds.
    pub(crate) fn of_storage(name: &str) -> Option<Self> {
        let &(.., dtype) = TYPES.iter().find(|(_, storage, _)| *storage == name)?;
        (!name.is_empty()).then_some(dtype)
    }

    /// The type that NumPy calls by a letter and a number of bytes.
    pub(crate) fn of_numpy(code: &str) -> Self {
        match code {
            "f4" => Self::F32,
            "f8" => Self::F64,
            "f2" => Self::F16,
            "i8" => Self::I64,
            "i4" => Self::I32,
            "i2" => Self::I16,
            "i1" => Self::I8,
            "u1" => Self::U8,
            "b1" => Self::Bool,
            "u2" => Self::Other("uint16", 2),
            "u4" => Self::Other("uint32", 4),
            "u8" => Self::Other("uint64", 8),
            "c8" => Self::Other("complex64", 8),
            "c16" => Self::Other("complex128", 16),
            _ => Self::Other("non-numeric", 1),
        }
    }

    /// The type of a safetensors file.
    pub(crate) fn of_safetensors(named: Named) -> Self {
        match named {
            Named::F32 => Self::F32,
            Named::F64 => Self::F64,
            Named::F16 => Self::F16,
            Named::BF16 => Self::BF16,
            Named::I64 => Self::I64,
            Named::I32 => Self::I32,
            Named::I16 => Self::I16,
            Named::I8 => Self::I8,
            Named::U8 => Self::U8,
            Named::BOOL => Self::Bool,
            Named::U16 => Self::Other("uint16", 2),
            Named::U32 => Self::Other("uint32", 4),
            Named::U64 => Self::Other("uint64", 8),
            Named::C64 => Self::Other("complex64", 8),
            Named::F8_E5M2 => Self::Other("float8_e5m2", 1),
            Named::F8_E4M3 => Self::Other("float8_e4m3fn", 1),
            Named::F8_E8M0 => Self::Other("float8_e8m0fnu", 1),
            Named::F8_E4M3FNUZ => Self::Other("float8_e4m3fnuz", 1),
            Named::F8_E5M2FNUZ => Self::Other("float8_e5m2fnuz", 1),
            _ => Self::Other("sub-byte", 1),
        }
    }

    /// As PyTorch calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Other(name, _) => name,
            _ => TYPES.iter().find(|(.., dtype)| *dtype == self).map_or("", |(name, ..)| name),
        }
    }

    /// Bytes of one element.
    pub(crate) fn size(self) -> u64 {
        match self {
            Self::F64 | Self::I64 => 8,
            Self::F32 | Self::I32 | Self::Quantized(Integer::I32) => 4,
            Self::F16 | Self::BF16 | Self::I16 => 2,
            Self::I8 | Self::U8 | Self::Bool | Self::Quantized(Integer::I8 | Integer::U8) => 1,
            Self::Other(_, size) => size,
        }
    }

    /// Whether weights may have it: floating point, or quantized from it.
    pub(crate) fn is_weight(self) -> bool {
        matches!(self, Self::F32 | Self::F64 | Self::F16 | Self::BF16 | Self::Quantized(_))
    }

    /// The elements in single precision; `None` for types that nothing here reads.
    pub(crate) fn widen(self, bytes: &[u8], big_endian: bool) -> Option<Vec<f32>> {
        fn each<const N: usize>(
            bytes: &[u8],
            big_endian: bool,
            value: impl Fn([u8; N]) -> f32,
        ) -> Vec<f32> {
            let (values, _) = bytes.as_chunks::<N>();
            let little = |mut bytes: [u8; N]| {
                if big_endian {
                    bytes.reverse();
                }
                bytes
            };
            values.iter().map(|&bytes| value(little(bytes))).collect()
        }
        let big = big_endian;
        Some(match self {
            Self::F32 => each(bytes, big, f32::from_le_bytes),
            Self::F64 => each(bytes, big, |bytes| f64::from_le_bytes(bytes) as f32),
            Self::F16 => each(bytes, big, |bytes| f16::from_le_bytes(bytes).to_f32()),
            Self::BF16 => each(bytes, big, |bytes| bf16::from_le_bytes(bytes).to_f32()),
            Self::I64 => each(bytes, big, |bytes| i64::from_le_bytes(bytes) as f32),
            Self::I32 | Self::Quantized(Integer::I32) => {
                each(bytes, big, |bytes| i32::from_le_bytes(bytes) as f32)
            }
            Self::I16 => each(bytes, big, |bytes| i16::from_le_bytes(bytes).into()),
            Self::I8 | Self::Quantized(Integer::I8) => {
                each(bytes, big, |bytes| i8::from_le_bytes(bytes).into())
            }
            Self::U8 | Self::Quantized(Integer::U8) => {
                each(bytes, big, |bytes| u8::from_le_bytes(bytes).into())
            }
            Self::Bool => each(bytes, big, |[byte]| f32::from(u8::from(byte != 0))),
            Self::Other(..) => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_float_type_widens_in_either_byte_order() {
        // By hand: 1.5 is 0x3FC00000, 0x3FF8000000000000, 0x3E00 and 0x3FC0; 258 is 0x0102.
        for (dtype, big, expected) in [
            (Dtype::F32, vec![0x3F, 0xC0, 0, 0], 1.5),
            (Dtype::F64, vec![0x3F, 0xF8, 0, 0, 0, 0, 0, 0], 1.5),
            (Dtype::F16, vec![0x3E, 0], 1.5),
            (Dtype::BF16, vec![0x3F, 0xC0], 1.5),
            (Dtype::I64, vec![0, 0, 0, 0, 0, 0, 1, 2], 258.0),
            (Dtype::Quantized(Integer::I32), vec![0, 0, 1, 2], 258.0),
            (Dtype::I16, vec![1, 2], 258.0),
            (Dtype::I8, vec![0xFF], -1.0),
            (Dtype::U8, vec![0xFF], 255.0),
            (Dtype::Bool, vec![1], 1.0),
        ] {
            let little: Vec<u8> = big.iter().rev().copied().collect();
            assert_eq!(dtype.widen(&big, true), Some(vec![expected]));
            assert_eq!(dtype.widen(&little, false), Some(vec![expected]));
            assert_eq!(dtype.size(), big.len() as u64);
        }
    }

    #[test]
    fn every_type_is_found_by_its_names() {
        for (name, storage, dtype) in TYPES {
            assert_eq!(Dtype::of_torch(name), Some(dtype));
            assert_eq!(dtype.name(), name);
            if !storage.is_empty() {
                assert_eq!(Dtype::of_storage(storage), Some(dtype));
            }
        }
        assert!(Dtype::of_torch("uint3").is_some());
        assert!(Dtype::of_torch("uint9").is_none());
        assert!(Dtype::of_storage("").is_none());
    }
}
