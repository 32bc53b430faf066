//! Codes that are read from their file when they are needed.

use std::{io, sync::PoisonError};

use releq_core::Bitwidth;
use releq_quant::PackedCodes;

use crate::{
    Codes,
    bytes::{Shared, invalid, part},
};

/// The codes of a layer in a packed file that is open.
///
/// The file was compared with its checksum when it was opened, and is read again for its codes. So it must not be written to for
/// as long; [`save`](super::save) puts another one in its place, which does no harm.
#[derive(Clone, Debug)]
pub struct FileCodes {
    pub(super) file: Shared,
    /// The first byte, counted from the start of the file.
    pub(super) start: u64,
    pub(super) len: usize,
    pub(super) scales: Vec<f32>,
    pub(super) zero_point: f32,
    pub(super) bits: Bitwidth,
}

/// As many codes begin with a whole byte, whatever their bits.
const WHOLE: usize = 8;

impl Codes for FileCodes {
    type Error = io::Error;

    fn len(&self) -> usize {
        self.len
    }

    fn scales(&self) -> &[f32] {
        &self.scales
    }

    fn zero_point(&self) -> f32 {
        self.zero_point
    }

    fn bits(&self) -> Bitwidth {
        self.bits
    }

    fn read(&self, first: usize, out: &mut [u8]) -> io::Result<()> {
        let end = first + out.len();
        assert!(end <= self.len, "as many codes");
        let begin = first / WHOLE * WHOLE;
        // All codes have been found to be in the file, so that no number of their bits is too large.
        let bits = usize::from(self.bits.get());
        let (start, stop) = (begin * bits / 8, (end * bits).div_ceil(8));
        let bytes = {
            let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
            part(&mut *file, self.start + start as u64, stop - start)?
        };
        if begin == first {
            return PackedCodes::unpack_part(&bytes, self.bits, out).map_err(invalid);
        }
        let mut codes = vec![0; end - begin];
        PackedCodes::unpack_part(&bytes, self.bits, &mut codes).map_err(invalid)?;
        out.copy_from_slice(&codes[first - begin..]);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fs};

    use releq_core::{Network, Parameter, Weights};
    use releq_quant::Quantized;

    use super::*;
    use crate::{
        QuantizedNetwork,
        packed::{self, Packed, PackedError},
    };

    /// A layer of 5 x 9 weights and scales for each output.
    fn packed(bits: u8) -> Packed {
        let network =
            Network::builder("small", [1, 3, 3]).flatten("flat").linear("fc", 5).build().unwrap();
        let codes = (0..45_u32).map(|at| (at * 77 + 5) as u8 >> (8 - bits)).collect();
        let bits = Bitwidth::new(bits).unwrap();
        let quantized = Quantized::new(codes, vec![0.5, 1.0, 1.5, 2.0, 2.5], 1.0, bits).unwrap();
        let bias = Parameter { shape: vec![5], values: vec![0.25; 5] };
        let floats = Weights(BTreeMap::from([("fc.bias".to_owned(), bias)]));
        let codes = BTreeMap::from([("fc".to_owned(), quantized)]);
        QuantizedNetwork::from_parts(network, floats, codes, None).unwrap().into()
    }

    #[test]
    fn any_part_is_that_of_the_codes_in_memory() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("small.safetensors");
        for bits in 1..=8 {
            let packed = packed(bits);
            packed::save(&path, &packed).unwrap();
            assert_eq!(packed::load(&path).unwrap(), packed);
            let opened = packed::open(&path).unwrap();
            assert_eq!(opened.model.floats(), packed.model.floats());
            let expected = packed.model.codes("fc").unwrap();
            let codes = opened.model.codes("fc").unwrap();
            assert_eq!(Codes::scales(codes), expected.scales());
            for (first, end) in (0..=45).flat_map(|end| (0..=end).map(move |first| (first, end))) {
                let mut part = vec![0xff; end - first];
                codes.read(first, &mut part).unwrap();
                assert_eq!(part, expected.codes()[first..end], "{bits}: {first} to {end}");
            }
            let float = opened.model.float_layer(1, None).unwrap();
            assert_eq!(float.weights, expected.dequantize());
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_pipe_is_read_as_a_file_is() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe.safetensors");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.unwrap().success());
        let mut packed = packed(3);
        // More than a pipe holds.
        packed.about.classes = vec!["x".repeat(1000); 200];
        let bytes = packed::encode(&packed).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| fs::write(&pipe, &bytes).unwrap());
            assert_eq!(packed::load(&pipe).unwrap(), packed);
            scope.spawn(|| fs::write(&pipe, &bytes).unwrap());
            let opened = packed::open(&pipe).unwrap();
            let mut codes = [0xff; 45];
            opened.model.codes("fc").unwrap().read(0, &mut codes).unwrap();
            assert_eq!(codes, packed.model.codes("fc").unwrap().codes());
        });
    }

    #[test]
    fn a_damaged_file_is_refused_before_its_codes_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("small.safetensors");
        let whole = packed::encode(&packed(3)).unwrap();
        for place in (0..whole.len()).step_by(7).chain(whole.len() - 17..whole.len()) {
            let mut flipped = whole.clone();
            flipped[place] ^= 1 << (place % 8);
            for damaged in [&flipped, &whole[..place]] {
                fs::write(&path, damaged).unwrap();
                let message = packed::open(&path).unwrap_err().to_string();
                assert!(message.contains("small.safetensors"), "byte {place}: {message}");
            }
        }
        // The codes are the last of the file.
        let mut flipped = whole;
        *flipped.last_mut().unwrap() ^= 1;
        fs::write(&path, flipped).unwrap();
        let error = packed::open(&path).unwrap_err();
        let PackedError::In { source, .. } = error else { panic!("{error}") };
        assert!(matches!(*source, PackedError::Damaged), "{source}");
    }
}
