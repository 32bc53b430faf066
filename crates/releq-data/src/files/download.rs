//! Downloads published files, with resume and checksums.

use std::{
    fmt::Write as _,
    fs,
    io::{self, Read, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use md5::{Digest, Md5};

use crate::{
    DataError, DataKind,
    files::idx,
    sets::{
        mnist,
        published::{Checksum, RemoteFile, published},
    },
};

/// Whether `folder` contains `file` under any of its known names.
fn is_there(folder: &Path, file: &RemoteFile) -> bool {
    folder.join(file.name).is_file()
        || file.name.strip_suffix("-ubyte.gz").is_some() && mnist::locate(folder, file).is_some()
}

/// Where downloads of `kind` go by default.
pub(crate) fn cache_folder(kind: DataKind) -> Option<PathBuf> {
    Some(dirs::cache_dir()?.join("releq").join(kind.slug()))
}

/// How to download a data set.
#[derive(Debug, Clone)]
pub struct Download {
    /// The data set.
    pub kind: DataKind,
    /// Addresses of folders that contain its files, tried in this order.
    pub base_urls: Vec<String>,
    /// The folder to download to, which is created if necessary.
    pub folder: PathBuf,
    /// Attempts in a row, per file and address, that receive no new bytes before giving up.
    pub attempts: u32,
}

impl Download {
    /// A download from public mirrors into `folder`.
    pub fn new(kind: DataKind, folder: impl Into<PathBuf>) -> Self {
        let mirrors = published(kind).map_or(&[][..], |published| published.mirrors);
        let base_urls = mirrors.iter().map(|&url| url.to_owned()).collect();
        Self { kind, base_urls, folder: folder.into(), attempts: 3 }
    }

    /// A download from public mirrors into the user's cache folder, where [`find`](crate::find)
    /// looks.
    ///
    /// # Errors
    /// When the system names no cache folder.
    pub fn to_cache(kind: DataKind) -> Result<Self, DataError> {
        let folder = cache_folder(kind).ok_or(DataError::NoCacheFolder)?;
        Ok(Self::new(kind, folder))
    }
}

/// Progress of a download.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DownloadProgress {
    /// Name of the file.
    pub file: &'static str,
    /// Position of the file among all, from 0.
    pub file_index: usize,
    /// Number of files.
    pub files: usize,
    /// Bytes of this file received so far.
    pub received: u64,
    /// Size of this file in bytes, if the server reports it.
    pub total: Option<u64>,
}

/// Downloads missing files, verifies their checksums and returns their folder.
///
/// A file is written with the extension `.part` and renamed once its checksum has been verified. An existing
/// `.part` file is resumed if the server supports it.
///
/// # Errors
/// When this kind of data cannot be downloaded, a file fails at every address, or the folder cannot be
/// written.
pub fn download(
    download: &Download,
    on_progress: &mut dyn FnMut(DownloadProgress),
) -> Result<PathBuf, DataError> {
    let kind = download.kind;
    let files = published(kind).ok_or(DataError::NotDownloadable { kind })?.files;
    let folder = &download.folder;
    fs::create_dir_all(folder)
        .map_err(|source| DataError::Write { path: folder.clone(), source })?;
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_connect(Some(Duration::from_secs(20)))
        .timeout_recv_response(Some(Duration::from_secs(30)))
        // Against connections that hang; what a slow one has received is kept for the next attempt.
        .timeout_recv_body(Some(Duration::from_secs(600)))
        .build()
        .into();
    for (file_index, file) in files.iter().enumerate() {
        if is_there(folder, file) {
            continue;
        }
        let mut last = None;
        let mut attempts = 0;
        'file: for base in &download.base_urls {
            let url = format!("{}/{}", base.trim_end_matches('/'), file.name);
            let mut in_vain = 0;
            while in_vain < download.attempts.max(1) {
                attempts += 1;
                let before = part_len(folder, file);
                let mut report = |received, total| {
                    let (file, files) = (file.name, files.len());
                    on_progress(DownloadProgress { file, file_index, files, received, total });
                };
                match fetch(&agent, &url, folder, file, &mut report) {
                    Ok(()) => {
                        last = None;
                        break 'file;
                    }
                    // Another address would not help.
                    Err(error @ DataError::Write { .. }) => return Err(error),
                    Err(error) => {
                        log::warn!("{error}");
                        let grown = part_len(folder, file) > before;
                        in_vain = if grown { 0 } else { in_vain + 1 };
                        let gone = matches!(error, DataError::HttpStatus { .. });
                        last = Some(error);
                        if gone {
                            break;
                        }
                    }
                }
            }
        }
        match last {
            Some(DataError::Transfer { url, source, .. }) => {
                return Err(DataError::Transfer { url, attempts, folder: folder.clone(), source });
            }
            Some(error) => return Err(error),
            None if !is_there(folder, file) => return Err(DataError::NoAddress),
            None => {}
        }
    }
    Ok(folder.clone())
}

