//! Checksums that tell a file as it was written from one that was damaged.

use md5::{Digest, Md5};

/// The MD5 of a sequence of parts, each with its length, so that no two sequences run together to the same bytes.
///
/// It finds damage by a disk or a transfer, not forgery.
///
/// # Examples
///
/// ```
/// use releq_core::Checksum;
///
/// let of = |parts: &[&str]| parts.iter().fold(Checksum::new(), |sum, part| sum.part(part)).finish();
/// assert_eq!(of(&["ab", "c"]), of(&["ab", "c"]));
/// assert_ne!(of(&["ab", "c"]), of(&["a", "bc"]));
/// ```
#[derive(Clone, Debug, Default)]
pub struct Checksum(Md5);

impl Checksum {
    /// Of no part.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a part.
    #[must_use]
    pub fn part(mut self, bytes: impl AsRef<[u8]>) -> Self {
        let bytes = bytes.as_ref();
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
        self
    }

    /// The checksum in hexadecimal digits.
    #[must_use]
    pub fn finish(self) -> String {
        hex(self.0)
    }
}

/// A finished digest in hexadecimal digits.
pub(crate) fn hex(digest: Md5) -> String {
    digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
