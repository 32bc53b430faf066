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

    #[test]
    fn the_record_of_the_version_is_framed() {
        let body = b"\x1a\x0dbrain.Event:2";
        let record = frame(body);
        assert_eq!(record.len(), 8 + 4 + body.len() + 4);
        assert_eq!(record[..8], 15_u64.to_le_bytes());
        assert_eq!(record[12..27], *body);
        // RFC 3720, B.4: the checksum of 32 zeros is 0x8a9136aa.
        assert_eq!(crc32c::crc32c(&[0; 32]), 0x8a91_36aa);
        let rotated = (0x8a91_36aa_u32 >> 15) | (0x8a91_36aa_u32 << 17);
        assert_eq!(masked(&[0; 32]), rotated.wrapping_add(0xa282_ead8).to_le_bytes());
    }
}
