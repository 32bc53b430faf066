//! Checksums that tell a file as it was written from one that was damaged.

use std::io::{self, Read};

use md5::{Digest, Md5};

/// Bytes that are read at once.
const BLOCK: usize = 1 << 16;

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

    /// Appends the next `len` bytes of `source` as a part, of which few are in memory at a time.
    ///
    /// # Errors
    /// Those of the source; [`io::ErrorKind::UnexpectedEof`] if it has fewer.
    ///
    /// # Examples
    ///
    /// ```
    /// use releq_core::Checksum;
    ///
    /// let read = Checksum::new().part_of(&mut "abc".as_bytes(), 2)?;
    /// assert_eq!(read.finish(), Checksum::new().part("ab").finish());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn part_of(mut self, source: &mut impl Read, len: u64) -> io::Result<Self> {
        self.0.update(len.to_le_bytes());
        let mut block = vec![0; BLOCK.min(usize::try_from(len).unwrap_or(BLOCK))];
        let mut left = len;
        while left > 0 {
            let count = block.len().min(usize::try_from(left).unwrap_or(BLOCK));
            source.read_exact(&mut block[..count])?;
            self.0.update(&block[..count]);
            left -= count as u64;
        }
        Ok(self)
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
