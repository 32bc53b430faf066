//! Servers that are away, that come back without what they had, and jobs that nobody wants any more.

use std::{
    process::Stdio,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use super::{
    Alone, SETTINGS, evaluations, finished, finished_within, heard, jobs, remote, remote_with,
    server::{Killed, Server, installed},
    settled, wait, wait_for, worker,
};
use crate::support::releq;

#[test]
fn a_server_that_comes_back_with_an_empty_store_gets_everything_again() {
    let alone = Alone::get();
    for program in installed("a_server_that_comes_back_with_an_empty_store_gets_everything_again") {
        let mut server = Server::start(&program);
        let root = tempfile::tempdir().unwrap();
        let run = root.path().join("run");
        let mut life = Killed(remote(&server, &run, &["--workers-only"]).spawn().unwrap());
        let first = worker(&server, root.path(), "first", &[]);
        wait("evaluations", || (evaluations(&run) > 7).then_some(()));
        server.kill();
        server.empty();
        server.launch();
        drop(first);
        // One that has nothing of the run yet.
        let second = worker(&server, root.path(), "second", &[]);
        finished(&mut life);
        alone.assert_same(&run, "with an empty store");
        drop(second);
    }
}

#[test]
fn a_worker_that_is_to_end_does_not_wait_for_a_server_that_is_away() {
    for program in installed("a_worker_that_is_to_end_does_not_wait_for_a_server_that_is_away") {
        let mut server = Server::start(&program);
        let root = tempfile::tempdir().unwrap();
        let settings = SETTINGS.replace("steps = 30", "steps = 300");
        let run = root.path().join("run");
        let search = remote_with(&settings, &server, &run, &["--workers-only"]).spawn();
        let _search = Killed(search.unwrap());
        let mut helper = worker(&server, root.path(), "helper", &[]);
        heard(root.path(), "helper", "lenet at");
        server.kill();
        helper.signal("-TERM");
        heard(root.path(), "helper", "ending after one job");
        let status = wait("the worker to end", || helper.0.try_wait().unwrap());
        assert_eq!(status.code(), Some(143));
        heard(root.path(), "helper", "the server is away");
    }
}

#[test]
fn a_worker_that_waits_for_a_server_ends_when_it_is_to() {
    for program in installed("a_worker_that_waits_for_a_server_ends_when_it_is_to") {
        let mut server = Server::start(&program);
        let root = tempfile::tempdir().unwrap();
        let mut idle = worker(&server, root.path(), "idle", &[]);
        heard(root.path(), "idle", "no search uses this server yet");
        server.kill();
        let mut early = worker(&server, root.path(), "early", &[]);
        heard(root.path(), "early", "no connection to");
        for worker in [&mut idle, &mut early] {
            worker.signal("-TERM");
            let status = wait("the worker to end", || worker.0.try_wait().unwrap());
            assert_eq!(status.code(), Some(143));
        }
    }
}

#[test]
fn what_a_killed_search_has_left_is_done_after_a_restart_of_the_server() {
    let alone = Alone::get();
    for program in installed("what_a_killed_search_has_left_is_done_after_a_restart_of_the_server")
    {
        let mut server = Server::start(&program);
        let root = tempfile::tempdir().unwrap();
        let run = root.path().join("run");
        let search = Killed(remote(&server, &run, &["--workers-only"]).spawn().unwrap());
        let left = settled(&server);
        drop(search);
        server.kill();
        server.launch();
        assert_eq!(jobs(&server), Some(left));
        let helper = worker(&server, root.path(), "helper", &[]);
        wait("its jobs to be done", || (jobs(&server) == Some(0)).then_some(()));
        finished(&mut Killed(remote(&server, &run, &["--workers-only"]).spawn().unwrap()));
        alone.assert_same(&run, "with what was done meanwhile");
        drop(helper);
    }
}

#[test]
fn workers_that_come_and_go_meanwhile_do_not_keep_the_list_waiting() {
    for program in installed("workers_that_come_and_go_meanwhile_do_not_keep_the_list_waiting") {
        let server = Server::start(&program);
        let root = tempfile::tempdir().unwrap();
        let run = root.path().join("run");
        let search = Killed(remote(&server, &run, &["--workers-only"]).spawn().unwrap());
        settled(&server);
        drop(search);
        let (runtime, jetstream) = server.client();
        // A list that does not end, which fails the test, must not keep this up for ever.
        let (begun, over) = (Instant::now(), AtomicBool::new(false));
        let goes_on = || !over.load(Ordering::Relaxed) && begun.elapsed() < Duration::from_secs(60);
        thread::scope(|scope| {
            scope.spawn(|| {
                runtime.block_on(async {
                    let list = jetstream.get_key_value("RELEQ_WORKERS").await.unwrap();
                    while goes_on() {
                        list.put("one", "{}".into()).await.unwrap();
                        list.purge("one").await.unwrap();
                    }
                });
            });
            for _ in 0..60 {
                let mut listing = releq();
                listing.args(["workers", &server.url()]).stdout(Stdio::null());
                finished_within(Duration::from_secs(20), &mut Killed(listing.spawn().unwrap()));
            }
            over.store(true, Ordering::Relaxed);
        });
    }
}

#[test]
fn retrained_weights_that_are_lost_are_made_again() {
    let alone = Alone::get();
    // Every object waits for its parts for ten seconds: one server is enough.
    for program in installed("retrained_weights_that_are_lost_are_made_again").into_iter().take(1) {
        let server = Server::start(&program);
        let root = tempfile::tempdir().unwrap();
        let helper = worker(&server, root.path(), "helper", &[]);
        let begin = |name: &str| {
            let run = root.path().join(name);
            let search = remote(&server, &run, &["--workers-only"]).spawn().unwrap();
            (run, Killed(search))
        };
        finished(&mut begin("first").1);
        // Their content goes, their descriptions stay.
        let (runtime, jetstream) = server.client();
        runtime.block_on(async {
            let blobs = jetstream.get_stream("OBJ_RELEQ_BLOBS").await.unwrap();
            blobs.purge().filter("$O.RELEQ_BLOBS.C.>").await.unwrap();
        });
        let (run, mut search) = begin("second");
        finished(&mut search);
        alone.assert_same(&run, "with weights made again");
        drop(helper);
    }
}

#[test]
fn a_job_that_no_search_wants_any_more_is_left() {
    for program in installed("a_job_that_no_search_wants_any_more_is_left") {
        let server = Server::start(&program);
        let root = tempfile::tempdir().unwrap();
        let settings = SETTINGS.replace("steps = 30", "steps = 1000000");
        let run = root.path().join("run");
        let search = remote_with(&settings, &server, &run, &["--workers-only"]).spawn();
        let mut search = Killed(search.unwrap());
        let _helper = worker(&server, root.path(), "helper", &[]);
        heard(root.path(), "helper", "short retrain");
        search.signal("-TERM");
        assert_eq!(search.0.wait().unwrap().code(), Some(143));
        heard(root.path(), "helper", "no search wants it any more");
        assert_eq!(jobs(&server), Some(0));
    }
}

#[test]
fn jobs_that_a_server_has_forgotten_are_queued_again() {
    let alone = Alone::get();
    for program in installed("jobs_that_a_server_has_forgotten_are_queued_again") {
        let server = Server::start(&program);
        let root = tempfile::tempdir().unwrap();
        let run = root.path().join("run");
        let mut life = Killed(remote(&server, &run, &["--workers-only"]).spawn().unwrap());
        wait("jobs", || jobs(&server).filter(|jobs| *jobs > 0));
        let (runtime, jetstream) = server.client();
        runtime.block_on(async {
            // After this, servers such as 2.9.10 give out none of the jobs that were queued before.
            let sent = jetstream.publish("releq.jobs.junk", "junk".into()).await.unwrap();
            sent.await.unwrap();
            let stream = jetstream.get_stream("RELEQ_JOBS").await.unwrap();
            stream.purge().filter("releq.jobs.junk").await.unwrap();
        });
        let helper = worker(&server, root.path(), "helper", &[]);
        let limit = Duration::from_secs(120);
        let status = wait_for(limit, "the search to end", || life.0.try_wait().unwrap());
        assert!(status.success(), "{status}");
        alone.assert_same(&run, "with jobs that were forgotten");
        assert_eq!(jobs(&server), Some(0));
        drop(helper);
    }
}
