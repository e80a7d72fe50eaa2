//! `cargo greenroom COMMAND`.

use std::collections::BTreeSet;
use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use cargo_metadata::MetadataCommand;
use toml::Table;

use crate::crates::DROP_INS;
use crate::error::{Context, Error, Result, write_if_changed};
use crate::explain::Graph;
use crate::facade::Plan;
use crate::options::{self, HELP, Options, Request};
use crate::session::{NOTES_VARIABLE, Session, VARIABLE};
use crate::toolchain::{self, Compiler};
use crate::wrapper::{RUSTC_NAME, RUSTDOC_NAME};

/// Compiled instead of greenroom or greenroom-std, if the program itself depends on one of them. Re-exports
/// the library that the facade has built, so that there is one greenroom in the program.
const GREENROOM: &str =
    "//! The greenroom that the program's std is built on.\n\npub use the_one::*;\n";

/// The same for greenroom-patch, which is only named.
const GREENROOM_PATCH: &str = "//! The patch of the C library, of the greenroom that the program's std is built on.\n\nuse the_one as _;\n";

/// What the name of the facade's wrapper ends with, in the place of an identity.
const FACADE: &str = "facade";

pub(crate) fn run(args: Vec<OsString>) -> Result<ExitCode> {
    match options::parse(args)? {
        Request::Help => print!("{HELP}"),
        Request::Version => println!("cargo-greenroom {}", env!("CARGO_PKG_VERSION")),
        Request::Cargo(options) => return run_cargo(&options),
    }
    Ok(ExitCode::SUCCESS)
}

fn run_cargo(options: &Options) -> Result<ExitCode> {
    if env::var_os(VARIABLE).is_some() {
        return Err(Error::new(
            "cargo greenroom was called by a build that cargo greenroom runs: call plain cargo there, which \
             builds on greenroom's std already",
        ));
    }
    let compiler = Compiler::find()?;
    let target = match (&options.target, env::var("CARGO_BUILD_TARGET")) {
        (Some(target), _) => target.clone(),
        (None, Ok(target)) => target,
        (None, Err(_)) => compiler.host.clone(),
    };
    let metadata = metadata(options, &target)?;
    let graph = Graph::of(&metadata, &options.except)?;
    if options.explain {
        eprint!("{}", graph.explain(options.libc));
    }

    let base = match &options.target_dir {
        Some(dir) => dir.clone(),
        None => metadata.target_directory.clone().into_std_path_buf(),
    };
    let base = std::path::absolute(&base).unwrap_or(base);
    let dirs = Dirs::new(base.join("greenroom"))?;
    let chain = chained_wrapper();
    let facade_session = Session {
        chain: chain.clone(),
        ..Session::default()
    };
    let wrapper = dirs.wrapper(RUSTC_NAME, FACADE)?;
    let plan = Plan {
        options,
        target: &target,
        dir: &dirs.facade,
        workspace_manifest: &metadata.workspace_root.as_std_path().join("Cargo.toml"),
        features: &graph.greenroom_features,
        with_patch: options.libc || graph.names_patch(),
        wrapper: &wrapper,
        session: &facade_session,
    };
    let session = Session {
        facade: Some(plan.build()?),
        except: options.except.clone(),
        main: options.main,
        libc: options.libc,
        chain,
        rustdoc: toolchain::rustdoc().into(),
        drop_ins: dirs.drop_ins.clone(),
    };
    dirs.write_drop_ins()?;
    dirs.remove_stale_sessions();
    run_on_program(options, &target, &dirs, &session)
}

fn run_on_program(
    options: &Options,
    target: &str,
    dirs: &Dirs,
    session: &Session,
) -> Result<ExitCode> {
    let identity = session.identity()?;
    // Named after the session's identity, because another command may run at the same time, with other
    // options.
    let path = dirs.base.join("sessions").join(&identity);
    session.write(&path)?;
    let notes = dirs.base.join(format!("notes-{}", std::process::id()));
    let mut cargo = toolchain::cargo();
    cargo.arg(&options.command);
    if options.target.is_none() {
        cargo.args(["--target", target]);
    }
    cargo
        .arg("--target-dir")
        .arg(&dirs.program)
        .args(&options.cargo_args)
        .env("RUSTC_WRAPPER", dirs.wrapper(RUSTC_NAME, &identity)?)
        .env("RUSTDOC", dirs.wrapper(RUSTDOC_NAME, &identity)?)
        .env(VARIABLE, &path)
        .env(NOTES_VARIABLE, &notes);
    let status = cargo.status().context(|| "cannot run cargo".into())?;
    if !status.success() {
        hint(&notes);
        let _ = fs::remove_dir_all(&notes);
    }
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(ExitCode::from(code.unwrap_or(101)))
}

