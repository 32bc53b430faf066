//! Constants: weights, and the small integers that shapes are computed from.

use std::{borrow::Cow, sync::Arc};

use prost::bytes::Bytes;

use super::{External, ReadExternal, proto, quantized::OnGrid};
use crate::dtype::Dtype;

/// Most values of a constant that is computed with: shapes, axes, factors of channels.
pub(super) const MOST_INTEGERS: usize = 1 << 12;
/// Most dimensions of a tensor.
pub(super) const MOST_DIMS: usize = 64;
/// Most values of a constant, 4 GiB in single precision.
const MOST_VALUES: usize = 1 << 30;

/// A constant tensor.
#[derive(Clone, Debug)]
pub(super) struct Tensor {
    pub(super) dims: Vec<usize>,
    storage: Storage,
    /// Name of the initialiser that it is, whatever its shape has become.
    pub(super) origin: Option<Arc<str>>,
    /// The grid that it is on, as the weight of a quantized layer.
    pub(super) grid: Option<Arc<OnGrid>>,
}

#[derive(Clone, Debug)]
enum Storage {
    Bytes(Dtype, Bytes),
    Floats(Arc<Vec<f32>>),
    Integers(Arc<Vec<i64>>),
    /// One number everywhere, so that a large constant need not exist.
    Same(f32),
}

/// What is wrong with a constant, to be put behind its name.
pub(super) type Reason = String;

impl Tensor {
    /// The constant in a file; its values are checked to be as many as its dimensions say.
    pub(super) fn from_proto(
        tensor: proto::Tensor,
        external: &mut ReadExternal<'_>,
    ) -> Result<Self, Reason> {
        let mut dims = Vec::with_capacity(tensor.dims.len());
        for &dim in &tensor.dims {
            match usize::try_from(dim) {
                Ok(dim) => dims.push(dim),
                Err(_) => return Err(format!("has a dimension of {dim}")),
            }
        }
        let len = len_of(&dims)?;
        if let Some(bits) = few_bits(tensor.data_type) {
            return Self::of_few_bits(dims, len, bits, tensor.raw_data);
        }
        let dtype = dtype_of(tensor.data_type)?;
        let raw = |bytes: Bytes| match bytes.len() as u64 == len as u64 * dtype.size() {
            true => Ok(Storage::Bytes(dtype, bytes)),
            false => Err(format!(
                "has {} bytes, but {dims:?} values of {} take {}",
                bytes.len(),
                dtype.name(),
                len as u64 * dtype.size()
            )),
        };
        let typed = [
            tensor.float_data.len(),
            tensor.int32_data.len(),
            tensor.int64_data.len(),
            tensor.double_data.len(),
        ];
        let found: usize = typed.iter().sum();
        let storage = if tensor.data_location == 1 {
            let place = External::of(&tensor.external_data, len as u64 * dtype.size())?;
            raw(external(&place)
                .map_err(|error| format!("is in `{}`: {error}", place.location))?
                .into())?
        } else if found == 0 {
            raw(tensor.raw_data)?
        } else if !tensor.raw_data.is_empty() || typed.iter().filter(|&&len| len > 0).count() > 1 {
            return Err("has its values twice".to_owned());
        } else if found != len {
            return Err(format!("has {found} values, but its dimensions are {dims:?}"));
        } else {
            typed_values(dtype, tensor)?
        };
        Ok(Self { dims, storage, origin: None, grid: None })
    }

    pub(super) fn integers(dims: Vec<usize>, values: Vec<i64>) -> Self {
        Self { dims, storage: Storage::Integers(Arc::new(values)), origin: None, grid: None }
    }

    pub(super) fn floats(dims: Vec<usize>, values: Vec<f32>) -> Self {
        Self { dims, storage: Storage::Floats(Arc::new(values)), origin: None, grid: None }
    }

    /// `value` everywhere.
    pub(super) fn same(dims: Vec<usize>, value: f32) -> Result<Self, Reason> {
        len_of(&dims)?;
        Ok(Self { dims, storage: Storage::Same(value), origin: None, grid: None })
    }

    /// The same, as the initialiser of this name or as something computed.
    pub(super) fn named(self, origin: Option<Arc<str>>) -> Self {
        Self { origin, ..self }
    }

    /// The same, as weights of this name that are on a grid.
    pub(super) fn on_grid(self, name: &str, grid: Arc<OnGrid>) -> Self {
        Self { origin: Some(name.into()), grid: Some(grid), ..self }
    }

