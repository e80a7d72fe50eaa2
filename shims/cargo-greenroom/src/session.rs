//! What the command tells the wrapper: a file of lines `key=value`, whose path is in the environment.

use std::env;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::error::{Context, Error, Result, write_if_changed};

/// The environment variable with the path of the session.
pub(crate) const VARIABLE: &str = "CARGO_GREENROOM_SESSION";

/// Precedes the keys of [`Session::unwinding`].
const UNWINDING: &str = "unwinding-";

/// A number that changes with this program.
pub(crate) fn program_identity() -> Result<u64> {
    static IDENTITY: OnceLock<u64> = OnceLock::new();
    if let Some(identity) = IDENTITY.get() {
        return Ok(*identity);
    }
    let program = env::current_exe().and_then(fs::read);
    let program = program.context(|| "cannot read this program".into())?;
    let mut hasher = DefaultHasher::new();
    program.hash(&mut hasher);
    Ok(*IDENTITY.get_or_init(|| hasher.finish()))
}

/// What the wrapper must know to compile a crate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Session {
    /// The libraries of the facade. `None` while the facade itself is built.
    pub(crate) facade: Option<Built>,
    /// The same libraries for crates that unwind, if those above abort on panic. Tests and benches unwind in
    /// any profile.
    pub(crate) unwinding: Option<Built>,
    /// Names of packages that keep the real std.
    pub(crate) except: Vec<String>,
    /// The main functions of executables run as coroutines.
    pub(crate) main: bool,
    /// Executables have the patch of the C library.
    pub(crate) libc: bool,
    /// The compiler wrapper that the user has set, if any. Our wrapper calls it with the compiler.
    pub(crate) chain: Option<PathBuf>,
    /// The real rustdoc, which the wrapper calls.
    pub(crate) rustdoc: PathBuf,
    /// The directory with the sources that replace those of packages. Each file has the name of its package.
    pub(crate) drop_ins: PathBuf,
}

/// The libraries of the facade.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Built {
    /// The library that is `std`.
    pub(crate) std: PathBuf,
    /// The library that is `std` for packages whose threads stay OS threads.
    pub(crate) threads_std: PathBuf,
    /// The library that is `std` for executables whose main function runs as a coroutine.
    pub(crate) main_std: PathBuf,
    /// The library that is `libc` for packages that wait in a poll.
    pub(crate) libc: PathBuf,
    /// The library that is `rustix` for packages that wait in a poll.
    pub(crate) rustix: PathBuf,
    /// The library that is `greenroom`.
    pub(crate) greenroom: PathBuf,
    /// The libraries with the patch of the C library, if the program needs them.
    pub(crate) patch: Option<Patch>,
    /// The directory of the libraries that these depend on.
    pub(crate) dependencies: PathBuf,
}

/// The libraries of the facade that have the patch of the C library.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Patch {
    /// The library that is `std` for executables.
    pub(crate) std: PathBuf,
    /// The library that is `std` for executables whose main function runs as a coroutine.
    pub(crate) main_std: PathBuf,
    /// The library that is `greenroom-patch`.
    pub(crate) library: PathBuf,
}

impl Built {
    /// The paths, by their keys in the file of a session.
    fn paths(&self) -> Vec<(&'static str, &Path)> {
        let mut paths = vec![
            ("std", &*self.std),
            ("threads-std", &*self.threads_std),
            ("main-std", &*self.main_std),
            ("libc-library", &*self.libc),
            ("rustix", &*self.rustix),
            ("greenroom", &*self.greenroom),
            ("dependencies", &*self.dependencies),
        ];
        if let Some(patch) = &self.patch {
            paths.extend([
                ("patched-std", &*patch.std),
                ("patched-main-std", &*patch.main_std),
                ("patch", &*patch.library),
            ]);
        }
        paths
    }

    /// Reads the paths by their keys. `None` if there are none.
    fn read(path: impl Fn(&str) -> PathBuf) -> Option<Built> {
        let patch = Patch {
            std: path("patched-std"),
            main_std: path("patched-main-std"),
            library: path("patch"),
        };
        let built = Built {
            std: path("std"),
            threads_std: path("threads-std"),
            main_std: path("main-std"),
            libc: path("libc-library"),
            rustix: path("rustix"),
            greenroom: path("greenroom"),
            patch: (patch != Patch::default()).then_some(patch),
            dependencies: path("dependencies"),
        };
        (built != Built::default()).then_some(built)
    }
}

