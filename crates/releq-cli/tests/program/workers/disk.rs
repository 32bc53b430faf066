//! A server whose disk fills up.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use super::{
    Alone, evaluations, finished, heard, remote,
    server::{Killed, Server, installed},
    wait, wait_for, worker,
};

/// A file system in memory, gone when it is dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// One of so many megabytes, where this user may have one.
    #[allow(clippy::print_stderr, reason = "a test that is skipped says so")]
    fn mount(megabytes: u32, test: &str) -> Option<Self> {
        let disk = Self(tempfile::tempdir().unwrap());
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={megabytes}m"), "tmpfs"])
            .arg(disk.0.path())
            .output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(disk);
        }
        eprintln!("skipped: {test}: no file system can be mounted here");
        None
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn filler(&self) -> PathBuf {
        self.path().join("filler")
    }

    /// Leaves nothing.
    fn fill(&self) {
        let output = Command::new("dd")
            .args(["if=/dev/zero", "bs=4096"])
            .arg(format!("of={}", self.filler().display()))
            .output()
            .unwrap();
        assert!(!output.status.success(), "the disk is full");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).output();
    }
}

/// The server does not know that its disk is full, so that calls time out. Nothing is lost, and with room and a restart of
/// the server the run goes on.
#[test]
fn a_server_whose_disk_is_full_is_named_and_the_run_goes_on_with_room() {
    let name = "a_server_whose_disk_is_full_is_named_and_the_run_goes_on_with_room";
    let alone = Alone::get();
    for program in installed(name) {
        let Some(disk) = SmallDisk::mount(24, name) else { return };
        // More than there is, so that the server does not refuse by itself.
        let mut server =
            Server::on(&program, "jetstream { max_file_store: 1G }\n", &disk.path().join("store"));
        let root = tempfile::tempdir().unwrap();
        let run = root.path().join("run");
        let mut search = remote(&server, &run, &["--workers-only"]);
        search.stderr(fs::File::create(root.path().join("search")).unwrap());
        let mut life = Killed(search.spawn().unwrap());
        let helper = worker(&server, root.path(), "helper", &[]);
        wait("evaluations", || (evaluations(&run) > 1).then_some(()));
        disk.fill();
        let hint = "its disk may be full";
        wait_for(Duration::from_secs(120), "somebody to name the disk", || {
            let said = |name: &str| fs::read_to_string(root.path().join(name)).unwrap();
            (said("search").contains(hint) || said("helper").contains(hint)).then_some(())
        });
        assert!(life.0.try_wait().unwrap().is_none(), "the search waits");
        let before = evaluations(&run);
        fs::remove_file(disk.filler()).unwrap();
        // 2.9 does not even end when it is asked to.
        server.kill();
        server.launch();
        wait("an evaluation", || (evaluations(&run) > before || before == 12).then_some(()));
        finished(&mut life);
        heard(root.path(), "helper", "done in");
        alone.assert_same(&run, "after a full disk");
        drop(helper);
    }
}
