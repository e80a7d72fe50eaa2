//! The facade: greenroom's shims under the name of std, built for the program's target and profile.
//!
//! [`Plan::build`] writes a few small packages, which depend on `greenroom` and `greenroom-std`. cargo builds
//! them in a directory of their own, with the program's profiles, configuration and environment. So one build
//! makes all the libraries that crates of the program may get as their `std`.

use std::env;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use cargo_metadata::Message;
use toml::{Table, Value};

use crate::config::Config;
use crate::error::{Context, Error, Result, write_if_changed};
use crate::options::Options;
use crate::session::{Built, Patch, Session, VARIABLE};
use crate::toolchain;

/// A package of the facade's with a single file.
struct Package {
    name: &'static str,
    source: &'static str,
    dependencies: &'static [Dependency],
}

/// What a package of the facade's depends on.
#[derive(Clone, Copy)]
enum Dependency {
    Greenroom,
    GreenroomStd,
    GreenroomPatch,
    /// Another package of the facade's.
    Facade(&'static str),
    /// A crate that greenroom depends on, too. The lock file has its version.
    Published {
        name: &'static str,
        version: &'static str,
        features: &'static [&'static str],
    },
}

/// The package that cargo builds. It has no code, and depends on the others. So cargo names the libraries of all
/// of them with a hash, and libraries that were built in another way stay there for other commands.
const ROOT: &str = "greenroom-facade";

/// The feature of [`ROOT`] that adds [`PATCHED`].
const PATCH_FEATURE: &str = "patch";

/// What the facade always has.
const ALWAYS: [Package; 4] = [
    // The `std` of crates that spawn OS threads.
    Package {
        name: "greenroom-threads-std",
        source: include_str!("../facade/threads_std.rs"),
        dependencies: &[Dependency::GreenroomStd],
    },
    // The `std` of executables whose main function runs as a coroutine. The wrapper has the linker put
    // `__wrap_main` in the place of `main`, which is `__real_main` then.
    Package {
        name: "greenroom-main-std",
        source: include_str!("../facade/main_std.rs"),
        dependencies: &[Dependency::Greenroom, Dependency::GreenroomStd],
    },
    // The crates `libc` and `rustix`, with an `epoll_wait` that parks.
    Package {
        name: "greenroom-libc",
        source: include_str!("../facade/libc.rs"),
        dependencies: &[
            Dependency::Greenroom,
            Dependency::Published {
                name: "libc",
                version: "0.2",
                features: &[],
            },
        ],
    },
    Package {
        name: "greenroom-rustix",
        source: include_str!("../facade/rustix.rs"),
        dependencies: &[
            Dependency::Greenroom,
            Dependency::Published {
                name: "rustix",
                version: "1.1",
                features: &["event", "fs", "pipe", "process", "std", "time"],
            },
        ],
    },
];

/// Needed only by programs with the patch of the C library: it cannot be built for each target.
const PATCHED: [Package; 2] = [
    // The `std` of executables with the patch, and of those whose main function runs as a coroutine.
    Package {
        name: "greenroom-patched-std",
        source: include_str!("../facade/patched_std.rs"),
        dependencies: &[Dependency::GreenroomStd, Dependency::GreenroomPatch],
    },
    Package {
        name: "greenroom-patched-main-std",
        source: include_str!("../facade/patched_main_std.rs"),
        dependencies: &[
            Dependency::Facade("greenroom-main-std"),
            Dependency::GreenroomPatch,
        ],
    },
];

/// Where greenroom comes from.
enum Source {
    /// A checkout.
    Path(PathBuf),
    /// The registry, in the version of this program.
    Registry,
}

