//! The files of a command: none may be read and written over in one run.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use releq::core::atomic_file;

use super::UsageError;

/// Symbolic links that are followed one after the other, as on Linux.
const MOST_LINKS: usize = 40;

/// What a command does with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    Read,
    /// Written, whatever was there; a state that is resumed from is also read.
    Write,
}

#[derive(Clone, Debug)]
struct File {
    /// The option, such as `--output`.
    option: &'static str,
    path: PathBuf,
    access: Access,
}

/// All files that a command reads and writes, by the options that name them.
///
/// ```
/// use std::path::Path;
///
/// use releq_cli::args::Files;
///
/// let weights = Path::new("lenet.safetensors");
/// let files = Files::new().reads("--weights", Some(weights)).writes("--output", Some(weights));
/// let message = files.check().unwrap_err().to_string();
/// assert_eq!(message, "--weights and --output name the same file, lenet.safetensors: give each its own");
/// ```
#[derive(Clone, Debug, Default)]
pub struct Files(Vec<File>);

impl Files {
    /// No files.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a file that is only read.
    #[must_use]
    pub fn reads<P: AsRef<Path>>(self, option: &'static str, path: Option<P>) -> Self {
        self.with(option, path, Access::Read)
    }

    /// Adds a file that is written, and perhaps read before.
    #[must_use]
    pub fn writes<P: AsRef<Path>>(self, option: &'static str, path: Option<P>) -> Self {
        self.with(option, path, Access::Write)
    }

    fn with<P: AsRef<Path>>(
        mut self,
        option: &'static str,
        path: Option<P>,
        access: Access,
    ) -> Self {
        let path = path.map(|path| path.as_ref().to_owned());
        self.0.extend(path.map(|path| File { option, path, access }));
        self
    }

    /// Refuses a file that is written under two names, or written and read, before any work is done. Symbolic and
    /// hard links are names, too. A file that cannot be written is an error here as well.
    ///
    /// # Errors
    /// [`UsageError`] naming both options; the error of the file system for one that cannot be written.
    pub fn check(&self) -> Result<()> {
        for (index, file) in self.0.iter().enumerate() {
            for other in &self.0[..index] {
                let writes = [file, other].iter().any(|file| file.access == Access::Write);
                if writes && same(&file.path, &other.path) {
                    let (first, second) = (other.option, file.option);
                    let names = if file.path == other.path {
                        file.path.display().to_string()
                    } else {
                        format!("{} and {}", other.path.display(), file.path.display())
                    };
                    return Err(UsageError(format!(
                        "{first} and {second} name the same file, {names}: give each its own"
                    ))
                    .into());
                }
            }
        }
        for file in self.0.iter().filter(|file| file.access == Access::Write) {
            atomic_file::check_writable(&file.path)
                .with_context(|| format!("{} {}", file.option, file.path.display()))?;
        }
        Ok(())
    }
}

/// Whether two paths lead to the same file, which need not exist yet.
fn same(first: &Path, second: &Path) -> bool {
    if place(first) == place(second) {
        return true;
    }
    // Opening a pipe or a device would wait, or take something from it.
    let regular = |path: &Path| fs::metadata(path).is_ok_and(|metadata| metadata.is_file());
    regular(first) && regular(second) && same_file::is_same_file(first, second).unwrap_or(false)
}

/// Where a file is, or would be if it were written: its folder without links, and its name.
fn place(path: &Path) -> PathBuf {
    let mut path = path.to_owned();
    for _ in 0..MOST_LINKS {
        let Ok(target) = fs::read_link(&path) else { break };
        // An absolute target replaces the folder.
        path = path.parent().unwrap_or(Path::new("")).join(target);
    }
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    match (fs::canonicalize(folder), path.file_name()) {
        (Ok(folder), Some(name)) => folder.join(name),
        _ => fs::canonicalize(&path).unwrap_or(path),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

    use super::*;

    fn refused(files: &Files, first: &str, second: &str) {
        let error = files.check().unwrap_err();
        assert!(error.is::<UsageError>(), "{error:#}");
        let message = error.to_string();
        assert!(message.starts_with(&format!("{first} and {second} name")), "{message}");
    }

    #[test]
    fn one_file_under_two_options_is_refused_if_it_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| Some(folder.path().join(name));
        fs::write(folder.path().join("there"), "old").unwrap();
        for name in ["there", "new"] {
            let both = Files::new().reads("--weights", file(name)).writes("--output", file(name));
            refused(&both, "--weights", "--output");
            let both = Files::new().writes("--output", file(name)).writes("--csv", file(name));
            refused(&both, "--output", "--csv");
            let both = Files::new().reads("--layers", file(name)).reads("--weights", file(name));
            both.check().unwrap();
        }
        let apart = Files::new()
            .reads("--weights", file("there"))
            .writes("--output", file("new"))
            .writes("--csv", None::<&Path>)
            .writes("--state", file("state"));
        apart.check().unwrap();
        assert_eq!(fs::read(folder.path().join("there")).unwrap(), b"old");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left behind");
    }

    #[test]
    fn other_ways_to_write_the_same_path_are_seen_through() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("sub")).unwrap();
        for (first, second) in [("new", "sub/../new"), ("./new", "new"), ("sub/new", "sub/./new")] {
            let (first, second) = (folder.path().join(first), folder.path().join(second));
            let both = Files::new().writes("--output", Some(first)).writes("--state", Some(second));
            refused(&both, "--output", "--state");
        }
    }

    #[test]
    #[cfg(unix)]
    fn links_are_names_of_the_file_that_they_lead_to() {
        use std::os::unix::fs::symlink;

        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("weights"), "old").unwrap();
        fs::hard_link(at("weights"), at("hard")).unwrap();
        symlink("weights", at("soft")).unwrap();
        symlink(at("soft"), at("twice")).unwrap();
        symlink("nothing", at("dangling")).unwrap();
        fs::create_dir(at("sub")).unwrap();
        symlink("..", at("sub/up")).unwrap();
        for (input, output) in [
            ("weights", "hard"),
            ("weights", "soft"),
            ("soft", "weights"),
            ("hard", "twice"),
            ("nothing", "dangling"),
            ("weights", "sub/up/weights"),
            ("new", "sub/up/new"),
        ] {
            let both = Files::new()
                .reads("--weights", Some(at(input)))
                .writes("--output", Some(at(output)));
            refused(&both, "--weights", "--output");
        }
        assert_eq!(fs::read(at("weights")).unwrap(), b"old");
    }

    #[test]
    fn what_cannot_be_written_is_named_with_its_option() {
        let folder = tempfile::tempdir().unwrap();
        for path in [folder.path().to_owned(), folder.path().join("missing/file")] {
            let message = Files::new().writes("--csv", Some(&path)).check().unwrap_err();
            let message = format!("{message:#}");
            assert!(message.starts_with("--csv "), "{message}");
            assert!(message.contains(&path.display().to_string()), "{message}");
        }
    }
}
