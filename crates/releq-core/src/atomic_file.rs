//! Writes files whole or not at all.
//!
//! The bytes go to a temporary file in the same folder, which is renamed once it is complete. No reader
//! ever sees half a file, and a crash leaves the old one as it was.
//!
//! A process that is killed leaves its temporary file behind. The next write of the same file removes it: a
//! writer locks its temporary file, and a lock ends with its process, so one without a lock belongs to nobody.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{self, ErrorKind, Write},
    path::{Path, PathBuf},
};

use tempfile::NamedTempFile;

/// Symbolic links that are followed one after the other, as on Linux.
const MOST_LINKS: usize = 40;

/// End of the names of temporary files, which are `.NAME.RANDOM.tmp`.
const SUFFIX: &str = ".tmp";

/// Random characters in the name of a temporary file.
const RANDOM: usize = 6;

/// Writes `bytes` as the file `path`, replacing a regular file of that name.
///
/// A symbolic link is kept and its target is written, which need not exist yet. An existing file keeps
/// its permissions and, where that is allowed, its owner, on Unix. Temporary files that killed processes left
/// beside it are removed.
///
/// # Errors
/// When the folder does not exist or is not writable, the disk is full, or `path` is something other
/// than a regular file: a folder, a device, a pipe. The message does not name the file, which the caller's does.
pub fn write(path: impl AsRef<Path>, bytes: &[u8]) -> io::Result<()> {
    write_with(path, |file| file.write_all(bytes))
}

/// As [`write`](fn@write), in pieces: `fill` writes the contents. If it fails, nothing is replaced.
///
/// # Errors
/// As [`write`](fn@write), and those of `fill`.
pub fn write_with(
    path: impl AsRef<Path>,
    fill: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    let target = regular_file(path.as_ref())?;
    let mut file = temporary(&target)?;
    fill(file.as_file_mut())?;
    file.as_file().sync_all()?;
    file.persist(target)?;
    Ok(())
}

/// Fails now if [`write`](fn@write) would fail later, for one to call before minutes of work.
///
/// # Errors
/// As [`write`](fn@write), except for a full disk.
pub fn check_writable(path: impl AsRef<Path>) -> io::Result<()> {
    temporary(&regular_file(path.as_ref())?)?.close()
}

/// A locked temporary file beside `target`, with its permissions.
fn temporary(target: &Path) -> io::Result<NamedTempFile> {
    let (folder, name) = place(target)?;
    match fs::metadata(folder) {
        Ok(metadata) if metadata.is_dir() => {}
        Ok(_) => return Err(ErrorKind::NotADirectory.into()),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let reason = format!("there is no folder {}; create it first", folder.display());
            return Err(io::Error::new(ErrorKind::NotFound, reason));
        }
        Err(error) => return Err(error),
    }
    remove_abandoned(folder, name);
    let mut builder = tempfile::Builder::new();
    let mut prefix = OsStr::new(".").to_owned();
    prefix.push(name);
    prefix.push(".");
    builder.prefix(&prefix).suffix(SUFFIX).rand_bytes(RANDOM);
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    loop {
        // The name that the error has is of no file that anybody knows.
        let file = builder.tempfile_in(folder).map_err(|error| io::Error::from(error.kind()))?;
        // Without locks, as on some network file systems, abandoned files stay.
        let locked = file.as_file().lock().is_ok();
        // Another process may have taken it for abandoned before it was locked.
        if locked && !file.path().exists() {
            continue;
        }
        keep_permissions(target, file.as_file())?;
        return Ok(file);
    }
}

/// The folder of a file, and its name in there.
fn place(target: &Path) -> io::Result<(&Path, &OsStr)> {
    let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty());
    let name = target.file_name().ok_or(ErrorKind::IsADirectory)?;
    Ok((folder.unwrap_or(Path::new(".")), name))
}