impl Source {
    /// The checkout that `GREENROOM_PATH` names; or the one that this program was built in, if it is
    /// still there; or else the registry.
    fn find() -> Result<Source> {
        let is_checkout = |path: &Path| path.join("shims/std/Cargo.toml").is_file();
        if let Some(path) = env::var_os("GREENROOM_PATH") {
            let path = PathBuf::from(path);
            let path = path.canonicalize().unwrap_or(path);
            return match is_checkout(&path) {
                true => Ok(Source::Path(path)),
                false => Err(Error::new(format!(
                    "GREENROOM_PATH is {}, but there is no greenroom in it",
                    path.display()
                ))),
            };
        }
        let built_in = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        Ok(match built_in.canonicalize() {
            Ok(path) if is_checkout(&path) => Source::Path(path),
            _ => Source::Registry,
        })
    }

    /// A dependency on the package that a checkout has in `folder`.
    fn dependency(&self, folder: &str, features: &[String]) -> Value {
        let mut table = Table::new();
        match self {
            Source::Path(path) => {
                let path = path.join(folder).display().to_string();
                table.insert("path".into(), path.into());
            }
            Source::Registry => {
                let version = concat!("=", env!("CARGO_PKG_VERSION"));
                table.insert("version".into(), version.into());
            }
        }
        let features: Vec<Value> = features.iter().map(|name| name.as_str().into()).collect();
        table.insert("features".into(), features.into());
        table.into()
    }
}

/// What the facade is built from and where.
pub(crate) struct Plan<'a> {
    pub(crate) options: &'a Options,
    pub(crate) target: &'a str,
    /// The directory of the facade.
    pub(crate) dir: &'a Path,
    /// The manifest of the program's workspace, with its profiles.
    pub(crate) workspace_manifest: &'a Path,
    /// The features of greenroom that the program asks for.
    pub(crate) features: &'a [String],
    /// Whether the program needs the patch of the C library.
    pub(crate) with_patch: bool,
    /// This program, as the wrapper.
    pub(crate) wrapper: &'a Path,
    /// The session that tells the wrapper to build the facade.
    pub(crate) session: &'a Session,
    pub(crate) config: &'a Config,
}

/// What is built.
pub(crate) struct Facade {
    pub(crate) built: Built,
    /// The libraries for tests and benches, if they need others.
    pub(crate) unwinding: Option<Built>,
}

