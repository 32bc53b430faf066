//! Reading packed files.

use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    io::{self, Cursor, Read, Seek, SeekFrom},
    ops::Range,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use ::safetensors::{
    Dtype, SafeTensorError,
    tensor::{Metadata, TensorInfo},
};
use releq_core::{Bitwidth, Parameter, StandIn, Weights, parameter_shapes};
use releq_quant::{PackedCodes, Quantized};

use super::{
    Description, FAMILY, FORMAT, FileCodes, KEY, Packed, PackedError, PackedWeight, SCALES,
    WITH_ACTIVATION_BITS, WITH_ACTIVATIONS, check_activations, format_of, format_with,
};
use crate::{Codes, QuantizedNetwork, bytes::part, safetensors};

/// The largest header, in bytes: that of the crate that others read such files with.
const LARGEST_HEADER: u64 = 100_000_000;

/// Reads a packed file.
///
/// # Errors
/// [`PackedError`], naming the file.
pub fn load(path: impl AsRef<Path>) -> Result<Packed, PackedError> {
    let path = path.as_ref();
    opened(path)
        .and_then(|(mut file, len)| read(&mut file, len, true, in_memory))
        .map_err(|error| named(error, path))
}

/// Reads a packed file except for its codes, which are read from it whenever they are needed. No more of them is in memory than
/// whoever reads them takes at a time.
///
/// All of the file, codes as well, has been compared with its checksum when this returns. A pipe is copied to a temporary file.
///
/// # Errors
/// As [`load`].
pub fn open(path: impl AsRef<Path>) -> Result<Packed<FileCodes>, PackedError> {
    let path = path.as_ref();
    let in_file = |(file, len)| {
        let shared = Arc::new(Mutex::new(file));
        let mut source = shared.lock().unwrap_or_else(PoisonError::into_inner);
        read(&mut *source, len, false, |source: &mut File, coded| {
            let Coded { name, tensor, len, scales, zero_point, bits } = coded;
            let last = match tensor.len {
                0 => None,
                bytes => tensor.bytes(bytes - 1..bytes, source)?.pop(),
            };
            PackedCodes::check_bytes(tensor.len, last, len, bits)
                .and_then(|()| Quantized::check(len, &scales, zero_point))
                .map_err(|error| wrong(&name, error))?;
            let (file, start) = (Arc::clone(&shared), tensor.start);
            Ok(FileCodes { file, start, len, scales, zero_point, bits })
        })
    };
    opened(path).and_then(in_file).map_err(|error| named(error, path))
}

/// Reads the bytes of a packed file. Memory is in proportion to their number.
///
/// # Errors
/// [`PackedError`]: they are no packed file, a damaged one, or one of another version.
pub fn parse(bytes: &[u8]) -> Result<Packed, PackedError> {
    read(&mut Cursor::new(bytes), bytes.len() as u64, true, in_memory)
}

/// A file to read a network from, and its length.
fn opened(path: &Path) -> Result<(File, u64), PackedError> {
    let mut file = seekable(path).map_err(io)?;
    let mut start = Vec::new();
    (&mut file).take(StandIn::START as u64).read_to_end(&mut start).map_err(io)?;
    if let Some(what) = StandIn::of(&start) {
        return Err(PackedError::StandIn { path: path.to_owned(), what });
    }
    file.rewind().map_err(io)?;
    let len = file.metadata().map_err(io)?.len();
    Ok((file, len))
}

/// What is at `path`, or a copy of it where it is read from front to back and only once, as a pipe is.
fn seekable(path: &Path) -> io::Result<File> {
    let mut file = File::open(path)?;
    if file.metadata()?.is_file() {
        return Ok(file);
    }
    let mut copy = tempfile::tempfile()?;
    io::copy(&mut file, &mut copy)?;
    copy.rewind()?;
    Ok(copy)
}

/// An error with the file that it is about.
fn named(error: PackedError, path: &Path) -> PackedError {
    let path = path.to_owned();
    match error {
        PackedError::Format(SafeTensorError::IoError(source)) => PackedError::Read { path, source },
        error @ PackedError::StandIn { .. } => error,
        error => PackedError::In { path, source: Box::new(error) },
    }
}

