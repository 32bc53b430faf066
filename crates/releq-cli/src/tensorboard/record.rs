//! The framing of event files: length, checksum of the length, bytes, checksum of the bytes.
//!
//! # Source
//! TensorFlow's `TFRecord` format, `tensorflow/core/lib/io/record_writer.cc`.

/// Added to a rotated checksum, so that a checksum of data that contains checksums stays a good one.
const MASK: u32 = 0xa282_ead8;

fn masked(bytes: &[u8]) -> [u8; 4] {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(MASK).to_le_bytes()
}

/// `bytes` as a record.
pub(super) fn frame(bytes: &[u8]) -> Vec<u8> {
    let length = (bytes.len() as u64).to_le_bytes();
    [&length, masked(&length).as_slice(), bytes, masked(bytes).as_slice()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The checksums are those of `masked_crc32c` in the Python package `tensorboard` 2.21.0.
    #[test]
    fn the_record_of_the_version_is_framed() {
        let body = b"\x1a\x0dbrain.Event:2";
        let length = b"\x0f\0\0\0\0\0\0\0";
        let (of_length, of_body) = ([0x6d, 0x53, 0x2b, 0x09], [0xfc, 0x98, 0x51, 0x29]);
        assert_eq!(frame(body), [length, of_length.as_slice(), body, of_body.as_slice()].concat());
    }
}
