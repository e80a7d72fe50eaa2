//! The facade: greenroom's shims under the name of std, built for the program's target and profile.
//!
//! [`Plan::build`] writes a few small packages, which depend on `greenroom` and `greenroom-std`. cargo builds
//! them in a directory of their own, with the program's profiles, configuration and environment. So one build
//! makes all the libraries that crates of the program may get as their `std`.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use cargo_metadata::Message;
use toml::{Table, Value};

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

/// The `std` of crates that spawn OS threads.
const THREADS_STD: Package = Package {
    name: "greenroom-threads-std",
    source: include_str!("../facade/threads_std.rs"),
    dependencies: &[Dependency::GreenroomStd],
};

/// What the first package depends on, so that cargo builds all of them.
const OTHERS: [Package; 3] = [
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

/// Needed only by programs with the patch of the C library: it cannot be built for each target. These packages are
/// members of the workspace in any case, lest the others be built again when they come or go.
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
}

impl Plan<'_> {
    /// Builds the facade, or finds that it is up to date.
    ///
    /// # Errors
    ///
    /// If the directory cannot be written to, or cargo fails. cargo has then printed the reason.
    pub(crate) fn build(&self) -> Result<Built> {
        let source = Source::find()?;
        let package = self.dir.join("package");
        for other in OTHERS.iter().chain(&PATCHED) {
            let manifest = self.manifest(other, &source);
            write(&package.join(other.name), other, &manifest)?;
        }
        write(&package, &THREADS_STD, &self.root_manifest(&source)?)?;
        let manifest = package.join("Cargo.toml");
        // The first build uses the versions of the checkout's lock file. Later, the copy is cargo's.
        if let Source::Path(checkout) = &source
            && let Ok(lock) = fs::read(checkout.join("Cargo.lock"))
            && !package.join("Cargo.lock").exists()
        {
            write_if_changed(&package.join("Cargo.lock"), &lock)?;
        }
        let session = self.dir.join("session");
        self.session.write(&session)?;

        let mut cargo = toolchain::cargo();
        cargo
            .args(["build", "--message-format=json-render-diagnostics"])
            .args(["--profile", self.options.facade_profile()])
            .args(["--target", self.target])
            .arg("--manifest-path")
            .arg(&manifest)
            .arg("--target-dir")
            .arg(self.dir.join("target"))
            .args(["--package", THREADS_STD.name])
            .env("RUSTC_WRAPPER", self.wrapper)
            .env_remove("RUSTC_WORKSPACE_WRAPPER")
            .env(VARIABLE, &session)
            .stdout(Stdio::piped());
        if self.with_patch {
            PATCHED.iter().for_each(|package| {
                cargo.args(["--package", package.name]);
            });
        }
        if self.options.offline {
            cargo.arg("--offline");
        }
        // The first build takes a while, so it shows its progress.
        let built = self.dir.join(format!(
            "built-{}-{}",
            self.target,
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
            return Err(Error::new(format!(
                "greenroom's std cannot be built for {} in profile {}",
                self.target,
                self.options.facade_profile()
            )));
        }
        write_if_changed(&built, b"")?;
        // cargo names the libraries of the packages that it was told to build without a hash, and those of others
        // with one.
        let library = |name: &str| {
            let is_it = |path: &&cargo_metadata::camino::Utf8PathBuf| {
                let stem = path.file_stem().unwrap_or_default();
                let rest = stem
                    .strip_prefix("lib")
                    .and_then(|stem| stem.strip_prefix(name));
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
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

    /// The manifest of [`THREADS_STD`].
    fn root_manifest(&self, source: &Source) -> Result<Table> {
        let mut manifest = self.manifest(&THREADS_STD, source);
        if let Some(dependencies) = manifest["dependencies"].as_table_mut() {
            for other in &OTHERS {
                let mut table = Table::new();
                table.insert("path".into(), other.name.into());
                dependencies.insert(other.name.into(), table.into());
            }
        }
        // A workspace of its own. Otherwise cargo would take the package for a member of a workspace in a
        // directory above.
        let members: Vec<Value> = PATCHED.iter().map(|package| package.name.into()).collect();
        let mut workspace = Table::new();
        workspace.insert("members".into(), members.into());
        manifest.insert("workspace".into(), workspace.into());
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
        let mut about = Table::new();
        about.insert("name".into(), package.name.into());
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

/// Writes `package` into `dir`.
fn write(dir: &Path, package: &Package, manifest: &Table) -> Result<()> {
    write_if_changed(&dir.join("lib.rs"), package.source.as_bytes())?;
    let manifest =
        toml::to_string(manifest).context(|| "cannot write the facade's manifest".into())?;
    write_if_changed(&dir.join("Cargo.toml"), manifest.as_bytes())
}
