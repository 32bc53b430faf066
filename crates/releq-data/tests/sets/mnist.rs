//! MNIST from disk and over the net, against a server on the loopback interface.
//!
//! What needs the real files is skipped where `RELEQ_DATA_DIR` is not set.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test may fail loudly")]

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use releq_data::{self as data, DataError, DataKind, Download, mnist};

const NAMES: [&str; 4] = [
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
];

fn real() -> Option<PathBuf> {
    let folder = std::env::var_os("RELEQ_DATA_DIR").map(|dir| PathBuf::from(dir).join("mnist"));
    let folder = folder.filter(|folder| folder.is_dir());
    if folder.is_none() {
        eprintln!("skipped: RELEQ_DATA_DIR has no mnist/");
    }
    folder
}

/// Four well-formed files of `images` images, with the given labels.
fn write_small(folder: &Path, images: u32, side: u32, labels: &[u8]) {
    fs::create_dir_all(folder).unwrap();
    let mut image_file = 0x0803u32.to_be_bytes().to_vec();
    [images, side, side].iter().for_each(|dim| image_file.extend(dim.to_be_bytes()));
    image_file.extend(vec![7; (images * side * side) as usize]);
    let mut label_file = 0x0801u32.to_be_bytes().to_vec();
    label_file.extend((labels.len() as u32).to_be_bytes());
    label_file.extend(labels);
    for (name, bytes) in NAMES.iter().zip([&image_file, &label_file].into_iter().cycle()) {
        fs::write(folder.join(name), bytes).unwrap();
    }
}

#[test]
fn the_real_files_are_all_there() {
    let Some(folder) = real() else { return };
    for dir in [folder.clone(), folder.parent().unwrap().to_owned()] {
        let data = mnist::load(&dir).unwrap();
        assert_eq!((data.train.len(), data.test.len()), (60_000, 10_000));
        let first = |set: &data::ImageSet| [0, 1, 2, 3, 4].map(|i| set.label(i));
        assert_eq!(first(&data.train), [5, 0, 4, 1, 9]);
        assert_eq!(first(&data.test), [7, 2, 1, 0, 4]);
        assert!(data.source.contains("MNIST from"));
    }
}

#[test]
fn folders_are_looked_through_and_named_when_files_are_missing() {
    let dir = tempfile::tempdir().unwrap();
    let nested = dir.path().join("MNIST").join("raw");
    write_small(&nested, 3, 28, &[1, 2, 9]);
    assert_eq!(data::find(DataKind::Mnist, Some(dir.path())).unwrap(), Some(nested.clone()));
    assert_eq!(mnist::load(dir.path()).unwrap().train.len(), 3);
    // The names that some tools unpack to.
    fs::rename(nested.join(NAMES[1]), nested.join("train-labels.idx1-ubyte")).unwrap();
    assert_eq!(mnist::load(dir.path()).unwrap().train.len(), 3);
    fs::remove_file(nested.join(NAMES[0])).unwrap();
    let error = data::find(DataKind::Mnist, Some(dir.path())).unwrap_err().to_string();
    assert!(error.contains("missing train-images-idx3-ubyte"), "{error}");
    assert!(data::find(DataKind::Mnist, Some(&dir.path().join("nowhere"))).is_err());
}

#[test]
fn files_that_do_not_belong_together_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let check = |expected: &str| {
        let error = mnist::load(dir.path()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    write_small(dir.path(), 3, 28, &[1, 2]);
    check("has 3 images but");
    write_small(dir.path(), 3, 27, &[1, 2, 3]);
    check("images are 27x27 pixels, expected 28x28");
    write_small(dir.path(), 3, 28, &[1, 10, 3]);
    check("label of image 1 is 10, expected 0 to 9");
    write_small(dir.path(), 3, 28, &[1, 2, 3]);
    fs::copy(dir.path().join(NAMES[1]), dir.path().join(NAMES[0])).unwrap();
    check("magic number");
}

/// How a test server treats requests.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
    Whole,
    /// Sends half of the first answer and hangs up.
    BreaksOnce {
        ranges: bool,
    },
    Garbage,
    NotFound,
}

/// Serves `folder` on the loopback interface; gives its address and the `Range` headers it saw.
fn serve(folder: PathBuf, manner: Manner) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let ranges = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&ranges);
    std::thread::spawn(move || {
        let mut broke = false;
        for stream in listener.incoming().take(40) {
            answer(stream.unwrap(), &folder, manner, &mut broke, &seen);
        }
    });
    (address, ranges)
}

