//! A tensor in a file, and safetensors files, which hold nothing else.

use std::{collections::BTreeMap, fs, io, path::Path, sync::Arc};

use ::safetensors::SafeTensors;
use releq_core::Parameter;

use crate::{
    CheckpointError,
    bytes::{Bytes, invalid},
    dtype::Dtype,
    packed, safetensors,
};

/// Most bytes of a compressed storage that are inflated beyond those of a tensor's elements.
const LARGEST_GAP: u64 = 16 << 20;

/// A value of a checkpoint that is a tensor.
#[derive(Clone, Debug)]
pub(crate) enum Stored {
    /// One whose values can be read.
    Plain(Arc<View>),
    /// One of another kind, such as `a sparse tensor`.
    Special(&'static str),
}

/// A tensor whose values are read when asked for.
#[derive(Clone, Debug)]
pub(crate) struct View {
    pub(crate) dtype: Dtype,
    pub(crate) shape: Arc<[usize]>,
    /// Elements from one index to the next, for each dimension.
    pub(crate) strides: Arc<[usize]>,
    /// The first element, counted from the start of `bytes`.
    pub(crate) offset: u64,
    pub(crate) bytes: Bytes,
    pub(crate) big_endian: bool,
    /// Whether the values are to be negated, as PyTorch's `Tensor.is_neg` says.
    pub(crate) negative: bool,
    pub(crate) quantization: Option<Quantization>,
}

/// How the values of a quantized tensor follow from its integers: `scale * (integer - zero_point)`.
#[derive(Clone, Debug)]
pub(crate) enum Quantization {
    PerTensor { scale: f64, zero_point: f64 },
    PerChannel { axis: usize, scales: Arc<View>, zero_points: Arc<View> },
}

impl Stored {
    /// Sizes of the dimensions; none for what is not read.
    pub(crate) fn shape(&self) -> &[usize] {
        match self {
            Self::Plain(view) => &view.shape,
            Self::Special(_) => &[],
        }
    }
}

/// Strides of a tensor without gaps, the last dimension innermost.
pub(crate) fn contiguous(shape: &[usize]) -> Arc<[usize]> {
    let mut stride = 1_usize;
    let mut strides = vec![0; shape.len()];
    for (place, &size) in strides.iter_mut().zip(shape).rev() {
        *place = stride;
        stride = stride.saturating_mul(size.max(1));
    }
    strides.into()
}

impl View {
    /// Values that are known already.
    fn of(Parameter { shape, values }: Parameter) -> Self {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let range = 0..bytes.len();
        Self {
            dtype: Dtype::F32,
            strides: contiguous(&shape),
            shape: shape.into(),
            offset: 0,
            bytes: Bytes::Memory { bytes: Arc::new(bytes), range },
            big_endian: false,
            negative: false,
            quantization: None,
        }
    }

    /// All values in single precision. What is allocated is in proportion to the number of values,
    /// which the caller has compared with what the network wants, and to the file.
    ///
    /// # Errors
    /// Why they cannot be read.
    pub(crate) fn values(&self) -> io::Result<Vec<f32>> {
        let mut values = self.elements()?;
        match &self.quantization {
            None => {}
            Some(Quantization::PerTensor { scale, zero_point }) => {
                for value in &mut values {
                    *value = dequantized(*value, *scale as f32, *zero_point as f32);
                }
            }
            Some(Quantization::PerChannel { axis, scales, zero_points }) => {
                let channels = self.shape.get(*axis).copied();
                if [scales, zero_points].iter().any(|view| channels != Some(view.count())) {
                    return Err(invalid(
                        "the scales or zero points of the channels are not as many",
                    ));
                }
                let (scales, zero_points) = (scales.elements()?, zero_points.elements()?);
                let inner: usize = self.shape[axis + 1..].iter().product();
                for (index, value) in values.iter_mut().enumerate() {
                    let channel = index / inner.max(1) % scales.len();
                    *value = dequantized(*value, scales[channel], zero_points[channel]);
                }
            }
        }
        if self.negative {
            values.iter_mut().for_each(|value| *value = -*value);
        }
        Ok(values)
    }

    /// Element `index`, counted flat, as it is stored; `None` if it cannot be read.
    pub(crate) fn stored(&self, index: usize) -> Option<f64> {
        let (mut rest, mut place) = (index as u64, self.offset);
        for (&size, &stride) in self.shape.iter().zip(&*self.strides).rev() {
            let size = size as u64;
            place = place.checked_add((rest.checked_rem(size)?).checked_mul(stride as u64)?)?;
            rest /= size;
        }
        let size = self.dtype.size();
        let start = place.checked_mul(size)?;
        let bytes = self.bytes.read(start..start.checked_add(size)?).ok()?;
        if self.dtype != Dtype::F64 {
            return Some(f64::from(*self.dtype.widen(&bytes, self.big_endian)?.first()?));
        }
        let bytes = *bytes.first_chunk()?;
        Some(if self.big_endian { f64::from_be_bytes(bytes) } else { f64::from_le_bytes(bytes) })
    }