/// Prints a hint for each package that does not compile on greenroom's std. The wrapper has left a file of
/// its name in `notes`.
fn hint(notes: &Path) {
    let Ok(entries) = fs::read_dir(notes) else {
        return;
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let names: BTreeSet<String> = names.collect();
    for name in names {
        eprintln!(
            "\nnote: {name} does not compile on greenroom's std: an error above names items of greenroom. Most \
             often, {name} exchanges a type of std with a crate that is on the real std.\n      \
             `--except {name}` leaves {name} on the real std. Crates that exchange such types with {name} \
             must then be left out, too. `--explain` lists which crates are on which std."
        );
    }
}

fn metadata(options: &Options, target: &str) -> Result<cargo_metadata::Metadata> {
    let mut command = MetadataCommand::new();
    let mut other = vec![format!("--filter-platform={target}")];
    other.extend(options.metadata_args.iter().cloned());
    command.other_options(other);
    command.exec().map_err(|error| match error {
        // Only cargo's own message, without the words that the library puts around it.
        cargo_metadata::Error::CargoMetadata { stderr } => {
            let text = stderr.trim();
            Error::new(text.strip_prefix("error: ").unwrap_or(text))
        }
        other => Error::new(format!(
            "cannot find out the program's dependencies: {other}"
        )),
    })
}

/// The wrapper that the user has set, in the environment or in cargo's configuration.
fn chained_wrapper() -> Option<PathBuf> {
    let of_environment = ["RUSTC_WRAPPER", "CARGO_BUILD_RUSTC_WRAPPER"]
        .iter()
        .find_map(env::var_os);
    if let Some(wrapper) = of_environment {
        return (!wrapper.is_empty()).then(|| wrapper.into());
    }
    let here = env::current_dir().ok()?;
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(env::home_dir()?.join(".cargo")));
    let dirs = here.ancestors().map(|dir| dir.join(".cargo")).chain(home);
    dirs.flat_map(|dir| [dir.join("config.toml"), dir.join("config")])
        .find_map(|file| {
            let config: Table = fs::read_to_string(file).ok()?.parse().ok()?;
            let wrapper = config.get("build")?.get("rustc-wrapper")?.as_str()?;
            Some(wrapper.into())
        })
}

/// The files in `dir`; none if it cannot be read.
fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten();
    entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect()
}

/// Where this command keeps what it makes.
struct Dirs {
    base: PathBuf,
    facade: PathBuf,
    program: PathBuf,
    drop_ins: PathBuf,
}

impl Dirs {
    fn new(base: PathBuf) -> Result<Dirs> {
        fs::create_dir_all(&base).context(|| format!("cannot create {}", base.display()))?;
        Ok(Dirs {
            facade: base.join("facade"),
            program: base.join("program"),
            drop_ins: base.join("drop-ins"),
            base,
        })
    }

    /// Removes the sessions, and their wrappers, whose libraries were built again since. cargo never asks for
    /// these wrappers any more.
    fn remove_stale_sessions(&self) {
        // Listed first: another command may write a session and then its wrappers, meanwhile.
        let wrappers = files(&self.base.join("bin"));
        let sessions = self.base.join("sessions");
        let stale = files(&sessions)
            .into_iter()
            .filter(|path| !Session::is_current(path));
        for path in stale {
            // Files that stay are only clutter.
            let _ = fs::remove_file(path);
        }
        for path in wrappers {
            let name = path.file_name().and_then(|name| name.to_str());
            let identity = name.and_then(|name| {
                let rest = name.strip_prefix(RUSTC_NAME);
                rest.or_else(|| name.strip_prefix(RUSTDOC_NAME))
            });
            let has_session =
                |identity: &str| identity == FACADE || sessions.join(identity).exists();
            if identity.is_some_and(|identity| !has_session(identity)) {
                let _ = fs::remove_file(path);
            }
        }
    }

    fn write_drop_ins(&self) -> Result<()> {
        for drop_in in DROP_INS {
            let path = self.drop_ins.join(format!("{}.rs", drop_in.package));
            write_if_changed(&path, drop_in.source.as_bytes())?;
        }
        for (name, source) in [
            ("greenroom", GREENROOM),
            ("greenroom-std", GREENROOM),
            ("greenroom-patch", GREENROOM_PATCH),
        ] {
            write_if_changed(&self.drop_ins.join(format!("{name}.rs")), source.as_bytes())?;
        }
        Ok(())
    }

    /// Makes a symbolic link to this program. The program knows its role by the name of the link. The name
    /// ends with the identity of the session, because cargo remembers the version of the compiler by the
    /// path of the wrapper.
    fn wrapper(&self, name: &str, identity: &str) -> Result<PathBuf> {
        let this = env::current_exe().context(|| "cannot find this program".into())?;
        let dir = self.base.join("bin");
        fs::create_dir_all(&dir).context(|| format!("cannot create {}", dir.display()))?;
        let link = dir.join(format!("{name}{identity}"));
        if fs::read_link(&link).is_ok_and(|to| to == this) {
            return Ok(link);
        }
        let _ = fs::remove_file(&link);
        std::os::unix::fs::symlink(&this, &link)
            .context(|| format!("cannot create {}", link.display()))?;
        Ok(link)
    }
}