impl Session {
    /// A number that changes with whatever makes compiled crates stale: this session, the libraries of
    /// the facade, this program with its drop-ins.
    ///
    /// [`unwinding`](Session::unwinding) does not count. A command builds it after `facade`, from the same
    /// sources. And what is built with tests must not be stale for a command without.
    pub(crate) fn identity(&self) -> Result<String> {
        let mut hasher = DefaultHasher::new();
        let counted = Session {
            unwinding: None,
            ..self.clone()
        };
        counted.hash(&mut hasher);
        program_identity()?.hash(&mut hasher);
        for (_, path) in self.facade.iter().flat_map(Built::paths) {
            let metadata =
                fs::metadata(path).context(|| format!("cannot find {}", path.display()))?;
            // The directory of the dependencies changes with any build.
            if metadata.is_file() {
                metadata.len().hash(&mut hasher);
                metadata.modified().ok().hash(&mut hasher);
            }
        }
        Ok(format!("{:016x}", hasher.finish()))
    }

    /// The name of the session's file. Another command may run at the same time, with another session.
    pub(crate) fn name(&self) -> Result<String> {
        let unwinding = self.unwinding.as_ref().map_or("", |_| "-unwinding");
        Ok(self.identity()? + unwinding)
    }

    /// Whether the file `path` has a session of the file's name. It has not if what it names was built again.
    pub(crate) fn is_current(path: &Path) -> bool {
        let session = Session::read(path);
        let name = session.and_then(|session| session.name());
        name.is_ok_and(|name| path.file_name() == Some(name.as_ref()))
    }

    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let mut lines: Vec<(String, &Path)> = Vec::new();
        for (prefix, built) in [("", &self.facade), (UNWINDING, &self.unwinding)] {
            let paths = built.iter().flat_map(Built::paths);
            lines.extend(paths.map(|(key, path)| (format!("{prefix}{key}"), path)));
        }
        let except = self.except.join(",");
        let (main, libc) = (self.main.to_string(), self.libc.to_string());
        let chain = self.chain.clone().unwrap_or_default();
        for (key, value) in [
            ("except", Path::new(&except)),
            ("main", Path::new(&main)),
            ("libc", Path::new(&libc)),
            ("chain", &chain),
            ("rustdoc", &self.rustdoc),
            ("drop-ins", &self.drop_ins),
        ] {
            lines.push((key.into(), value));
        }
        let mut text = String::new();
        for (key, value) in lines {
            let value = value.to_str().filter(|value| !value.contains('\n'));
            let value = value.ok_or_else(|| {
                Error::new(format!(
                    "cargo greenroom cannot use a path that is not UTF-8 or has a line break ({key})"
                ))
            })?;
            text += &format!("{key}={value}\n");
        }
        write_if_changed(path, text.as_bytes())
    }

    /// The session of the command that this wrapper works for.
    pub(crate) fn of_environment() -> Result<Session> {
        let path = env::var_os(VARIABLE)
            .ok_or_else(|| Error::new("this is the compiler wrapper of `cargo greenroom`, which only cargo greenroom can call"))?;
        Session::read(Path::new(&path))
    }

    fn read(path: &Path) -> Result<Session> {
        let text = fs::read_to_string(path)
            .context(|| format!("cannot read the session {}", path.display()))?;
        let value = |key: &str| {
            let mut lines = text.lines().filter_map(|line| line.split_once('='));
            let found = lines.find(|(name, _)| *name == key).map(|(_, value)| value);
            found.unwrap_or_default()
        };
        let except = value("except").split(',').filter(|name| !name.is_empty());
        Ok(Session {
            facade: Built::read(|key| value(key).into()),
            unwinding: Built::read(|key| value(&format!("{UNWINDING}{key}")).into()),
            except: except.map(str::to_owned).collect(),
            main: value("main") == "true",
            libc: value("libc") == "true",
            chain: Some(value("chain"))
                .filter(|chain| !chain.is_empty())
                .map(PathBuf::from),
            rustdoc: value("rustdoc").into(),
            drop_ins: value("drop-ins").into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_read_as_it_was_written() {
        let path = env::temp_dir().join(format!("greenroom-session-{}", std::process::id()));
        let built = Built {
            std: "/a/libstd.rlib".into(),
            threads_std: "/a/libthreads.rlib".into(),
            main_std: "/a/libmain.rlib".into(),
            libc: "/a/liblibc.rlib".into(),
            rustix: "/a/librustix.rlib".into(),
            greenroom: "/a=b/libgreenroom.rlib".into(),
            patch: Some(Patch {
                std: "/a/libpatched.rlib".into(),
                main_std: "/a/libpatched_main.rlib".into(),
                library: "/a/libpatch.rlib".into(),
            }),
            dependencies: "/a/deps".into(),
        };
        let full = Session {
            unwinding: Some(Built {
                std: "/a/libunwinding.rlib".into(),
                patch: None,
                ..built.clone()
            }),
            facade: Some(built),
            except: vec!["tokio".into(), "mio".into()],
            main: true,
            libc: true,
            chain: Some("/usr/bin/cache".into()),
            rustdoc: "rustdoc".into(),
            drop_ins: "/a/drop-ins".into(),
        };
        for session in [Session::default(), full] {
            session.write(&path).unwrap();
            assert_eq!(Session::read(&path).unwrap(), session);
        }
        fs::remove_file(path).unwrap();
    }
}