    /// Number of elements.
    pub(crate) fn count(&self) -> usize {
        self.shape.iter().fold(1, |count, &size| count.saturating_mul(size))
    }

    /// The elements as they are stored.
    fn elements(&self) -> io::Result<Vec<f32>> {
        let size = self.dtype.size();
        let count = self.count();
        if count == 0 {
            return Ok(Vec::new());
        }
        let last =
            self.shape.iter().zip(self.strides.iter()).try_fold(0_u64, |last, (&n, &stride)| {
                last.checked_add((n as u64 - 1).checked_mul(stride as u64)?)
            });
        let end = last.and_then(|last| last.checked_add(1)?.checked_add(self.offset));
        let bytes = |place: u64| place.checked_mul(size);
        let range = end.and_then(|end| Some(bytes(self.offset)?..bytes(end)?));
        if let Bytes::Missing(_) = self.bytes {
            self.bytes.read(0..0)?;
        }
        let length = self.bytes.len();
        let Some(range) = range.filter(|range| range.end <= length) else {
            return Err(invalid(format!(
                "the tensor ends beyond the {length} bytes of its storage"
            )));
        };
        let wanted = (count as u64).saturating_mul(size).saturating_add(LARGEST_GAP);
        if matches!(self.bytes, Bytes::Deflated { .. }) && range.end - range.start > wanted {
            return Err(invalid("its elements lie far apart in a compressed storage"));
        }
        if let Some(problem) = self.bytes.bomb(range.end, wanted) {
            return Err(invalid(problem));
        }
        let bytes = self.bytes.read(range)?;
        let unread = || invalid(format!("{} is not read", self.dtype.name()));
        let span = self.dtype.widen(&bytes, self.big_endian).ok_or_else(unread)?;
        if self.strides == contiguous(&self.shape) {
            return Ok(span);
        }
        let mut elements = Vec::with_capacity(count);
        let mut index = vec![0; self.shape.len()];
        let mut place = 0;
        while elements.len() < count {
            elements.push(span[place]);
            for ((index, &n), &stride) in
                index.iter_mut().zip(&*self.shape).zip(&*self.strides).rev()
            {
                *index += 1;
                place += stride;
                if *index < n {
                    break;
                }
                place -= n * stride;
                *index = 0;
            }
        }
        Ok(elements)
    }
}

/// In the precision and order of PyTorch.
fn dequantized(integer: f32, scale: f32, zero_point: f32) -> f32 {
    (integer - zero_point) * scale
}

/// The tensors of a safetensors file.
pub(crate) fn open_safetensors(path: &Path) -> Result<BTreeMap<String, Stored>, CheckpointError> {
    let read = |source: io::Error| CheckpointError::Read { path: path.to_owned(), source };
    let file = Arc::new(fs::read(path).map_err(read)?);
    // The header is checked against the file here, so that no range below can leave it.
    let damaged = |source: Box<dyn std::error::Error + Send + Sync>| CheckpointError::Damaged {
        path: path.to_owned(),
        source,
    };
    let (header, metadata) = SafeTensors::read_metadata(&file).map_err(|error| {
        match safetensors::odd_metadata(&file) {
            Some(what) => CheckpointError::Unsupported { path: path.to_owned(), what },
            None => damaged(error.into()),
        }
    })?;
    let texts = metadata.metadata().as_ref();
    if let Some(texts) = texts.filter(|texts| texts.contains_key(safetensors::CHECKSUM)) {
        let tensors = SafeTensors::deserialize(&file).map_err(|error| damaged(error.into()))?;
        if !safetensors::is_intact(&tensors, texts) {
            return Err(damaged("its checksum is of other content".into()));
        }
    }
    if texts.is_some_and(packed::is_packed) {
        let model = packed::parse(&file).map_err(|error| damaged(error.into()))?.model;
        let stored = |(name, parameter)| (name, Stored::Plain(Arc::new(View::of(parameter))));
        return Ok(model.dequantized().0.into_iter().map(stored).collect());
    }
    // Eight bytes of length stand before the header.
    let data = header + 8;
    let stored = |(name, info): (String, &::safetensors::tensor::TensorInfo)| {
        let (from, to) = info.data_offsets;
        let bytes = Bytes::Memory { bytes: Arc::clone(&file), range: data + from..data + to };
        let view = View {
            dtype: Dtype::of_safetensors(info.dtype),
            shape: info.shape.as_slice().into(),
            strides: contiguous(&info.shape),
            offset: 0,
            bytes,
            big_endian: false,
            negative: false,
            quantization: None,
        };
        (name, Stored::Plain(Arc::new(view)))
    };
    Ok(metadata.tensors().into_iter().map(stored).collect())
}