impl Plan<'_> {
    /// Builds the facade, or finds that it is up to date.
    ///
    /// # Errors
    ///
    /// If the directory cannot be written to, or cargo fails. cargo has then printed the reason.
    pub(crate) fn build(&self) -> Result<Facade> {
        let _lock = self.lock()?;
        let source = Source::find()?;
        let package = self.dir.join("package");
        for part in ALWAYS.iter().chain(&PATCHED) {
            let manifest = self.manifest(part, &source);
            write(&package.join(part.name), part.source, &manifest)?;
        }
        write(&package, "", &self.root_manifest()?)?;
        // The first build uses the versions of the checkout's lock file. Later, the copy is cargo's.
        if let Source::Path(checkout) = &source
            && let Ok(lock) = fs::read(checkout.join("Cargo.lock"))
            && !package.join("Cargo.lock").exists()
        {
            write_if_changed(&package.join("Cargo.lock"), &lock)?;
        }
        let built = self.compile(None)?;
        if !self.options.with_tests {
            return Ok(Facade {
                built,
                unwinding: None,
            });
        }
        // cargo makes tests and benches unwind. If the profile unwinds, too, these are the same libraries.
        let profile = self.options.facade_profile();
        let unwinding = self.compile(Some(format!("profile.{profile}.panic=\"unwind\"")))?;
        Ok(Facade {
            unwinding: (unwinding != built).then_some(unwinding),
            built,
        })
    }

    /// Waits until no other command writes or builds the facade.
    fn lock(&self) -> Result<File> {
        let path = self.dir.join("lock");
        let lock = fs::create_dir_all(self.dir).and_then(|()| {
            let file = File::create(&path)?;
            // Where the file system has no locks, commands go on without, as cargo does.
            if let Err(TryLockError::WouldBlock) = file.try_lock() {
                eprintln!(
                    "    Blocking waiting for another `cargo greenroom`, which builds greenroom's std"
                );
                file.lock()?;
            }
            Ok(file)
        });
        lock.context(|| format!("cannot lock {}", path.display()))
    }

    /// Has cargo compile the libraries, with one more value of its configuration.
    fn compile(&self, config: Option<String>) -> Result<Built> {
        let session = self.dir.join("session");
        self.session.write(&session)?;

        let mut cargo = toolchain::cargo();
        cargo
            .args(["build", "--message-format=json-render-diagnostics"])
            .args(["--profile", self.options.facade_profile()])
            .args(["--target", self.target])
            .arg("--manifest-path")
            .arg(self.dir.join("package/Cargo.toml"))
            .arg("--target-dir")
            .arg(self.dir.join("target"))
            .env("RUSTC_WRAPPER", self.wrapper)
            .env_remove("RUSTC_WORKSPACE_WRAPPER")
            .env(VARIABLE, &session)
            .stdout(Stdio::piped());
        if self.with_patch {
            cargo.args(["--features", PATCH_FEATURE]);
        }
        if self.options.offline {
            cargo.arg("--offline");
        }
        for config in self.options.config.iter().chain(&config) {
            cargo.args(["--config", config]);
        }
        // The first build takes a while, so it shows its progress.
        let built = self.dir.join(format!(
            "built-{}-{}",
            self.target.replace('/', "-"),
            self.options.facade_profile()
        ));
        if self.options.quiet || built.exists() {
            cargo.arg("--quiet");
        }
        let mut child = cargo.spawn().context(|| "cannot run cargo".into())?;
        let output = child.stdout.take().expect("stdout is piped");
        let mut libraries = Vec::new();
        for message in Message::parse_stream(std::io::BufReader::new(output)) {
            if let Message::CompilerArtifact(artifact) =
                message.context(|| "cannot read cargo's output".into())?
            {
                let files = artifact.filenames.into_iter();
                libraries.extend(files.filter(|file| file.extension() == Some("rlib")));
            }
        }
        let status = child.wait().context(|| "cannot wait for cargo".into())?;
        if !status.success() {
            return Err(self.failure());
        }
        write_if_changed(&built, b"")?;
        let library = |name: &str| {
            let is_it = |path: &&cargo_metadata::camino::Utf8PathBuf| {
                let stem = path.file_stem().unwrap_or_default();
                let rest = stem
                    .strip_prefix("lib")
                    .and_then(|stem| stem.strip_prefix(name));
                rest.is_some_and(|rest| rest.starts_with('-'))
            };
            let found = libraries.iter().find(is_it);
            let found = found.map(|path| path.clone().into_std_path_buf());
            found.ok_or_else(|| Error::new(format!("cargo has built no library {name}")))
        };
        let std = library("greenroom_std")?;
        let dependencies = std.parent().unwrap_or(self.dir).to_path_buf();
        let patch = match self.with_patch {
            true => Some(Patch {
                std: library("greenroom_patched_std")?,
                main_std: library("greenroom_patched_main_std")?,
                library: library("greenroom_patch")?,
            }),
            false => None,
        };
        Ok(Built {
            threads_std: library("greenroom_threads_std")?,
            main_std: library("greenroom_main_std")?,
            libc: library("greenroom_libc")?,
            rustix: library("greenroom_rustix")?,
            greenroom: library("greenroom")?,
            patch,
            std,
            dependencies,
        })
    }

    /// What to say after cargo's own message.
    fn failure(&self) -> Error {
        let mut said = format!(
            "greenroom's std cannot be built for {} in profile {}",
            self.target,
            self.options.facade_profile()
        );
        if let Some(source) = self.config.instead_of_registry() {
            said += &format!(
                "\n\nnote: cargo takes crates from {source} instead of crates.io. They must include those that \
                 greenroom depends on.\n      If they are vendored, add these by `cargo vendor --sync '{}'`",
                self.dir.join("package/Cargo.toml").display()
            );
        }
        Error::new(said)
    }

    /// The manifest of [`ROOT`].
    fn root_manifest(&self) -> Result<Table> {
        let mut dependencies = Table::new();
        for part in ALWAYS.iter().chain(&PATCHED) {
            let mut table = Table::new();
            table.insert("path".into(), part.name.into());
            let is_optional = PATCHED.iter().any(|patched| patched.name == part.name);
            table.insert("optional".into(), is_optional.into());
            dependencies.insert(part.name.into(), table.into());
        }
        let patched = PATCHED.iter().map(|part| format!("dep:{}", part.name));
        let mut features = Table::new();
        features.insert(PATCH_FEATURE.into(), patched.collect::<Vec<_>>().into());
        let mut manifest = package_table(ROOT, dependencies);
        manifest.insert("features".into(), features.into());
        // A workspace of its own. Otherwise cargo would take the package for a member of a workspace in a
        // directory above.
        manifest.insert("workspace".into(), Table::new().into());
        if let Some(profiles) = self.profiles()? {
            manifest.insert("profile".into(), profiles);
        }
        Ok(manifest)
    }

    fn manifest(&self, package: &Package, source: &Source) -> Table {
        let mut dependencies = Table::new();
        for dependency in package.dependencies {
            let (name, value) = match *dependency {
                Dependency::Greenroom => ("greenroom", source.dependency("", &[])),
                Dependency::GreenroomStd => {
                    let value = source.dependency("shims/std", self.features);
                    ("greenroom-std", value)
                }
                Dependency::GreenroomPatch => {
                    let value = source.dependency("shims/patch", &[]);
                    ("greenroom-patch", value)
                }
                Dependency::Facade(name) => {
                    let mut table = Table::new();
                    table.insert("path".into(), format!("../{name}").into());
                    (name, table.into())
                }
                Dependency::Published {
                    name,
                    version,
                    features,
                } => {
                    let features: Vec<Value> = features.iter().map(|&name| name.into()).collect();
                    let mut table = Table::new();
                    table.insert("version".into(), version.into());
                    table.insert("features".into(), features.into());
                    (name, table.into())
                }
            };
            dependencies.insert(name.into(), value);
        }
        package_table(package.name, dependencies)
    }

    /// The profiles in the program's manifest. The facade is built with them, too, because all crates of a
    /// program must have the same panic strategy.
    fn profiles(&self) -> Result<Option<Value>> {
        let path = self.workspace_manifest;
        let text =
            fs::read_to_string(path).context(|| format!("cannot read {}", path.display()))?;
        let manifest: Table = text
            .parse()
            .context(|| format!("cannot read {}", path.display()))?;
        Ok(manifest.get("profile").cloned())
    }
}

/// The manifest of a package of the facade's.
fn package_table(name: &str, dependencies: Table) -> Table {
    let mut about = Table::new();
    about.insert("name".into(), name.into());
    about.insert("version".into(), env!("CARGO_PKG_VERSION").into());
    about.insert("edition".into(), "2024".into());
    let mut lib = Table::new();
    lib.insert("path".into(), "lib.rs".into());
    let mut manifest = Table::new();
    manifest.insert("package".into(), about.into());
    manifest.insert("lib".into(), lib.into());
    manifest.insert("dependencies".into(), dependencies.into());
    manifest
}

/// Writes a package into `dir`.
fn write(dir: &Path, source: &str, manifest: &Table) -> Result<()> {
    write_if_changed(&dir.join("lib.rs"), source.as_bytes())?;
    let manifest =
        toml::to_string(manifest).context(|| "cannot write the facade's manifest".into())?;
    write_if_changed(&dir.join("Cargo.toml"), manifest.as_bytes())
}
