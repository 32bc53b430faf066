//! Searches whose retrains other processes carry out, over a server of NATS, and what goes wrong there.

mod absent;
mod disk;
mod kills;
mod machines;
mod sent;
mod server;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::OnceLock,
    thread::sleep,
    time::{Duration, Instant},
};

use async_nats::jetstream::{consumer::PullConsumer, kv, object_store::ObjectMetadata};
use futures_util::StreamExt;
use releq::format::safetensors;
use server::{Killed, Server, installed};

use crate::{
    searches::report,
    support::{releq, text},
};

/// A search whose retrains take long enough to be killed in.
const SETTINGS: &str = r#"
validation = 60
search_validation = 40
finalists = 1
seeds = 1
sensitivity_images = 20
compare = false
agent = "random"
[data.digits]
train = 400
test = 60
[budget]
evaluations = 12
[pretrain]
batch_size = 20
length = { steps = 60 }
[short_retrain]
batch_size = 20
length = { steps = 30 }
[long_retrain]
batch_size = 20
length = { steps = 20 }
"#;

/// The settings, and a run by this process alone, made once.
struct Alone {
    folder: tempfile::TempDir,
}

impl Alone {
    fn get() -> &'static Self {
        static ALONE: OnceLock<Alone> = OnceLock::new();
        ALONE.get_or_init(|| Self::with(SETTINGS, &[]))
    }

    /// With other settings, and further options.
    fn with(settings: &str, options: &[&str]) -> Self {
        let alone = Self { folder: tempfile::tempdir().unwrap() };
        fs::write(alone.settings(), settings).unwrap();
        let output = search(&alone.run()).args(options).output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
        alone
    }

    fn settings(&self) -> PathBuf {
        self.folder.path().join("run.toml")
    }

    fn run(&self) -> PathBuf {
        self.folder.path().join("alone")
    }

    /// The run has the same report and the same weights.
    fn assert_same(&self, run: &Path, what: &str) {
        assert_eq!(report(run), report(&self.run()), "{what}");
        let weights = |run: &Path| safetensors::read_tensors(run.join("best.safetensors")).unwrap();
        assert_eq!(weights(run), weights(&self.run()), "{what}");
    }
}

fn search(run: &Path) -> Command {
    let mut command = releq();
    command.args(["search", "lenet", "--threads", "1"]);
    command.arg("--config").arg(run.parent().unwrap().join("run.toml")).arg("--run").arg(run);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A search by workers alone, or beside them.
fn remote(server: &Server, run: &Path, options: &[&str]) -> Command {
    remote_with(SETTINGS, server, run, options)
}

fn remote_with(settings: &str, server: &Server, run: &Path, options: &[&str]) -> Command {
    fs::write(run.parent().unwrap().join("run.toml"), settings).unwrap();
    let mut command = search(run);
    command.args(["--workers", &server.url(), "--lease", "2"]).args(options);
    command
}

/// A worker that writes what it says into a file.
fn worker(server: &Server, folder: &Path, name: &str, options: &[&str]) -> Killed {
    let mut command = releq();
    command.args(["worker", &server.url(), "--threads", "1", "--worker-name", name]);
    command.arg("--cache-dir").arg(folder.join(format!("{name}-cache"))).args(options);
    let said = fs::File::create(folder.join(name)).unwrap();
    Killed(command.stdout(Stdio::null()).stderr(said).spawn().unwrap())
}

/// Waits until a worker has said something; gives all that it has said.
fn heard(folder: &Path, name: &str, expected: &str) -> String {
    wait(&format!("{name} to say `{expected}`"), || {
        let said = fs::read_to_string(folder.join(name)).unwrap();
        said.contains(expected).then_some(said)
    })
}

fn wait<T>(what: &str, there: impl FnMut() -> Option<T>) -> T {
    wait_for(Duration::from_secs(60), what, there)
}

fn wait_for<T>(limit: Duration, what: &str, mut there: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(value) = there() {
            return value;
        }
        assert!(begun.elapsed() < limit, "waited for {what}");
        sleep(Duration::from_millis(10));
    }
}

/// Waits for a search to end well, but not for ever where nobody does its jobs.
fn finished(life: &mut Killed) {
    finished_within(Duration::from_secs(300), life);
}

fn finished_within(limit: Duration, life: &mut Killed) {
    let status = wait_for(limit, "the program to end", || life.0.try_wait().unwrap());
    assert!(status.success(), "{status}");
}

fn succeeded(output: &Output) {
    assert!(output.status.success(), "{}", text(output));
}

/// How many jobs are at a server, those that somebody is at among them; `None` before there is a queue.
fn jobs(server: &Server) -> Option<usize> {
    let listed = text(&releq().args(["workers", &server.url()]).output().unwrap());
    let words: Vec<_> = listed.split_whitespace().collect();
    let place = words.iter().position(|word| word.starts_with("job"))?;
    words[place - 1].parse().ok()
}