/// Removes what killed processes left of earlier writes of the file `name`. Whatever prevents it is not worth
/// an error: the new file can be written all the same.
fn remove_abandoned(folder: &Path, name: &OsStr) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let regular = entry.file_type().is_ok_and(|kind| kind.is_file());
        if regular && is_temporary(&entry.file_name(), name) {
            let path = entry.path();
            // The lock is held until after the removal, so that nobody takes the file over in between.
            if let Ok(file) = File::open(&path)
                && file.try_lock().is_ok()
            {
                let _ = fs::remove_file(path);
            }
        }
    }
}

/// Whether `found` is the name of a temporary file for the file `name`.
fn is_temporary(found: &OsStr, name: &OsStr) -> bool {
    let random = found
        .as_encoded_bytes()
        .strip_prefix(b".")
        .and_then(|rest| rest.strip_prefix(name.as_encoded_bytes()))
        .and_then(|rest| rest.strip_prefix(b"."))
        .and_then(|rest| rest.strip_suffix(SUFFIX.as_bytes()));
    random.is_some_and(|random| {
        random.len() == RANDOM && random.iter().all(u8::is_ascii_alphanumeric)
    })
}

/// Gives `file` the permissions and the owner of the file that it will replace, if there is one.
fn keep_permissions(target: &Path, file: &File) -> io::Result<()> {
    let Ok(metadata) = fs::metadata(target) else { return Ok(()) };
    #[cfg(unix)]
    {
        use std::os::unix::fs::{MetadataExt, fchown};
        // Only the superuser may give files away. Before the permissions, which a change of owner may reduce.
        let _ = fchown(file, Some(metadata.uid()), Some(metadata.gid()));
    }
    file.set_permissions(metadata.permissions())
}

