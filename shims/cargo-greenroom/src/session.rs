//! What the command tells the wrapper: a file of lines `key=value`, whose path is in the environment.

use std::env;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use crate::crates::DROP_INS;
use crate::error::{Context, Error, Result, write_if_changed};

/// The environment variable with the path of the session.
pub(crate) const VARIABLE: &str = "CARGO_GREENROOM_SESSION";

/// The environment variable with the directory in which the wrapper notes the packages that do not
/// compile on greenroom's std.
pub(crate) const NOTES_VARIABLE: &str = "CARGO_GREENROOM_NOTES";

/// What the wrapper must know to compile a crate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Session {
    /// The libraries of the facade. `None` while the facade itself is built.
    pub(crate) facade: Option<Built>,
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
    /// All libraries.
    fn libraries(&self) -> impl Iterator<Item = &PathBuf> {
        let all = [
            &self.std,
            &self.threads_std,
            &self.main_std,
            &self.libc,
            &self.rustix,
            &self.greenroom,
        ];
        let patch = self.patch.iter();
        all.into_iter()
            .chain(patch.flat_map(|patch| [&patch.std, &patch.main_std, &patch.library]))
    }
}

impl Session {
    /// A number that changes with whatever makes compiled crates stale: this session, the libraries of
    /// the facade, the drop-ins.
    pub(crate) fn identity(&self) -> Result<String> {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        env!("CARGO_PKG_VERSION").hash(&mut hasher);
        DROP_INS
            .iter()
            .for_each(|drop_in| drop_in.source.hash(&mut hasher));
        if let Some(built) = &self.facade {
            for library in built.libraries() {
                let metadata = fs::metadata(library)
                    .context(|| format!("cannot find {}", library.display()))?;
                metadata.len().hash(&mut hasher);
                metadata.modified().ok().hash(&mut hasher);
            }
        }
        Ok(format!("{:016x}", hasher.finish()))
    }

    /// Whether the file `path` has a session whose identity is the file's name. It has not if what it names was
    /// built again.
    pub(crate) fn is_current(path: &Path) -> bool {
        let session = Session::read(path);
        let identity = session.and_then(|session| session.identity());
        identity.is_ok_and(|identity| path.file_name() == Some(identity.as_ref()))
    }

    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let built = self.facade.clone().unwrap_or_default();
        let chain = self.chain.clone().unwrap_or_default();
        let except = self.except.join(",").into();
        let main = self.main.to_string().into();
        let libc = self.libc.to_string().into();
        let patch = built.patch.clone().unwrap_or_default();
        let lines = [
            ("std", &built.std),
            ("threads-std", &built.threads_std),
            ("main-std", &built.main_std),
            ("libc-library", &built.libc),
            ("rustix", &built.rustix),
            ("greenroom", &built.greenroom),
            ("patched-std", &patch.std),
            ("patched-main-std", &patch.main_std),
            ("patch", &patch.library),
            ("dependencies", &built.dependencies),
            ("except", &except),
            ("main", &main),
            ("libc", &libc),
            ("chain", &chain),
            ("rustdoc", &self.rustdoc),
            ("drop-ins", &self.drop_ins),
        ];
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
        let patch = Patch {
            std: value("patched-std").into(),
            main_std: value("patched-main-std").into(),
            library: value("patch").into(),
        };
        let facade = Built {
            std: value("std").into(),
            threads_std: value("threads-std").into(),
            main_std: value("main-std").into(),
            libc: value("libc-library").into(),
            rustix: value("rustix").into(),
            greenroom: value("greenroom").into(),
            patch: (patch != Patch::default()).then_some(patch),
            dependencies: value("dependencies").into(),
        };
        let except = value("except").split(',').filter(|name| !name.is_empty());
        Ok(Session {
            facade: (facade != Built::default()).then_some(facade),
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
        let full = Session {
            facade: Some(Built {
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
            }),
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