/// The partial file.
fn part(folder: &Path, file: &RemoteFile) -> PathBuf {
    folder.join(format!("{}.part", file.name))
}

fn part_len(folder: &Path, file: &RemoteFile) -> u64 {
    fs::metadata(part(folder, file)).map_or(0, |metadata| metadata.len())
}

/// Fetches one file, resuming a partial one. The partial file is kept for the next attempt if the
/// connection breaks, and removed if its checksum is wrong.
fn fetch(
    agent: &ureq::Agent,
    url: &str,
    folder: &Path,
    file: &RemoteFile,
    report: &mut dyn FnMut(u64, Option<u64>),
) -> Result<(), DataError> {
    let part = part(folder, file);
    let write_error = |source| DataError::Write { path: part.clone(), source };
    let broken = |source: Box<dyn std::error::Error + Send + Sync>| DataError::Transfer {
        url: url.to_owned(),
        attempts: 1,
        folder: folder.to_owned(),
        source,
    };
    let mut out =
        fs::OpenOptions::new().create(true).append(true).open(&part).map_err(write_error)?;
    match out.try_lock() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => {
            return Err(broken("another process is downloading it at this moment".into()));
        }
        // Not every file system has locks.
        Err(fs::TryLockError::Error(error)) => log::debug!("{}: {error}", part.display()),
    }
    // Another process may have had the lock and renamed what is open here.
    if is_there(folder, file) {
        return Ok(());
    }
    let have = out.metadata().map_err(write_error)?.len();
    let mut request = agent.get(url);
    if have > 0 {
        request = request.header("Range", format!("bytes={have}-"));
    }
    let mut response = request.call().map_err(|error| broken(error.into()))?;
    let status = response.status().as_u16();
    let mut received = match status {
        206 => have,
        200 => {
            out.set_len(0).map_err(write_error)?;
            0
        }
        // The part is as long as the file, or longer: start anew.
        416 => {
            fs::remove_file(&part).map_err(write_error)?;
            return Err(broken("the part on disk did not fit, starting anew".into()));
        }
        _ => {
            if have == 0 {
                fs::remove_file(&part).map_err(write_error)?;
            }
            return Err(DataError::HttpStatus { url: url.to_owned(), status });
        }
    };
    let length = response.body().content_length();
    let total = length.map(|length| received + length);
    let mut body = response.body_mut().as_reader();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let count = body.read(&mut buffer).map_err(|error| broken(error.into()))?;
        if count == 0 {
            break;
        }
        out.write_all(&buffer[..count]).map_err(write_error)?;
        received += count as u64;
        report(received, total);
    }
    if total.is_some_and(|total| received < total) {
        return Err(broken(format!("the connection ended after {received} bytes").into()));
    }
    out.sync_all().map_err(write_error)?;
    let (expected, found) = match file.md5 {
        Checksum::File(md5) => {
            let whole = fs::File::open(&part).and_then(md5_of);
            (md5, whole.map_err(|error| broken(error.into()))?)
        }
        Checksum::Content(md5) => {
            let content = idx::decompressed(&part).map_err(|error| broken(error.into()))?;
            (
                md5,
                md5_of(content)
                    .unwrap_or_else(|_| "none, since the gzip data is damaged".to_owned()),
            )
        }
    };
    if found != expected {
        fs::remove_file(&part).map_err(write_error)?;
        let (url, expected) = (url.to_owned(), expected.to_owned());
        return Err(DataError::Checksum { url, expected, found });
    }
    fs::rename(&part, folder.join(file.name)).map_err(write_error)
}