/// How many jobs a search has asked for when it waits for answers.
fn settled(server: &Server) -> usize {
    wait("a number of jobs that stays", || {
        let before = jobs(server).filter(|jobs| *jobs > 0)?;
        sleep(Duration::from_secs(1));
        (jobs(server) == Some(before)).then_some(before)
    })
}

/// How many lines of a run's journal of evaluations there are.
fn evaluations(run: &Path) -> usize {
    fs::read_to_string(run.join("evaluations.jsonl")).unwrap_or_default().lines().count()
}

#[test]
fn any_number_of_workers_gives_the_same_report() {
    let alone = Alone::get();
    for program in installed("any_number_of_workers_gives_the_same_report") {
        let server = Server::start(&program);
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        let listed = text(&releq().args(["workers", &server.url()]).output().unwrap());
        assert!(listed.contains("no search has used this server yet"), "{listed}");
        // No worker but the process itself, which takes its jobs from the queue.
        succeeded(&remote(&server, &at("none"), &[]).output().unwrap());
        alone.assert_same(&at("none"), "no worker");

        // The answers are there already; without them, two workers and the process itself.
        let again = Server::start(&program);
        let workers = ["one", "two"].map(|name| worker(&again, root.path(), name, &[]));
        succeeded(&remote(&again, &at("beside"), &[]).output().unwrap());
        alone.assert_same(&at("beside"), "two workers and the process");
        let listed = releq().args(["workers", &again.url()]).output().unwrap();
        let listed = text(&listed);
        assert!(listed.contains("one") && listed.contains("2 workers"), "{listed}");
        // Asked to end, they end in good order and leave the list.
        for mut worker in workers {
            worker.signal("-TERM");
            assert_eq!(worker.0.wait().unwrap().code(), Some(143));
        }
        let listed = text(&releq().args(["workers", &again.url()]).output().unwrap());
        assert!(listed.contains("0 workers, 0 jobs"), "{listed}");
    }
}

#[test]
fn deaths_of_workers_server_and_search_change_nothing() {
    let alone = Alone::get();
    for program in installed("deaths_of_workers_server_and_search_change_nothing") {
        let mut server = Server::start(&program);
        let root = tempfile::tempdir().unwrap();
        let run = root.path().join("run");
        let only = ["--workers-only"];
        let mut life = Killed(remote(&server, &run, &only).spawn().unwrap());
        // A worker is killed in mid-evaluation, when it has shown that it works; another one takes over.
        let first = worker(&server, root.path(), "first", &[]);
        let said = heard(root.path(), "first", "done in");
        let begun = said.matches("lenet at").count();
        wait("the next job", || {
            let said = fs::read_to_string(root.path().join("first")).unwrap();
            (said.matches("lenet at").count() > begun).then_some(())
        });
        drop(first);
        let second = worker(&server, root.path(), "second", &[]);
        heard(root.path(), "second", "done in");
        // The search is killed, and goes on.
        life.0.kill().unwrap();
        life.0.wait().unwrap();
        let before = evaluations(&run);
        assert!((1..12).contains(&before), "{before} evaluations");
        let mut life = Killed(remote(&server, &run, &only).spawn().unwrap());
        wait("an evaluation", || (evaluations(&run) > before).then_some(()));
        // The server is killed and restarted, and stands still for a while.
        server.kill();
        sleep(Duration::from_millis(500));
        server.launch();
        let before = evaluations(&run);
        wait("an evaluation", || (evaluations(&run) > before || before == 12).then_some(()));
        server.signal("-STOP");
        sleep(Duration::from_secs(4));
        server.signal("-CONT");
        finished(&mut life);
        drop(second);
        alone.assert_same(&run, "after deaths");
    }
}

#[test]
fn a_run_goes_on_without_its_workers_and_with_them() {
    let alone = Alone::get();
    for program in installed("a_run_goes_on_without_its_workers_and_with_them") {
        let server = Server::start(&program);
        let root = tempfile::tempdir().unwrap();
        let helper = worker(&server, root.path(), "helper", &[]);
        let run = root.path().join("run");
        let mut life = Killed(remote(&server, &run, &["--workers-only"]).spawn().unwrap());
        wait("evaluations", || (evaluations(&run) > 2).then_some(()));
        life.0.kill().unwrap();
        life.0.wait().unwrap();
        let count = evaluations(&run);
        // Alone, until there is something new.
        let mut life = Killed({
            let mut resume = releq();
            resume.arg("resume").arg(&run).args(["--threads", "1"]);
            resume.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
        });
        wait("evaluations", || (evaluations(&run) > count).then_some(()));
        life.0.kill().unwrap();
        life.0.wait().unwrap();
        let mut resume = releq();
        resume.arg("resume").arg(&run).args(["--workers", &server.url(), "--workers-only"]);
        succeeded(&resume.output().unwrap());
        drop(helper);
        alone.assert_same(&run, "resumed without and with workers");
    }
}

