//! The structure of JPEG files.

/// Whether an end marker follows the last scan (ITU-T T.81, annex B): segments are stepped over by their
/// length, thumbnails with them; in a scan's data, 0xff stands before 0, a restart or the next marker.
/// What follows the end is not looked at.
pub(super) fn jpeg_ends(bytes: &[u8]) -> bool {
    let mut rest = bytes.get(2..).unwrap_or_default();
    loop {
        // Bytes between segments are data of a scan, or for the decoder to judge.
        let Some(at) = rest.iter().position(|&byte| byte == 0xff) else { return false };
        rest = &rest[at + 1..];
        match *rest {
            [] => return false,
            [0xd9, ..] => return true,
            // Fill bytes, stuffed zeros, restarts, and markers without a segment.
            [0xff, ..] => {}
            [0 | 1 | 0xd0..=0xd8, ..] => rest = &rest[1..],
            [_, high, low, ..] => {
                let length = usize::from(u16::from_be_bytes([high, low]));
                let Some(after) = rest.get(1 + length..) else { return false };
                rest = after;
            }
            _ => return false,
        }
    }
}