    /// Signed integers of 2 or 4 bits, the first in the lowest bits of a byte.
    fn of_few_bits(dims: Vec<usize>, len: usize, bits: usize, raw: Bytes) -> Result<Self, Reason> {
        let per_byte = 8 / bits;
        if raw.len() != len.div_ceil(per_byte) {
            return Err(format!("has {} bytes for {dims:?} integers of {bits} bits", raw.len()));
        }
        // The highest bit of a field is its sign.
        let field = |place: usize| {
            let byte = raw[place / per_byte] >> (place % per_byte * bits) << (8 - bits);
            ((byte as i8) >> (8 - bits)) as u8
        };
        let bytes: Vec<u8> = (0..len).map(field).collect();
        Ok(Self {
            dims,
            storage: Storage::Bytes(Dtype::I8, bytes.into()),
            origin: None,
            grid: None,
        })
    }

    /// As many values, in another shape.
    pub(super) fn reshaped(&self, dims: Vec<usize>) -> Result<Self, Reason> {
        if len_of(&dims)? != self.len() {
            return Err(format!("has shape {:?}, which does not become {dims:?}", self.dims));
        }
        Ok(Self { dims, ..self.clone() })
    }

    pub(super) fn len(&self) -> usize {
        self.dims.iter().product()
    }

    /// Whether its values are whole numbers by their type.
    pub(super) fn is_integer(&self) -> bool {
        match &self.storage {
            Storage::Bytes(dtype, _) => !dtype.is_weight(),
            Storage::Integers(_) => true,
            Storage::Floats(_) | Storage::Same(_) => false,
        }
    }

    /// Its values as floating-point numbers.
    pub(super) fn values(&self) -> Result<Cow<'_, [f32]>, Reason> {
        Ok(match &self.storage {
            Storage::Bytes(dtype, bytes) => {
                let values = dtype.widen(bytes, false);
                values.ok_or_else(|| format!("has type {}", dtype.name()))?.into()
            }
            Storage::Floats(values) => values.as_slice().into(),
            Storage::Integers(values) => values.iter().map(|&value| value as f32).collect(),
            Storage::Same(value) => vec![*value; self.len()].into(),
        })
    }

    /// Its values as weights, all of them finite.
    pub(super) fn weights(&self) -> Result<Vec<f32>, Reason> {
        if self.is_integer() {
            return Err("has whole numbers where weights are expected".to_owned());
        }
        let values = self.values()?.into_owned();
        match values.iter().position(|value| !value.is_finite()) {
            Some(index) => Err(format!(
                "holds {} at index {index}; the training it comes from diverged",
                values[index]
            )),
            None => Ok(values),
        }
    }

    /// Its values as whole numbers, of which there are not many.
    pub(super) fn whole(&self) -> Result<Vec<i64>, Reason> {
        if self.len() > MOST_INTEGERS {
            return Err(format!("has {} values where a few integers are expected", self.len()));
        }
        let each = |size: usize, value: &dyn Fn(&[u8]) -> i64| match &self.storage {
            Storage::Bytes(_, bytes) => bytes.chunks_exact(size).map(value).collect(),
            _ => Vec::new(),
        };
        let le = |bytes: &[u8]| {
            bytes.iter().rev().fold(0u64, |value, &byte| value << 8 | u64::from(byte)) as i64
        };
        Ok(match &self.storage {
            Storage::Bytes(Dtype::I64, _) => each(8, &le),
            Storage::Bytes(Dtype::I32, _) => each(4, &|bytes| i64::from(le(bytes) as i32)),
            Storage::Bytes(Dtype::I16, _) => each(2, &|bytes| i64::from(le(bytes) as i16)),
            Storage::Bytes(Dtype::I8, _) => each(1, &|bytes| i64::from(le(bytes) as i8)),
            Storage::Bytes(Dtype::U8 | Dtype::Bool, _) => each(1, &le),
            Storage::Integers(values) => values.to_vec(),
            _ => {
                let values = self.values()?;
                match values.iter().find(|value| value.fract() != 0.0 || !value.is_finite()) {
                    Some(value) => return Err(format!("holds {value}, which is not whole")),
                    None => values.iter().map(|&value| value as i64).collect(),
                }
            }
        })
    }

    /// The one number that it is throughout, if that is plain to see.
    pub(super) fn uniform(&self) -> Option<f32> {
        match self.storage {
            Storage::Same(value) => Some(value),
            _ => self.scalar(),
        }
    }

    /// Its only value.
    pub(super) fn scalar(&self) -> Option<f32> {
        if self.len() != 1 {
            return None;
        }
        self.values().ok()?.first().copied()
    }

    /// The values at these places of a row-major tensor, in a new shape.
    pub(super) fn picked(
        &self,
        dims: Vec<usize>,
        places: impl Iterator<Item = usize>,
    ) -> Result<Self, Reason> {
        len_of(&dims)?;
        let origin = self.origin.clone();
        let grid = None;
        let storage = if let Storage::Same(value) = self.storage {
            Storage::Same(value)
        } else if self.is_integer() {
            let values = self.whole()?;
            Storage::Integers(Arc::new(places.map(|place| values[place]).collect()))
        } else {
            let values = self.values()?;
            Storage::Floats(Arc::new(places.map(|place| values[place]).collect()))
        };
        Ok(Self { dims, storage, origin, grid })
    }
}

