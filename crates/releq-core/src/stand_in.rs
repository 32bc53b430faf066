//! Files that are not what their names promise, because something was left out on their way.

use std::fmt;

/// What a file has in place of its content.
///
/// # Examples
///
/// ```
/// use releq_core::StandIn;
///
/// let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n";
/// assert_eq!(StandIn::of(pointer), Some(StandIn::LfsPointer));
/// assert_eq!(StandIn::of(b""), Some(StandIn::Nothing));
/// assert_eq!(StandIn::of(b"bits,accuracy"), None);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StandIn {
    /// No byte at all.
    Nothing,
    /// A pointer of Git LFS.
    LfsPointer,
    /// A pointer of git-annex.
    AnnexPointer,
    /// A web page, such as the one that says why a download failed.
    WebPage,
}

impl StandIn {
    /// Bytes at the beginning of a file that tell.
    pub const START: usize = 64;

    /// What a file that begins like this is, unless it may be what its name promises.
    #[must_use]
    pub fn of(start: &[u8]) -> Option<Self> {
        let text = start.trim_ascii_start();
        let begins = |with: &str| {
            text.get(..with.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(with.as_bytes()))
        };
        if start.is_empty() {
            return Some(Self::Nothing);
        }
        if begins("version https://git-lfs.github.com/") {
            return Some(Self::LfsPointer);
        }
        if begins("/annex/objects/") {
            return Some(Self::AnnexPointer);
        }
        (begins("<!doctype html") || begins("<html")).then_some(Self::WebPage)
    }
}

/// What is wrong and what to do, as it follows the name of the file: `is empty; fetch it again`.
impl fmt::Display for StandIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nothing => "is empty; fetch it again",
            Self::LfsPointer => {
                "is a pointer of Git LFS, not the file that it stands for; get that with `git lfs pull`"
            }
            Self::AnnexPointer => {
                "is a pointer of git-annex, not the file that it stands for; get that with `git annex get`"
            }
            Self::WebPage => {
                "is a web page, not the file of that name; open it in a browser to see what it says, \
                 and fetch the file again"
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_and_pointers_are_told_by_how_they_begin() {
        for (start, expected) in [
            ("/annex/objects/MD5E-s3--5f4d.pt\n", Some(StandIn::AnnexPointer)),
            ("<!DOCTYPE html>\n<html>", Some(StandIn::WebPage)),
            ("\n <HTML lang=en>", Some(StandIn::WebPage)),
            ("<!doctype xml>", None),
            ("version 1", None),
            ("\n", None),
        ] {
            assert_eq!(StandIn::of(start.as_bytes()), expected, "{start}");
            let cut = &start[..start.len().min(StandIn::START)];
            assert_eq!(StandIn::of(cut.as_bytes()), expected);
        }
    }
}
