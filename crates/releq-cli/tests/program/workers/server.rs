//! Servers of NATS that a test starts, kills and starts again.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use serde_json::Value;

/// A process that is killed at the end of the test, whatever that is.
pub(super) struct Killed(pub(super) Child);

impl Killed {
    /// Sends a signal to the process.
    pub(super) fn signal(&self, name: &str) {
        let id = self.0.id().to_string();
        assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        // What it has started as well: `faketime` waits for its program, and does not end it.
        let _ = Command::new("pkill").args(["-KILL", "-P", &self.0.id().to_string()]).status();
        // Not asked to end: a server whose disk is full would not.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A server with JetStream and a folder of its own.
pub(super) struct Server {
    program: PathBuf,
    process: Option<Killed>,
    folder: tempfile::TempDir,
    store: PathBuf,
    port: u16,
    secured: bool,
}

/// The servers that are installed: the one that `NATS_SERVER` names, or else that of the system and the one that the gate
/// has put into the target folder. The test `name` says so where there is none.
#[allow(clippy::print_stderr, reason = "a test that is skipped says so")]
pub(super) fn installed(name: &str) -> Vec<PathBuf> {
    let from_gate = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../nats/bin/nats-server");
    let candidates = match env::var_os("NATS_SERVER") {
        Some(named) => vec![PathBuf::from(named)],
        None => vec!["nats-server".into(), "/usr/sbin/nats-server".into(), from_gate],
    };
    let runs = |path: &PathBuf| {
        let output = Command::new(path).arg("--version").output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let mut found: Vec<(String, PathBuf)> =
        candidates.into_iter().filter_map(|path| Some((runs(&path)?, path))).collect();
    found.dedup_by(|a, b| a.0 == b.0);
    if found.is_empty() {
        eprintln!("skipped: {name}: nats-server not installed");
    }
    found.into_iter().map(|(_, path)| path).collect()
}

impl Server {
    /// A server that anybody may use.
    pub(super) fn start(program: &Path) -> Self {
        Self::with(program, "")
    }

    /// A server with these lines in its configuration.
    pub(super) fn with(program: &Path, configuration: &str) -> Self {
        Self::on(program, configuration, Path::new("store"))
    }

    /// The same with its store there, or at this place in its folder.
    pub(super) fn on(program: &Path, configuration: &str, store: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("server.conf"), configuration).unwrap();
        let secured = configuration.contains("users");
        let (program, store) = (program.to_owned(), folder.path().join(store));
        let mut server = Self { program, process: None, folder, store, port: 0, secured };
        server.launch();
        server
    }

    pub(super) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Starts the server, at the port that it had before.
    pub(super) fn launch(&mut self) {
        let at = |name: &str| self.folder.path().join(name);
        let port = if self.port == 0 { "-1".to_owned() } else { self.port.to_string() };
        // A test that is killed takes its server with it.
        let mut command = match Command::new("setpriv").arg("--version").output() {
            Ok(_) => {
                let mut command = Command::new("setpriv");
                command.args(["--pdeathsig", "KILL"]).arg(&self.program);
                command
            }
            Err(_) => Command::new(&self.program),
        };
        command.arg("-c").arg(at("server.conf")).args(["-js", "-a", "127.0.0.1", "-p", &port]);
        command.arg("-sd").arg(&self.store).arg("--ports_file_dir").arg(self.folder.path());
        command.stdout(Stdio::null()).stderr(fs::File::create(at("log")).unwrap());
        let mut child = command.spawn().unwrap();
        let begun = Instant::now();
        self.port = loop {
            assert!(begun.elapsed() < Duration::from_secs(20), "{}", self.log());
            // "Address already in use" would leave a stranger answering.
            assert!(child.try_wait().unwrap().is_none(), "{}", self.log());
            let ports = fs::read_dir(self.folder.path()).unwrap().flatten().find_map(|entry| {
                let name = entry.file_name().to_string_lossy().into_owned();
                let of_child = name.ends_with(&format!("_{}.ports", child.id()));
                of_child.then(|| fs::read(entry.path()).ok())?
            });
            let ports = ports.and_then(|text| serde_json::from_slice::<Value>(&text).ok());
            if let Some(url) = ports.as_ref().and_then(|ports| ports["nats"][0].as_str()) {
                break url.rsplit(':').next().unwrap().parse().unwrap();
            }
            sleep(Duration::from_millis(5));
        };
        self.process = Some(Killed(child));
    }

    /// Ends the server as a crash does.
    pub(super) fn kill(&mut self) {
        self.process = None;
    }

    /// Removes all that the server has stored.
    pub(super) fn empty(&self) {
        fs::remove_dir_all(&self.store).unwrap();
    }

    /// Sends a signal to the server.
    pub(super) fn signal(&self, name: &str) {
        self.process.as_ref().unwrap().signal(name);
    }

    /// What the server has said.
    pub(super) fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// A client that may do everything, and what runs it.
    pub(super) fn client(&self) -> (tokio::runtime::Runtime, async_nats::jetstream::Context) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let options = if self.secured {
            async_nats::ConnectOptions::with_user_and_password("search".into(), "s-secret".into())
        } else {
            async_nats::ConnectOptions::new()
        };
        let client = runtime.block_on(options.connect(self.url())).unwrap();
        let jetstream = {
            let _entered = runtime.enter();
            async_nats::jetstream::new(client)
        };
        (runtime, jetstream)
    }
}