/// Bits of an integer type of less than a byte that weights are exported in.
const fn few_bits(data_type: i32) -> Option<usize> {
    match data_type {
        22 => Some(4),
        26 => Some(2),
        _ => None,
    }
}

/// Number of values in a shape. A shape of no values may not have huge dimensions either: what is computed along the others
/// would take for ever.
pub(super) fn len_of(dims: &[usize]) -> Result<usize, Reason> {
    if dims.len() > MOST_DIMS {
        return Err(format!("has {} dimensions", dims.len()));
    }
    let most = dims.iter().try_fold(1usize, |len, &dim| len.checked_mul(dim.max(1)));
    match most.filter(|&most| most <= MOST_VALUES) {
        Some(_) => Ok(dims.iter().product()),
        None => Err(format!("has dimensions {dims:?}, which do not fit in memory")),
    }
}

fn typed_values(dtype: Dtype, tensor: proto::Tensor) -> Result<Storage, Reason> {
    let proto::Tensor { float_data, int32_data, int64_data, double_data, .. } = tensor;
    let floats = |values| Ok(Storage::Floats(Arc::new(values)));
    let half = |values: Vec<i32>| {
        let bytes: Vec<u8> = values.iter().flat_map(|&bits| (bits as u16).to_le_bytes()).collect();
        Storage::Bytes(dtype, bytes.into())
    };
    match dtype {
        Dtype::F32 if !float_data.is_empty() => floats(float_data),
        Dtype::F64 if !double_data.is_empty() => {
            floats(double_data.into_iter().map(|value| value as f32).collect())
        }
        Dtype::I64 if !int64_data.is_empty() => Ok(Storage::Integers(Arc::new(int64_data))),
        Dtype::F16 | Dtype::BF16 if !int32_data.is_empty() => Ok(half(int32_data)),
        Dtype::I32 | Dtype::I16 | Dtype::I8 | Dtype::U8 | Dtype::Bool if !int32_data.is_empty() => {
            Ok(Storage::Integers(Arc::new(int32_data.into_iter().map(i64::from).collect())))
        }
        _ => Err(format!("has values of another type than {}", dtype.name())),
    }
}

