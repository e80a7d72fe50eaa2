//! A PostgreSQL server of the survey's own.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A server in a directory of its own, without a network. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    dir: PathBuf,
}

impl Server {
    /// Starts a server. Returns `None` if there is no PostgreSQL on this machine.
    pub(crate) fn start(work: &Path) -> Result<Option<Server>, String> {
        let Some(programs) = programs() else {
            return Ok(None);
        };
        // Not below `work`, whose path may be too long for a socket, or closed to the server's user.
        let dir = std::env::temp_dir().join(format!("greenroom-postgres-{}", std::process::id()));
        let text = |error: std::io::Error| format!("PostgreSQL in {}: {error}", dir.display());
        fs::create_dir_all(work).map_err(text)?;
        fs::create_dir(&dir).map_err(text)?;
        let as_root = fs::metadata(&dir).map_err(text)?.uid() == 0;
        // It refuses to run as root. Debian's package has made a user for it.
        let command = |program: &str| match as_root {
            true => {
                let mut command = Command::new("runuser");
                command
                    .args(["-u", "postgres", "--"])
                    .arg(programs.join(program));
                command
            }
            false => Command::new(programs.join(program)),
        };
        if as_root {
            let id = Command::new("id")
                .args(["-u", "postgres"])
                .output()
                .map_err(text)?;
            let user = String::from_utf8_lossy(&id.stdout).trim().parse();
            let user = user.map_err(|_| "there is no user `postgres`")?;
            chown(&dir, Some(user), None).map_err(text)?;
        }
        let data = dir.join("data");
        let made = command("initdb")
            .args(["--auth=trust", "--no-sync", "--username=survey", "--pgdata"])
            .arg(&data)
            .stdout(Stdio::null())
            .status()
            .map_err(text)?;
        if !made.success() {
            let _ = fs::remove_dir_all(&dir);
            return Err("initdb fails".into());
        }
        let child = command("postgres")
            .arg("-D")
            .arg(&data)
            .args(["-c", "listen_addresses=", "-c", "fsync=off", "-c"])
            .arg(format!("unix_socket_directories={}", dir.display()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(text)?;
        let server = Server { child, dir };
        let deadline = Instant::now() + Duration::from_secs(30);
        while !server.is_ready() {
            if Instant::now() > deadline {
                return Err("PostgreSQL does not start".into());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(Some(server))
    }

    /// What to connect to.
    pub(crate) fn address(&self) -> String {
        format!("host={} user=survey dbname=postgres", self.dir.display())
    }

    /// The number of its process, and its state, from the file that it writes.
    fn state(&self) -> Option<(String, String)> {
        let text = fs::read_to_string(self.dir.join("data/postmaster.pid")).ok()?;
        let mut lines = text.lines().map(|line| line.trim().to_owned());
        Some((lines.next()?, lines.next_back()?))
    }

    fn is_ready(&self) -> bool {
        self.state().is_some_and(|(_, state)| state == "ready")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some((process, _)) = self.state() {
            // SIGINT ends it without waiting for its clients.
            let _ = Command::new("kill").args(["-INT", &process]).status();
        } else {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Where the newest PostgreSQL is, as Debian installs it or in `PATH`.
fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let dirs = versions.filter_map(|entry| Some(entry.ok()?.path().join("bin")));
    let path = std::env::var_os("PATH").unwrap_or_default();
    dirs.chain(std::env::split_paths(&path))
        .filter(|dir| dir.join("initdb").is_file() && dir.join("postgres").is_file())
        .max()
}
