//! Workers, servers and searches that are killed at random moments.
//!
//! `RELEQ_KILLS=200 cargo test --workspace --test program workers::kills -- --nocapture` kills two hundred times, in runs of a
//! hundred evaluations, each with 30 seconds in which the server stands still, and says what it has killed.

use std::{
    path::Path,
    thread::sleep,
    time::{Duration, Instant},
};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{
    Alone, SETTINGS, evaluations, finished, remote_with,
    server::{Killed, Server, installed},
    wait, worker,
};
use crate::kills::kills;

/// More kills than this need a longer run.
const FEW: usize = 20;

/// Two workers, the server and the search of one run.
struct Cast {
    server: Server,
    workers: [Killed; 2],
    search: Killed,
}

const WORKERS: [&str; 2] = ["first", "second"];

fn cast(program: &Path, folder: &Path, settings: &str) -> Cast {
    let server = Server::start(program);
    let workers = WORKERS.map(|name| worker(&server, folder, name, &[]));
    let search = begun(&server, folder, settings);
    Cast { server, workers, search }
}

fn begun(server: &Server, folder: &Path, settings: &str) -> Killed {
    let mut search = remote_with(settings, server, &folder.join("run"), &["--workers-only"]);
    // Nobody reads what it says.
    search.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    Killed(search.spawn().unwrap())
}

#[test]
#[allow(clippy::print_stderr, reason = "what was killed is worth knowing")]
fn random_kills_of_workers_server_and_search_change_nothing() {
    let kills = kills();
    let programs = installed("random_kills_of_workers_server_and_search_change_nothing");
    if programs.is_empty() {
        return;
    }
    let count = if kills > FEW { "evaluations = 100" } else { "evaluations = 12" };
    let settings = SETTINGS.replace("evaluations = 12", count);
    let long = (kills > FEW).then(|| Alone::with(&settings, &[]));
    let alone = long.as_ref().unwrap_or_else(|| Alone::get());
    for program in programs {
        let begun_at = Instant::now();
        let mut rng = ChaCha8Rng::seed_from_u64(kills as u64);
        let (mut left, mut runs, mut killed) = (kills, 0, [0; 3]);
        while left > 0 {
            runs += 1;
            let root = tempfile::tempdir().unwrap();
            let run = root.path().join("run");
            let mut cast = cast(&program, root.path(), &settings);
            // Until something can be lost.
            wait("the first evaluation", || (evaluations(&run) > 0).then_some(()));
            let mut still = kills > FEW;
            while left > 0 && cast.search.0.try_wait().unwrap().is_none() {
                sleep(Duration::from_millis(rng.random_range(1..800)));
                if std::mem::take(&mut still) {
                    // Longer than any call is waited for, and than the lease.
                    cast.server.signal("-STOP");
                    sleep(Duration::from_secs(30));
                    cast.server.signal("-CONT");
                }
                let before = evaluations(&run);
                match rng.random_range(0..4) {
                    0 => {
                        if cast.search.0.try_wait().unwrap().is_some() {
                            break;
                        }
                        cast.search.0.kill().unwrap();
                        cast.search.0.wait().unwrap();
                        cast.search = begun(&cast.server, root.path(), &settings);
                        killed[0] += 1;
                    }
                    1 => {
                        cast.server.kill();
                        sleep(Duration::from_millis(rng.random_range(0..500)));
                        cast.server.launch();
                        killed[1] += 1;
                    }
                    which => {
                        let place = which % 2;
                        let over = cast.workers[place].0.try_wait().unwrap();
                        assert!(over.is_none(), "{} has ended by itself", WORKERS[place]);
                        cast.workers[place].0.kill().unwrap();
                        cast.workers[place] =
                            worker(&cast.server, root.path(), WORKERS[place], &[]);
                        killed[2] += 1;
                    }
                }
                left -= 1;
                assert!(evaluations(&run) >= before, "what was on record is lost");
            }
            finished(&mut cast.search);
            alone.assert_same(&run, &format!("run {runs}"));
        }
        let [searches, servers, workers] = killed;
        eprintln!(
            "{}: {searches} searches, {servers} servers and {workers} workers killed in {runs} runs, {:.0} s",
            program.display(),
            begun_at.elapsed().as_secs_f64()
        );
    }
}
