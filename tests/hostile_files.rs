//! Thousands of damaged files for every reader of outside input: none panics, takes long or much memory.
//!
//! The inputs follow from valid ones and a seed, so that every run has the same. `tests/fuzz` has the same readers as
//! targets of libFuzzer, which finds more and takes longer; see `docs/contributing.md`. `RELEQ_DAMAGED=report=600,agent=600`
//! goes on with these readers for so many seconds, up to a million inputs each.
#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]
#![allow(unreachable_pub, reason = "the modules are those of another crate as well")]

#[path = "support/counting.rs"]
mod counting;
#[path = "support/mutate.rs"]
mod mutate;
#[path = "fuzz/src/readers.rs"]
mod readers;
#[path = "fuzz/src/reseal.rs"]
mod reseal;
#[path = "fuzz/src/searches.rs"]
mod searches;
#[path = "fuzz/src/seeds.rs"]
mod seeds;

use std::{
    env, fs,
    panic::{self, AssertUnwindSafe},
    path::Path,
    process,
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::{counting::peak, mutate::mutated, readers::Reader};

/// The most memory that one input may take.
const MOST_MEMORY: usize = 256 << 20;
/// The longest that one input may take.
const LONGEST: Duration = Duration::from_secs(5);
/// Inputs for each reader: this many bytes of them, within these numbers.
const BYTES: usize = 64 << 20;
const INPUTS: [usize; 2] = [300, 4000];
/// Inputs of a reader that has seconds for more.
const MOST_INPUTS: usize = 1_000_000;

/// The input that is being read, since when.
static CURRENT: Mutex<Option<(String, Instant)>> = Mutex::new(None);

fn set_current(current: Option<(String, Instant)>) {
    *CURRENT.lock().unwrap_or_else(PoisonError::into_inner) = current;
}

/// Ends the process when an input takes too long, for a thread cannot be ended.
#[allow(clippy::print_stderr, reason = "the process ends")]
fn watch() -> ! {
    loop {
        thread::sleep(Duration::from_millis(100));
        let current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((input, since)) = current
            && since.elapsed() > LONGEST
        {
            eprintln!("{input} takes more than {LONGEST:?}");
            process::abort();
        }
    }
}

/// Reads one input, which must not be refused if it is known to be `valid`. Returns what is wrong, with the place where
/// the input was written.
fn check(reader: &Reader, input: &str, bytes: &[u8], valid: bool) -> Option<String> {
    set_current(Some((input.to_owned(), Instant::now())));
    let read = AssertUnwindSafe(|| (reader.read)(bytes));
    let (result, peak) = peak(|| panic::catch_unwind(read));
    set_current(None);
    let problem = match result {
        Err(_) => "panics".to_owned(),
        Ok(_) if peak > MOST_MEMORY => format!("takes {} MiB of memory", peak >> 20),
        Ok(false) if valid => "is refused".to_owned(),
        Ok(_) => return None,
    };
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(input.replace(' ', "-"));
    fs::write(&path, bytes).unwrap();
    Some(format!("{input} {problem}: {}", path.display()))
}

/// How long the environment wants a reader to be tried.
fn wanted(reader: &str) -> Duration {
    let wanted = env::var("RELEQ_DAMAGED").unwrap_or_default();
    let seconds = wanted.split(',').find_map(|part| {
        let (name, seconds) = part.split_once('=')?;
        (name == reader).then(|| seconds.parse().unwrap())
    });
    Duration::from_secs(seconds.unwrap_or(0))
}

#[test]
#[allow(clippy::print_stdout, reason = "shown with --nocapture")]
fn damaged_files_are_refused_in_time_and_memory() {
    thread::spawn(|| watch());
    // What is looked for is found.
    let planted = |read| check(&Reader { name: "", read, seeds: Vec::new }, "planted", b"", true);
    assert_eq!(planted(|_| true), None);
    assert!(planted(|_| false).unwrap().contains("is refused"));
    assert!(planted(|_| panic!("planted")).unwrap().contains("panics"));
    let memory = planted(|_| !vec![1_u8; MOST_MEMORY + 1].is_empty());
    assert!(memory.unwrap().contains("takes 256 MiB"));

    let mut problems = Vec::new();
    for reader in readers::READERS.iter().chain(&searches::SEARCHES) {
        let seeds = (reader.seeds)();
        assert!(!seeds.is_empty(), "{}", reader.name);
        for (number, seed) in seeds.iter().enumerate() {
            problems.extend(check(reader, &format!("{} seed {number}", reader.name), seed, true));
        }
        let longest = seeds.iter().map(Vec::len).max().unwrap_or(1);
        let (begun, wanted) = (Instant::now(), wanted(reader.name));
        let ordinary = (BYTES / longest).clamp(INPUTS[0], INPUTS[1]);
        let mut inputs = 0;
        while inputs < ordinary || (begun.elapsed() < wanted && inputs < MOST_INPUTS) {
            let mut random = ChaCha8Rng::seed_from_u64(inputs as u64);
            let bytes = mutated(&seeds, &mut random);
            let input = format!("{} input {inputs}", reader.name);
            problems.extend(check(reader, &input, &bytes, false));
            inputs += 1;
        }
        println!("{}: {inputs} inputs in {} s", reader.name, begun.elapsed().as_secs());
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}