#[test]
fn a_search_that_ends_early_takes_its_own_jobs_from_the_queue_and_no_other() {
    let alone = Alone::get();
    for program in
        installed("a_search_that_ends_early_takes_its_own_jobs_from_the_queue_and_no_other")
    {
        let server = Server::start(&program);
        let root = tempfile::tempdir().unwrap();
        let jobs = || jobs(&server);
        // All that it asks for before it has an answer.
        let run = root.path().join("run");
        let mut stays = Killed(remote(&server, &run, &["--workers-only"]).spawn().unwrap());
        let asked = settled(&server);
        let other = root.path().join("other");
        let options = ["--workers-only", "--seed", "2"];
        let mut leaves = Killed(remote(&server, &other, &options).spawn().unwrap());
        wait("as many jobs of another search", || (jobs() == Some(2 * asked)).then_some(()));
        leaves.signal("-TERM");
        assert_eq!(leaves.0.wait().unwrap().code(), Some(143));
        wait("its jobs to go", || (jobs() == Some(asked)).then_some(()));
        let helper = worker(&server, root.path(), "helper", &[]);
        heard(root.path(), "helper", "done in");
        finished(&mut stays);
        alone.assert_same(&run, "beside one that left");
        drop(helper);
    }
}

/// What a client that means no good, or is broken, can put on the server.
#[test]
fn what_is_no_job_no_answer_or_no_weights_is_found_out() {
    let alone = Alone::get();
    for program in installed("what_is_no_job_no_answer_or_no_weights_is_found_out") {
        let server = Server::start(&program);
        let root = tempfile::tempdir().unwrap();
        let run = root.path().join("run");
        let mut life = Killed(remote(&server, &run, &["--workers-only"]).spawn().unwrap());
        let (runtime, jetstream) = server.client();

        // A job that somebody takes and never finishes, as a worker that hangs.
        let taken = wait("the queue", || {
            runtime.block_on(async {
                let jobs: PullConsumer =
                    jetstream.get_consumer_from_stream("workers", "RELEQ_JOBS").await.ok()?;
                let mut batch = jobs
                    .batch()
                    .max_messages(1)
                    .expires(Duration::from_millis(500))
                    .messages()
                    .await
                    .ok()?;
                batch.next().await?.ok()
            })
        });
        // Weights that are not what their name says.
        runtime.block_on(async {
            let blobs = jetstream.get_object_store("RELEQ_BLOBS").await.unwrap();
            let mut list = blobs.list().await.unwrap();
            let mut names = Vec::new();
            while let Some(object) = list.next().await {
                let object = object.unwrap();
                names.push((object.size, object.name));
            }
            let (_, weights) = names.into_iter().max().unwrap();
            let metadata = ObjectMetadata { name: weights, ..ObjectMetadata::default() };
            blobs.put(metadata, &mut &b"no weights at all"[..]).await.unwrap();
            // Messages that are no jobs.
            let publish = async |name: &str, content: &'static str| {
                let subject = format!("releq.jobs.{name}");
                let sent = jetstream.publish(subject, content.into()).await.unwrap();
                sent.await.unwrap();
            };
            publish("nonsense", "hello").await;
            publish("later", r#"{"protocol": 9, "what": "ever"}"#).await;
        });
        let helper = worker(&server, root.path(), "helper", &[]);
        heard(root.path(), "helper", "damaged");
        heard(root.path(), "helper", "that is no job is removed");
        let said = heard(root.path(), "helper", "protocol 9");
        assert!(said.contains("this worker speaks 3"), "{said}");
        // It pauses after what it cannot do, and another one need not.
        let other = worker(&server, root.path(), "other", &[]);
        heard(root.path(), "other", "done in");
        runtime.block_on(async {
            // Not purged by its subject, after which old servers give out no job that was queued before.
            let jobs = jetstream.get_stream("RELEQ_JOBS").await.unwrap();
            let later = jobs.get_last_raw_message_by_subject("releq.jobs.later").await.unwrap();
            jobs.delete_message(later.sequence).await.unwrap();
        });
        finished(&mut life);
        alone.assert_same(&run, "with all that");

        // The answer of the worker that hung comes too late.
        let late = taken.message.subject.rsplit('.').next().unwrap();
        let results = runtime.block_on(jetstream.get_key_value("RELEQ_RESULTS")).unwrap();
        let error = runtime.block_on(results.create(late, "0.1".into())).unwrap_err();
        assert_eq!(error.kind(), kv::CreateErrorKind::AlreadyExists);

        // A job that has its answer is taken from the queue and not done again.
        let before = runtime.block_on(results.entry(late)).unwrap().unwrap();
        runtime.block_on(async {
            let sent = jetstream.publish(taken.subject.clone(), taken.payload.clone()).await;
            sent.unwrap().await.unwrap();
        });
        wait("the queue to be empty", || (jobs(&server) == Some(0)).then_some(()));
        let after = runtime.block_on(results.entry(late)).unwrap().unwrap();
        assert_eq!((after.revision, after.value), (before.revision, before.value));

        // Answers that belong to another job, and such as are none.
        runtime.block_on(async {
            let keys: Vec<_> = results.keys().await.unwrap().collect().await;
            let keys: Vec<String> = keys.into_iter().map(Result::unwrap).collect();
            let swapped = results.get(&keys[0]).await.unwrap().unwrap();
            results.put(&keys[1], swapped).await.unwrap();
            results.put(&keys[2], "nonsense".into()).await.unwrap();
        });
        let again = root.path().join("again");
        let output = remote(&server, &again, &["--workers-only"]).output().unwrap();
        succeeded(&output);
        assert!(text(&output).contains("is no answer"), "{}", text(&output));
        alone.assert_same(&again, "after answers that were none");
        drop((helper, other));
    }
}