fn md5_of(mut file: impl Read) -> io::Result<String> {
    let (mut digest, mut buffer) = (Md5::new(), vec![0; 1 << 16]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex(digest.finalize().as_slice())),
            count => digest.update(&buffer[..count]),
        }
    }
}

/// Bytes as lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader},
        net::TcpListener,
        thread,
    };

    use super::*;

    /// Answers `requests` requests with `body`.
    fn serve(body: &'static [u8], requests: usize) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}/file", listener.local_addr().unwrap());
        thread::spawn(move || {
            for stream in listener.incoming().take(requests) {
                let mut stream = stream.unwrap();
                let lines = BufReader::new(stream.try_clone().unwrap()).lines();
                lines.map(Result::unwrap).take_while(|line| !line.is_empty()).for_each(drop);
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
                stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
            }
        });
        address
    }

    #[test]
    fn checksums_of_files_as_they_are_decide_too() {
        let folder = tempfile::tempdir().unwrap();
        let agent = ureq::Agent::new_with_defaults();
        let url = serve(b"hello", 2);
        let fetch = |md5| {
            let file = RemoteFile { name: "file", md5: Checksum::File(md5) };
            fetch(&agent, &url, folder.path(), &file, &mut |_, _| {})
        };
        let error = fetch("00000000000000000000000000000000").unwrap_err();
        assert!(matches!(error, DataError::Checksum { .. }), "{error}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        fetch("5d41402abc4b2a76b9719d911017c592").unwrap();
        assert_eq!(fs::read(folder.path().join("file")).unwrap(), b"hello");
    }

    #[test]
    fn a_part_that_another_process_writes_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let agent = ureq::Agent::new_with_defaults();
        let url = serve(b"hello", 1);
        let file =
            RemoteFile { name: "file", md5: Checksum::File("5d41402abc4b2a76b9719d911017c592") };
        let fetch = || fetch(&agent, &url, folder.path(), &file, &mut |_, _| {});
        let other = fs::File::create(part(folder.path(), &file)).unwrap();
        other.lock().unwrap();
        let error = fetch().unwrap_err();
        let message = std::error::Error::source(&error).unwrap().to_string();
        assert!(message.contains("another process is downloading it"), "{message}");
        assert_eq!(part_len(folder.path(), &file), 0);
        other.unlock().unwrap();
        fetch().unwrap();
        assert_eq!(fs::read(folder.path().join("file")).unwrap(), b"hello");
        // It is there now: nobody is asked, which would fail.
        fetch().unwrap();
    }

    #[test]
    fn every_kind_but_folders_of_images_can_be_downloaded() {
        for kind in DataKind::ALL {
            let download = Download::new(kind, "nowhere");
            let published = published(kind);
            assert_eq!(published.is_some(), kind.is_published());
            assert_eq!(download.base_urls.is_empty(), published.is_none());
            let files = published.map_or(&[][..], |published| published.files);
            for file in files {
                let (Checksum::File(md5) | Checksum::Content(md5)) = &file.md5;
                assert!(md5.len() == 32 && md5.chars().all(|digit| digit.is_ascii_hexdigit()));
            }
        }
        let folder = tempfile::tempdir().unwrap();
        let images = Download::new(DataKind::ImageFolder, folder.path());
        let error = download(&images, &mut |_| {}).unwrap_err();
        assert!(matches!(error, DataError::NotDownloadable { .. }), "{error}");
    }
}