fn io(error: io::Error) -> PackedError {
    PackedError::Format(SafeTensorError::IoError(error))
}

fn wrong(name: &str, reason: impl ToString) -> PackedError {
    PackedError::Tensor { name: name.to_owned(), reason: reason.to_string() }
}

/// The tensors of a file, by name.
type Tensors = BTreeMap<String, Tensor>;

/// A tensor of a file.
struct Tensor {
    dtype: Dtype,
    shape: Vec<usize>,
    /// The first byte, counted from the start of the file.
    start: u64,
    /// Number of bytes.
    len: usize,
    /// All of them, unless they are read later.
    bytes: Option<Vec<u8>>,
}

impl Tensor {
    /// Some of the bytes.
    fn bytes(
        &self,
        range: Range<usize>,
        source: &mut (impl Read + Seek),
    ) -> Result<Vec<u8>, PackedError> {
        part(source, self.start + range.start as u64, range.len()).map_err(io)
    }

    /// Its values in single precision.
    fn values(&self, name: &str) -> Result<Vec<f32>, PackedError> {
        if self.dtype != Dtype::F32 {
            let reason = format!("its type is {:?}, and only codes are not F32", self.dtype);
            return Err(wrong(name, reason));
        }
        let (values, _) = self.bytes.as_deref().unwrap_or_default().as_chunks();
        Ok(values.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect())
    }
}

/// The codes of a weight and what they stand for, not yet checked.
struct Coded {
    name: String,
    tensor: Tensor,
    /// Number of codes.
    len: usize,
    scales: Vec<f32>,
    zero_point: f32,
    bits: Bitwidth,
}

fn in_memory<S>(_: &mut S, coded: Coded) -> Result<Quantized, PackedError> {
    let Coded { name, tensor, len, scales, zero_point, bits } = coded;
    PackedCodes::from_bytes(tensor.bytes.unwrap_or_default(), len, bits)
        .and_then(|packed| Quantized::new(packed.unpack(), scales, zero_point, bits))
        .map_err(|error| wrong(&name, error))
}

/// The tensors of a file of `len` bytes, and its metadata.
fn header(
    source: &mut (impl Read + Seek),
    len: u64,
) -> Result<(Tensors, HashMap<String, String>), SafeTensorError> {
    let mut size = [0; 8];
    let Some(rest) = len.checked_sub(size.len() as u64) else {
        return Err(SafeTensorError::HeaderTooSmall);
    };
    source.read_exact(&mut size)?;
    let size = u64::from_le_bytes(size);
    if size > LARGEST_HEADER {
        return Err(SafeTensorError::HeaderTooLarge);
    }
    let Some(data) = rest.checked_sub(size) else {
        return Err(SafeTensorError::InvalidHeaderLength);
    };
    let mut text = vec![0; size as usize];
    source.read_exact(&mut text)?;
    let text = std::str::from_utf8(&text).map_err(SafeTensorError::InvalidHeader)?;
    // Reading it checks that tensors lie one after the other and have the bytes of their shapes.
    let header: Metadata =
        serde_json::from_str(text).map_err(SafeTensorError::InvalidHeaderDeserialization)?;
    if header.data_len() as u64 != data {
        return Err(SafeTensorError::MetadataIncompleteBuffer);
    }
    let start = len - data;
    let tensor = |(name, info): (String, &TensorInfo)| {
        let (from, to) = info.data_offsets;
        let (dtype, shape, start) = (info.dtype, info.shape.clone(), start + from as u64);
        (name, Tensor { dtype, shape, start, len: to - from, bytes: None })
    };
    let tensors = header.tensors().into_iter().map(tensor).collect();
    Ok((tensors, header.metadata().clone().unwrap_or_default()))
}

