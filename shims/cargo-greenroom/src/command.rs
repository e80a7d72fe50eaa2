//! `cargo greenroom COMMAND`.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use cargo_metadata::MetadataCommand;

use crate::config::Config;
use crate::crates::DROP_INS;
use crate::error::{Context, Error, Result, replace, write_if_changed};
use crate::explain::Graph;
use crate::facade::Plan;
use crate::options::{self, HELP, Options, Request};
use crate::session::{Session, VARIABLE};
use crate::toolchain::{self, Compiler};
use crate::wrapper::{RUSTC_NAME, RUSTDOC_NAME, exec};

/// Compiled instead of greenroom or greenroom-std, if the program itself depends on one of them. Re-exports
/// the library that the facade has built, so that there is one greenroom in the program.
const GREENROOM: &str = "//! The greenroom that the program's std is built on.\n\n#[doc(inline)]\npub use the_one::*;\n";

/// The same for greenroom-patch, which is only named.
const GREENROOM_PATCH: &str = "//! The patch of the C library, of the greenroom that the program's std is built on.\n\nuse the_one as _;\n";

/// What the name of the facade's wrapper ends with, in the place of a session's name.
const FACADE: &str = "facade";

/// No build runs for longer.
const LONGEST_BUILD: Duration = Duration::from_secs(24 * 60 * 60);

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
            "cargo greenroom runs this already: here, `cargo --target TARGET` builds on greenroom's std. To build on \
             the real one, unset CARGO_GREENROOM_SESSION, RUSTC_WRAPPER and RUSTDOC",
        ));
    }
    let config = Config::load(&options.config)?;
    let compiler = Compiler::ask(&config.program("RUSTC", "rustc").unwrap_or("rustc".into()))?;
    let target = match &options.target {
        Some(target) => Some(target.clone()),
        None => config.target()?,
    };
    let target = target.unwrap_or(compiler.host);
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
    let chain = config.program("RUSTC_WRAPPER", "rustc-wrapper");
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
        config: &config,
    };
    let facade = plan.build()?;
    let rustdoc = config.program("RUSTDOC", "rustdoc");
    let session = Session {
        facade: Some(facade.built),
        unwinding: facade.unwinding,
        except: options.except.clone(),
        main: options.main,
        libc: options.libc,
        chain,
        rustdoc: rustdoc.unwrap_or("rustdoc".into()),
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
    let name = session.name()?;
    let path = dirs.session(&name);
    session.write(&path)?;
    let mut cargo = toolchain::cargo();
    cargo.arg(&options.command);
    if options.target.is_none() {
        cargo.args(["--target", target]);
    }
    cargo
        .arg("--target-dir")
        .arg(&dirs.program)
        .args(&options.cargo_args)
        .env("RUSTC_WRAPPER", dirs.wrapper(RUSTC_NAME, &name)?)
        .env("RUSTDOC", dirs.wrapper(RUSTDOC_NAME, &name)?)
        .env(VARIABLE, &path);
    // So the program ends as cargo's would, and signals reach it.
    Err(exec(&mut cargo))
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

    /// The file of a session, which was used now.
    fn session(&self, name: &str) -> PathBuf {
        let path = self.base.join("sessions").join(name);
        if let Ok(file) = File::options().append(true).open(&path) {
            // If this fails, another command may remove the file too soon, if it is stale by then.
            let _ = file.set_modified(SystemTime::now());
        }
        path
    }

    /// Removes the sessions, and their wrappers, whose libraries were built again since. cargo never asks for
    /// these wrappers any more, except in a build that was running then.
    fn remove_stale_sessions(&self) {
        // Listed first: another command may write a session and then its wrappers, meanwhile.
        let wrappers = files(&self.base.join("bin"));
        let sessions = self.base.join("sessions");
        let is_in_use = |path: &PathBuf| {
            let used = fs::metadata(path).and_then(|metadata| metadata.modified());
            // A time to come is one of a clock that was set back.
            used.is_ok_and(|used| used.elapsed().map_or(true, |since| since < LONGEST_BUILD))
        };
        let stale = files(&sessions)
            .into_iter()
            .filter(|path| !is_in_use(path) && !Session::is_current(path));
        for path in stale {
            // Files that stay are only clutter.
            let _ = fs::remove_file(path);
        }
        for path in wrappers {
            let name = path.file_name().and_then(|name| name.to_str());
            let session = name.and_then(|name| {
                let rest = name.strip_prefix(RUSTC_NAME);
                rest.or_else(|| name.strip_prefix(RUSTDOC_NAME))
            });
            let has_session = |name: &str| name == FACADE || sessions.join(name).exists();
            if session.is_some_and(|name| !has_session(name)) {
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
    /// ends with that of the session, because cargo remembers the version of the compiler by the path of the
    /// wrapper.
    fn wrapper(&self, role: &str, session: &str) -> Result<PathBuf> {
        let this = env::current_exe().context(|| "cannot find this program".into())?;
        let link = self.base.join("bin").join(format!("{role}{session}"));
        if !fs::read_link(&link).is_ok_and(|to| to == this) {
            replace(&link, |new| std::os::unix::fs::symlink(&this, new))?;
        }
        Ok(link)
    }
}