#[test]
fn rights_are_those_of_the_documentation_and_missing_ones_are_named() {
    let alone = Alone::get();
    let documentation =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/remote.md"));
    let Ok(documentation) = documentation else { return };
    let users = documentation.split("```text\n").find(|block| block.contains("authorization"));
    let users = users.unwrap().split("```").next().unwrap();
    // The folder for the store is the test's own.
    let users = &users[users.find("authorization").unwrap()..];
    for program in installed("rights_are_those_of_the_documentation_and_missing_ones_are_named") {
        let without = users.replace("\"$KV.RELEQ_RESULTS.>\", ", "");
        assert_ne!(without, users);
        let root = tempfile::tempdir().unwrap();
        for (file, secret) in [
            ("search.creds", "search:s-secret"),
            ("worker.creds", "worker:w-secret"),
            ("wrong", "worker:x"),
        ] {
            fs::write(root.path().join(file), secret).unwrap();
        }
        let creds = |name: &str| root.path().join(name).to_str().unwrap().to_owned();
        let run = root.path().join("run");
        let server = Server::with(&program, users);
        let options = ["--workers-only", "--creds", &creds("search.creds")];
        let mut life = Killed(remote(&server, &run, &options).spawn().unwrap());
        // Without credentials, or with wrong ones, nobody gets in.
        for options in [&[][..], &["--creds", &creds("wrong")]] {
            let output = releq().args(["workers", &server.url()]).args(options).output().unwrap();
            let said = text(&output);
            assert!(!output.status.success() && said.contains("--creds"), "{said}");
            assert!(!said.contains("secret") && !said.contains("worker:x"), "{said}");
        }
        let helper = worker(&server, root.path(), "helper", &["--creds", &creds("worker.creds")]);
        finished(&mut life);
        alone.assert_same(&run, "with rights");
        drop(helper);

        let server = Server::with(&program, &without);
        let run = root.path().join("weak");
        let _life = Killed(remote(&server, &run, &options).spawn().unwrap());
        let mut weak =
            worker(&server, root.path(), "weak-one", &["--creds", &creds("worker.creds")]);
        assert_eq!(weak.0.wait().unwrap().code(), Some(1));
        let said = fs::read_to_string(root.path().join("weak-one")).unwrap();
        assert!(said.contains("does not permit") && said.contains("RELEQ_RESULTS"), "{said}");
    }
}

#[test]
fn a_server_without_storage_is_named() {
    for program in installed("a_server_without_storage_is_named") {
        let root = tempfile::tempdir().unwrap();
        let full = Server::with(&program, "jetstream { max_file_store: 1M }\n");
        let output = remote(&full, &root.path().join("run"), &[]).output().unwrap();
        let said = text(&output);
        assert!(!output.status.success() && said.contains("its storage is full"), "{said}");
    }
}

#[test]
fn addresses_with_secrets_and_servers_that_are_none_are_refused() {
    let refused = |arguments: &[&str], expected: &str| {
        let output = releq().args(arguments).output().unwrap();
        let said = text(&output);
        assert!(!output.status.success() && said.contains(expected), "{said}");
        assert!(!said.contains("geheim"), "{said}");
    };
    refused(&["workers", "nats://ann:geheim@localhost"], "credentials");
    refused(&["worker", "localhost:4222"], "nats://HOST:PORT");
    refused(
        &["worker", "nats://localhost:1", "--creds", "/nonexistent/creds"],
        "/nonexistent/creds",
    );
    refused(&["worker", "nats://localhost:1", "--tls-ca", "/nonexistent/ca"], "/nonexistent/ca");
    refused(&["search", "lenet", "--workers-only"], "--workers");
}