/// Reads the tensors into memory, bits of codes only where they are wanted there, and compares all with the checksum.
fn check_content(
    tensors: &mut Tensors,
    metadata: &HashMap<String, String>,
    with_codes: bool,
    source: &mut (impl Read + Seek),
) -> Result<(), PackedError> {
    let expected = metadata.get(safetensors::CHECKSUM).ok_or(PackedError::Damaged)?;
    let mut sum = safetensors::checksum_of_metadata(metadata);
    for (name, tensor) in tensors {
        sum = safetensors::with_header(sum, name, tensor.dtype, &tensor.shape);
        if with_codes || tensor.dtype != Dtype::U8 {
            let bytes = tensor.bytes(0..tensor.len, source)?;
            sum = sum.part(&bytes);
            tensor.bytes = Some(bytes);
        } else {
            source.seek(SeekFrom::Start(tensor.start)).map_err(io)?;
            sum = sum.part_of(source, tensor.len as u64).map_err(io)?;
        }
    }
    if sum.finish() == *expected { Ok(()) } else { Err(PackedError::Damaged) }
}

/// Reads a network from `len` bytes. `codes_of` makes the codes of a weight, whose bits are in memory if `with_codes`.
fn read<S: Read + Seek, C: Codes>(
    source: &mut S,
    len: u64,
    with_codes: bool,
    codes_of: impl Fn(&mut S, Coded) -> Result<C, PackedError>,
) -> Result<Packed<C>, PackedError> {
    let (mut tensors, metadata) = header(source, len).map_err(PackedError::Format)?;
    let text = metadata.get(KEY).ok_or_else(|| PackedError::Other {
        reason: format!("its metadata has no `{KEY}`; weights alone are read beside their network"),
    })?;
    match format_of(text) {
        Some(format)
            if [FORMAT, WITH_ACTIVATIONS, WITH_ACTIVATION_BITS].contains(&format.as_str()) => {}
        Some(format) if format.starts_with(FAMILY) => return Err(PackedError::Version { format }),
        _ => {
            let reason = format!("`{KEY}` in its metadata does not say the format `{FORMAT}`");
            return Err(PackedError::Other { reason });
        }
    }
    check_content(&mut tensors, &metadata, with_codes, source)?;
    let Description { format, network, frame, quantizer, weights, activations, about, .. } =
        serde_json::from_str(text).map_err(PackedError::Description)?;
    let expected = format_with(activations.as_ref());
    if format != expected {
        let reason = format!("they are those of `{expected}`, and the format is `{format}`");
        return Err(PackedError::Activations { layer: "input".to_owned(), reason });
    }
    if let Some(activations) = &activations {
        check_activations(activations, &network)?;
    }

    let shapes: BTreeMap<String, Vec<usize>> = parameter_shapes(&network).collect();
    let mut codes = BTreeMap::new();
    for PackedWeight { name, bits, shape, scale, zero_point } in weights {
        let Some(layer) = name.strip_suffix(".weight") else {
            return Err(wrong(&name, "it is the weight of no layer"));
        };
        let expected = shapes.get(&name);
        if expected != Some(&shape) {
            let expected = expected.map_or(&[][..], Vec::as_slice);
            let reason = format!("its shape is {shape:?}, and its layer's {expected:?}");
            return Err(wrong(&name, reason));
        }
        let tensor = tensors.remove(&name).ok_or_else(|| wrong(&name, "it is missing"))?;
        if tensor.dtype != Dtype::U8 {
            let reason = format!("its type is {:?}, and packed bits are U8", tensor.dtype);
            return Err(wrong(&name, reason));
        }
        let scales = match scale {
            Some(scale) => vec![scale as f32],
            None => {
                let of = name.clone() + SCALES;
                let missing = || wrong(&name, format!("neither it nor `{of}` has a scale"));
                tensors.remove(&of).ok_or_else(missing)?.values(&of)?
            }
        };
        // The network is checked to have no larger product of sizes than fits.
        let len = shape.iter().product();
        let layer = layer.to_owned();
        let coded = Coded { name: name.clone(), tensor, len, scales, zero_point, bits };
        if codes.insert(layer, codes_of(source, coded)?).is_some() {
            return Err(wrong(&name, "it is described twice"));
        }
    }
    let floats = tensors.into_iter().map(|(name, tensor)| {
        let values = tensor.values(&name)?;
        Ok((name, Parameter { shape: tensor.shape, values }))
    });
    let floats = Weights(floats.collect::<Result<_, PackedError>>()?);
    let model = QuantizedNetwork::assembled(network, floats, codes, quantizer)?;
    Ok(Packed { model, frame, activations, about })
}