/// The type that ONNX has under a number.
///
/// # Source
/// `TensorProto.DataType` of `onnx.proto`.
fn dtype_of(number: i32) -> Result<Dtype, Reason> {
    Ok(match number {
        1 => Dtype::F32,
        2 => Dtype::U8,
        3 => Dtype::I8,
        5 => Dtype::I16,
        6 => Dtype::I32,
        7 => Dtype::I64,
        9 => Dtype::Bool,
        10 => Dtype::F16,
        11 => Dtype::F64,
        16 => Dtype::BF16,
        _ => {
            let name = match number {
                0 => "no type",
                8 => "type string",
                4 | 12 | 13 => "a type of unsigned integers",
                14 | 15 => "a complex type",
                17..=20 | 24 => "type float8",
                21 | 25 => "an integer type of a few bits; this model is quantized already",
                23 => "type float4",
                _ => return Err(format!("has the unknown type {number}")),
            };
            return Err(format!("has {name}, where floating-point weights are read"));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(tensor: proto::Tensor) -> Result<Tensor, Reason> {
        Tensor::from_proto(tensor, &mut |_| Err(std::io::Error::other("no other file")))
    }

    #[test]
    fn every_type_is_read_from_bytes_and_from_typed_values() {
        // By hand: 1.5 is 0x3FC00000, 0x3E00 and 0x3FC0; -2 is all ones but the lowest bit.
        let raw = |data_type, dims: &[i64], bytes: &[u8]| {
            let raw_data = Bytes::copy_from_slice(bytes);
            read(proto::Tensor { data_type, dims: dims.into(), raw_data, ..Default::default() })
        };
        for (data_type, bytes) in [
            (1, &[0, 0, 0xC0, 0x3F][..]),
            (10, &[0, 0x3E]),
            (16, &[0xC0, 0x3F]),
            (11, &[0, 0, 0, 0, 0, 0, 0xF8, 0x3F]),
        ] {
            let tensor = raw(data_type, &[1], bytes).unwrap();
            assert_eq!(tensor.weights().unwrap(), [1.5]);
            assert!(tensor.whole().unwrap_err().contains("holds 1.5, which is not whole"));
        }
        for (data_type, size) in [(3, 1), (5, 2), (6, 4), (7, 8)] {
            let mut bytes = vec![0xFE];
            bytes.resize(size, 0xFF);
            let tensor = raw(data_type, &[], &bytes).unwrap();
            assert_eq!(tensor.whole().unwrap(), [-2]);
            assert!(tensor.weights().unwrap_err().contains("whole numbers"));
        }
        let typed = |data_type, fill: &dyn Fn(&mut proto::Tensor)| {
            let mut tensor = proto::Tensor { data_type, dims: vec![1], ..Default::default() };
            fill(&mut tensor);
            read(tensor).unwrap()
        };
        assert_eq!(typed(1, &|t| t.float_data = vec![1.5]).weights().unwrap(), [1.5]);
        assert_eq!(typed(10, &|t| t.int32_data = vec![0x3E00]).weights().unwrap(), [1.5]);
        assert_eq!(typed(16, &|t| t.int32_data = vec![0x3FC0]).weights().unwrap(), [1.5]);
        assert_eq!(typed(11, &|t| t.double_data = vec![1.5]).weights().unwrap(), [1.5]);
        assert_eq!(typed(7, &|t| t.int64_data = vec![-2]).whole().unwrap(), [-2]);
        assert_eq!(typed(6, &|t| t.int32_data = vec![-2]).whole().unwrap(), [-2]);
    }

    #[test]
    fn integers_of_few_bits_are_read_lowest_first_and_signed() {
        let of = |data_type, dims: &[i64], bytes: &[u8]| {
            let raw_data = Bytes::copy_from_slice(bytes);
            read(proto::Tensor { data_type, dims: dims.into(), raw_data, ..Default::default() })
        };
        // By hand: fields 1111, 0000, 0111 and 11, 00, 01, 10, 11.
        assert_eq!(of(22, &[3], &[0x0f, 0x07]).unwrap().whole().unwrap(), [-1, 0, 7]);
        let two = of(26, &[5], &[0b10_01_00_11, 0b11]).unwrap();
        assert_eq!(two.whole().unwrap(), [-1, 0, 1, -2, -1]);
        let error = of(26, &[5], &[0]).unwrap_err();
        assert!(error.contains("has 1 bytes for [5] integers of 2 bits"), "{error}");
    }

    #[test]
    fn what_does_not_add_up_is_refused_with_its_numbers() {
        let check = |tensor: proto::Tensor, expected: &str| {
            let reason = read(tensor).unwrap_err();
            assert!(reason.contains(expected), "`{reason}` lacks `{expected}`");
        };
        let of = |dims: &[i64]| proto::Tensor {
            data_type: 1,
            dims: dims.into(),
            raw_data: Bytes::from_static(&[0; 8]),
            ..Default::default()
        };
        check(of(&[3]), "has 8 bytes, but [3] values of float32 take 12");
        check(of(&[-2]), "has a dimension of -2");
        check(of(&[i64::MAX, i64::MAX]), "do not fit in memory");
        check(of(&[1 << 31]), "do not fit in memory");
        check(of(&[1 << 40, 1 << 20, 0]), "do not fit in memory");
        check(of(&[1; 65]), "has 65 dimensions");
        check(proto::Tensor { data_type: 8, ..of(&[1]) }, "has type string");
        check(proto::Tensor { data_type: 99, ..of(&[1]) }, "has the unknown type 99");
        check(proto::Tensor { float_data: vec![1.0], ..of(&[2]) }, "has its values twice");
        let typed = proto::Tensor { raw_data: Bytes::new(), float_data: vec![1.0], ..of(&[2]) };
        check(typed.clone(), "has 1 values, but its dimensions are [2]");
        check(
            proto::Tensor { data_type: 7, dims: vec![1], ..typed },
            "has values of another type than int64",
        );
        let nan = proto::Tensor { float_data: vec![f32::NAN], dims: vec![1], ..of(&[1]) };
        let nan = read(proto::Tensor { raw_data: Bytes::new(), ..nan }).unwrap();
        assert!(nan.weights().unwrap_err().contains("holds NaN at index 0"));
    }
}