fn answer(
    mut stream: TcpStream,
    folder: &Path,
    manner: Manner,
    broke: &mut bool,
    seen: &Mutex<Vec<String>>,
) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map(Result::unwrap);
    let request = lines.next().unwrap_or_default();
    let headers: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
    let range = headers.iter().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("range").then(|| value.trim().to_owned())
    });
    seen.lock().unwrap().extend(range.clone());
    let name = request.split_whitespace().nth(1).unwrap_or_default().trim_start_matches('/');
    let body = match manner {
        Manner::NotFound => {
            let reply = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            let _ = stream.write_all(reply);
            return;
        }
        Manner::Garbage => b"this is not the file".to_vec(),
        _ => fs::read(folder.join(name)).unwrap_or_default(),
    };
    let honours = !matches!(manner, Manner::BreaksOnce { ranges: false });
    let from = range
        .filter(|_| honours)
        .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok())
        .unwrap_or(0usize);
    let status = if from > 0 { "206 Partial Content" } else { "200 OK" };
    let rest = &body[from.min(body.len())..];
    let head =
        format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", rest.len());
    let _ = stream.write_all(head.as_bytes());
    let breaks = matches!(manner, Manner::BreaksOnce { .. }) && !std::mem::replace(broke, true);
    let _ = stream.write_all(if breaks { &rest[..rest.len() / 2] } else { rest });
}

fn from(address: &str, folder: &Path) -> Download {
    Download {
        base_urls: vec![address.to_owned()],
        attempts: 3,
        ..Download::new(DataKind::Mnist, folder)
    }
}

#[test]
fn the_real_files_download_whole_broken_or_resumed() {
    let Some(source) = real() else { return };
    for (manner, resumed) in [
        (Manner::Whole, false),
        (Manner::BreaksOnce { ranges: true }, true),
        (Manner::BreaksOnce { ranges: false }, true),
    ] {
        let (address, ranges) = serve(source.clone(), manner);
        let target = tempfile::tempdir().unwrap();
        let folder = target.path().join("new");
        let mut last = 0;
        let got = data::download(&from(&address, &folder), &mut |news| {
            assert_eq!(news.files, 4);
            last = news.received;
        });
        assert_eq!(mnist::load(&got.unwrap()).unwrap().test.len(), 10_000);
        assert!(last > 0);
        assert_eq!(!ranges.lock().unwrap().is_empty(), resumed);
        let parts = fs::read_dir(&folder).unwrap().count();
        assert_eq!(parts, 4, "no part is left over");
        // What is there is not fetched again.
        let nowhere = from("http://127.0.0.1:9", &folder);
        data::download(&nowhere, &mut |_| panic!("nothing to fetch")).unwrap();
    }
}

#[test]
fn a_wrong_file_is_not_kept() {
    let (address, _) = serve(PathBuf::new(), Manner::Garbage);
    let target = tempfile::tempdir().unwrap();
    let error = data::download(&from(&address, target.path()), &mut |_| {}).unwrap_err();
    assert!(matches!(error, DataError::Checksum { .. }), "{error}");
    assert_eq!(fs::read_dir(target.path()).unwrap().count(), 0);
}

#[test]
fn servers_and_folders_that_fail_are_named() {
    let target = tempfile::tempdir().unwrap();
    let (address, _) = serve(PathBuf::new(), Manner::NotFound);
    let error = data::download(&from(&address, target.path()), &mut |_| {}).unwrap_err();
    assert!(matches!(error, DataError::HttpStatus { status: 404, .. }), "{error}");
    // Port 9 on loopback has no listener.
    let error = data::download(&from("http://127.0.0.1:9", target.path()), &mut |_| {});
    assert!(matches!(error, Err(DataError::Transfer { attempts: 3, .. })), "{error:?}");
    let nothing =
        Download { base_urls: Vec::new(), ..Download::new(DataKind::Mnist, target.path()) };
    assert!(matches!(data::download(&nothing, &mut |_| {}), Err(DataError::NoAddress)));
    // A file where the folder should be.
    let file = target.path().join("file");
    fs::write(&file, "x").unwrap();
    let error = data::download(&from(&address, &file.join("sub")), &mut |_| {}).unwrap_err();
    assert!(matches!(error, DataError::Write { .. }), "{error}");
}