/// The file that `path` refers to, through symbolic links; it may not exist yet.
fn regular_file(path: &Path) -> io::Result<PathBuf> {
    // Asked first and of the whole way: links such as /dev/stdout lead to pipes that have no path.
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => return Err(ErrorKind::IsADirectory.into()),
        Ok(metadata) if !metadata.is_file() => {
            return Err(io::Error::new(
                ErrorKind::InvalidInput,
                "not a regular file; give the name of a file",
            ));
        }
        _ => {}
    }
    let mut path = path.to_owned();
    for _ in 0..=MOST_LINKS {
        match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_symlink() => {
                // Relative to the folder of the link; an absolute target replaces it.
                let target = fs::read_link(&path)?;
                path = path.parent().map_or_else(|| target.clone(), |folder| folder.join(&target));
            }
            Ok(_) => return Ok(path),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(path),
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other("too many levels of symbolic links"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<String> = entries.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Checks that `path` cannot be written, by a message that leaves naming it to the caller.
    fn refused(path: &Path, expected: &str) {
        for error in [write(path, b"new").unwrap_err(), check_writable(path).unwrap_err()] {
            let message = error.to_string();
            assert!(!message.contains(&path.display().to_string()), "{message}");
            assert!(message.contains(expected), "`{message}` lacks `{expected}`");
            let temporary = format!("/.{}.", path.file_name().unwrap().display());
            assert!(!message.contains(&temporary), "`{message}` names a temporary file");
        }
    }

    #[test]
    fn a_file_is_replaced_as_a_whole_or_left_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        check_writable(&path).unwrap();
        assert!(names(folder.path()).is_empty());
        write(&path, b"a longer one").unwrap();
        write(&path, b"old").unwrap();
        check_writable(&path).unwrap();
        let failed = write_with(&path, |file| {
            file.write_all(b"half")?;
            Err(io::Error::other("no more"))
        });
        let message = failed.unwrap_err().to_string();
        assert_eq!(message, "no more");
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(names(folder.path()), ["file"], "no temporary file is left");
        refused(folder.path(), "directory");
        refused(&folder.path().join("missing/file"), "missing; create it first");
        refused(&path.join("file"), "ot a directory");
    }

    #[test]
    fn what_a_killed_process_left_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let [path, abandoned, held] =
            ["file", ".file.a1B2c3.tmp", ".file.000000.tmp"].map(|name| folder.path().join(name));
        // Names that only resemble those of temporary files, or are those of another file.
        let others = [".file.a1B2c3", ".file.a1B2c.tmp", ".file.a1-2c3.tmp", ".other.a1B2c3.tmp"];
        for name in others {
            fs::write(folder.path().join(name), b"not ours").unwrap();
        }
        fs::write(&abandoned, b"half").unwrap();
        let live = File::create(&held).unwrap();
        live.lock().unwrap();
        check_writable(&path).unwrap();
        assert!(!abandoned.exists() && held.exists());

        fs::write(&abandoned, b"half").unwrap();
        drop(live);
        write(&path, b"new").unwrap();
        let mut expected: Vec<&str> = others.into_iter().chain(["file"]).collect();
        expected.sort_unstable();
        assert_eq!(names(folder.path()), expected);
    }

    #[test]
    fn writers_of_one_file_do_not_remove_what_the_others_write() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::thread::scope(|scope| {
            for writer in 0..4_u8 {
                let path = &path;
                scope.spawn(move || {
                    for _ in 0..50 {
                        write(path, &[writer; 1000]).unwrap();
                    }
                });
            }
        });
        let written = fs::read(&path).unwrap();
        assert!(written.len() == 1000 && written.iter().all(|&byte| byte == written[0]));
        assert_eq!(names(folder.path()), ["file"]);
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_and_permissions_kept() {
        use std::os::unix::fs::{PermissionsExt, symlink};

        let folder = tempfile::tempdir().unwrap();
        let [real, link, chain, dangling] =
            ["real/file", "link", "chain", "dangling"].map(|name| folder.path().join(name));
        fs::create_dir(folder.path().join("real")).unwrap();
        fs::write(&real, b"old").unwrap();
        fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).unwrap();
        symlink("real/file", &link).unwrap();
        symlink(&link, &chain).unwrap();
        check_writable(&chain).unwrap();
        write(&chain, b"new").unwrap();
        assert_eq!(fs::read(&real).unwrap(), b"new");
        assert_eq!(fs::metadata(&real).unwrap().permissions().mode() & 0o777, 0o640);
        assert!(link.is_symlink() && chain.is_symlink());

        symlink("real/later", &dangling).unwrap();
        write(&dangling, b"later").unwrap();
        // A new file has the permissions that any program's would have.
        let plain = folder.path().join("plain");
        fs::write(&plain, b"").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&folder.path().join("real/later")), mode(&plain));
        assert!(dangling.is_symlink());
        assert_eq!(names(&folder.path().join("real")), ["file", "later"]);

        let round = folder.path().join("round");
        symlink("round", &round).unwrap();
        refused(&round, "too many levels");
    }

    #[cfg(unix)]
    #[test]
    fn what_is_not_a_regular_file_is_left_alone() {
        use std::os::unix::{
            fs::{FileTypeExt, symlink},
            net::UnixListener,
        };

        let folder = tempfile::tempdir().unwrap();
        let [socket, link] = ["socket", "link"].map(|name| folder.path().join(name));
        let _listener = UnixListener::bind(&socket).unwrap();
        refused(&socket, "not a regular file");
        symlink("/dev/null", &link).unwrap();
        refused(&link, "not a regular file");
        refused(Path::new("/dev/null"), "not a regular file");
        // As /dev/stdout is in a pipeline: a link to what has no path.
        #[cfg(target_os = "linux")]
        {
            use std::os::fd::AsRawFd;
            let (_reader, writer) = io::pipe().unwrap();
            let path = format!("/proc/self/fd/{}", writer.as_raw_fd());
            refused(Path::new(&path), "not a regular file");
        }
        assert!(fs::metadata(&socket).unwrap().file_type().is_socket());
        assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());
    }

    #[cfg(unix)]
    #[test]
    fn a_read_only_folder_is_named_at_once() {
        use std::os::unix::fs::PermissionsExt;

        let folder = tempfile::tempdir().unwrap();
        let closed = folder.path().join("closed");
        fs::create_dir(&closed).unwrap();
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o555)).unwrap();
        // Root may write anyway.
        if fs::write(closed.join("probe"), b"").is_err() {
            refused(&closed.join("file"), "ermission denied");
        }
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o755)).unwrap();
    }
}
