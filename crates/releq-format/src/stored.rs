//! A tensor in a file, and safetensors files, which hold nothing else.

use std::{collections::BTreeMap, fs, io, ops::Range, path::Path, sync::Arc};

use ::safetensors::{Dtype, SafeTensors};
use half::{bf16, f16};

use crate::CheckpointError;

/// A tensor whose values are read when asked for.
#[derive(Debug)]
pub(crate) enum Stored {
    PyTorch(pytorch_reader::Tensor),
    Safetensors { dtype: Dtype, shape: Vec<usize>, file: Arc<Vec<u8>>, place: Range<usize> },
}

/// The floating-point types of checkpoints.
#[derive(Clone, Copy)]
enum Float {
    Single,
    Double,
    Half,
    Brain,
}

impl Stored {
    pub(crate) fn shape(&self) -> &[usize] {
        match self {
            Self::PyTorch(tensor) => tensor.shape(),
            Self::Safetensors { shape, .. } => shape,
        }
    }

    /// All values in single precision.
    pub(crate) fn values(&self, path: &Path, name: &str) -> Result<Vec<f32>, CheckpointError> {
        let refused = |dtype: String| CheckpointError::Dtype {
            path: path.to_owned(),
            name: name.to_owned(),
            dtype: dtype.to_lowercase(),
        };
        match self {
            Self::PyTorch(tensor) => {
                let float = match tensor.dtype() {
                    pytorch_reader::DType::F32 => Float::Single,
                    pytorch_reader::DType::F64 => Float::Double,
                    pytorch_reader::DType::F16 => Float::Half,
                    pytorch_reader::DType::BF16 => Float::Brain,
                    other => return Err(refused(format!("{other:?}"))),
                };
                let bytes = tensor.read().map_err(|source| CheckpointError::Values {
                    path: path.to_owned(),
                    name: name.to_owned(),
                    source,
                })?;
                Ok(widen(&bytes, float, cfg!(target_endian = "big")))
            }
            Self::Safetensors { dtype, file, place, .. } => {
                let float = match dtype {
                    Dtype::F32 => Float::Single,
                    Dtype::F64 => Float::Double,
                    Dtype::F16 => Float::Half,
                    Dtype::BF16 => Float::Brain,
                    other => return Err(refused(format!("{other:?}"))),
                };
                Ok(widen(&file[place.clone()], float, false))
            }
        }
    }
}

/// Values of the given type, rounded to single precision where they are doubles.
fn widen(bytes: &[u8], float: Float, big_endian: bool) -> Vec<f32> {
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
    match float {
        Float::Single => each(bytes, big_endian, f32::from_le_bytes),
        Float::Double => each(bytes, big_endian, |bytes| f64::from_le_bytes(bytes) as f32),
        Float::Half => each(bytes, big_endian, |bytes| f16::from_le_bytes(bytes).to_f32()),
        Float::Brain => each(bytes, big_endian, |bytes| bf16::from_le_bytes(bytes).to_f32()),
    }
}

/// The tensors of a safetensors file.
pub(crate) fn open_safetensors(path: &Path) -> Result<BTreeMap<String, Stored>, CheckpointError> {
    let damaged = |source: ::safetensors::SafeTensorError| CheckpointError::Damaged {
        path: path.to_owned(),
        source: Box::new(source),
    };
    let read = |source: io::Error| CheckpointError::Read { path: path.to_owned(), source };
    let file = Arc::new(fs::read(path).map_err(read)?);
    let (header, metadata) = SafeTensors::read_metadata(&file).map_err(damaged)?;
    // Eight bytes of length stand before the header.
    let data = header + 8;
    // The whole is checked against its header here, so that no range below can leave the file.
    SafeTensors::deserialize(&file).map_err(damaged)?;
    let stored = |(name, info): (String, &::safetensors::tensor::TensorInfo)| {
        let (from, to) = info.data_offsets;
        let (dtype, shape, file) = (info.dtype, info.shape.clone(), Arc::clone(&file));
        (name, Stored::Safetensors { dtype, shape, file, place: data + from..data + to })
    };
    Ok(metadata.tensors().into_iter().map(stored).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_float_type_widens_in_either_byte_order() {
        // By hand: 1.5 is 0x3FC00000, 0x3FF8000000000000, 0x3E00 and 0x3FC0.
        for (float, big) in [
            (Float::Single, vec![0x3F, 0xC0, 0, 0]),
            (Float::Double, vec![0x3F, 0xF8, 0, 0, 0, 0, 0, 0]),
            (Float::Half, vec![0x3E, 0]),
            (Float::Brain, vec![0x3F, 0xC0]),
        ] {
            let little: Vec<u8> = big.iter().rev().copied().collect();
            assert_eq!(widen(&big, float, true), [1.5]);
            assert_eq!(widen(&little, float, false), [1.5]);
        }
    }
}
