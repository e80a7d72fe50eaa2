//! cargo's configuration, as far as this command must know it. Stable cargo does not print it, so it is read
//! here by cargo's rules.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use crate::error::{Context, Error, Result};

/// A value, and the directory that a path in it is relative to.
type Found = (Value, PathBuf);

/// A configuration file, or the value of an option `--config`.
struct Source {
    table: Table,
    /// The directory that paths in `table` are relative to.
    base: PathBuf,
}

impl Source {
    /// `None` if the file cannot be read: cargo says so.
    fn file(path: &Path) -> Option<Source> {
        Some(Source {
            table: fs::read_to_string(path).ok()?.parse().ok()?,
            // The directory that has `.cargo`.
            base: path.parent()?.parent()?.to_path_buf(),
        })
    }

    fn get(&self, key: &[&str]) -> Option<Found> {
        let (last, tables) = key.split_last()?;
        let mut table = &self.table;
        for name in tables {
            table = table.get(*name)?.as_table()?;
        }
        Some((table.get(*last)?.clone(), self.base.clone()))
    }
}

pub(crate) struct Config {
    /// The working directory.
    here: PathBuf,
    /// The options `--config`, the last one first.
    options: Vec<Source>,
    environment: fn(&str) -> Option<OsString>,
    /// The file that is nearest to the working directory first.
    files: Vec<Source>,
}

impl Config {
    /// The configuration that cargo has in the working directory, if it gets `options` as `--config`.
    ///
    /// # Errors
    ///
    /// If there is no working directory.
    pub(crate) fn load(options: &[String]) -> Result<Config> {
        let here = env::current_dir().context(|| "cannot find the working directory".into())?;
        let home = env::var_os("CARGO_HOME").map(|home| here.join(home));
        let home = home.or_else(|| Some(env::home_dir()?.join(".cargo")));
        Ok(Config::of(here, home, options, |name| env::var_os(name)))
    }

    fn of(
        here: PathBuf,
        home: Option<PathBuf>,
        options: &[String],
        environment: fn(&str) -> Option<OsString>,
    ) -> Config {
        let option = |option: &String| {
            let path = here.join(option);
            if path.is_file() {
                return Source::file(&path);
            }
            Some(Source {
                table: option.parse().ok()?,
                base: here.clone(),
            })
        };
        let in_dir = |dir: PathBuf| {
            let mut names = ["config", "config.toml"].iter().map(|name| dir.join(name));
            Source::file(&names.find(|path| path.is_file())?)
        };
        let dirs = here.ancestors().map(|dir| dir.join(".cargo")).chain(home);
        Config {
            options: options.iter().rev().filter_map(option).collect(),
            files: dirs.filter_map(in_dir).collect(),
            environment,
            here,
        }
    }

    fn get(&self, key: &[&str]) -> Option<Found> {
        let of = |sources: &[Source]| sources.iter().find_map(|source| source.get(key));
        let of_environment = || {
            let variable = format!("CARGO_{}", key.join("_")).to_uppercase();
            let value = (self.environment)(&variable.replace(['-', '.'], "_"))?;
            Some((value.into_string().ok()?.into(), self.here.clone()))
        };
        of(&self.options)
            .or_else(of_environment)
            .or_else(|| of(&self.files))
    }

    /// The target to build for. `None` if it is the host.
    ///
    /// # Errors
    ///
    /// If there are several.
    pub(crate) fn target(&self) -> Result<Option<String>> {
        let Some((value, base)) = self.get(&["build", "target"]) else {
            return Ok(None);
        };
        let target = match &value {
            Value::Array(targets) if targets.len() > 1 => return Err(several_targets()),
            Value::Array(targets) => targets.first().and_then(Value::as_str),
            value => value.as_str(),
        };
        Ok(target.map(|target| match target.ends_with(".json") {
            true => base.join(target).display().to_string(),
            false => target.to_owned(),
        }))
    }

    /// The program that the environment variable `variable` names, or else the key `build.KEY`.
    pub(crate) fn program(&self, variable: &str, key: &str) -> Option<PathBuf> {
        let (program, base) = match (self.environment)(variable) {
            Some(program) => (program, self.here.clone()),
            None => {
                let (value, base) = self.get(&["build", key])?;
                (value.as_str()?.into(), base)
            }
        };
        let program = PathBuf::from(program);
        // A name alone is one in `PATH`.
        match program.components().count() {
            0 => None,
            1 => Some(program),
            _ => Some(base.join(program)),
        }
    }

    /// The source that replaces crates.io, if one does.
    pub(crate) fn instead_of_registry(&self) -> Option<String> {
        let (value, _) = self.get(&["source", "crates-io", "replace-with"])?;
        value.as_str().map(str::to_owned)
    }
}

pub(crate) fn several_targets() -> Error {
    Error::new("cargo greenroom builds for one target at a time")
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// A directory with a configuration, one below it, and a home.
    fn config(options: &[&str], environment: fn(&str) -> Option<OsString>) -> Config {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "greenroom-config-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let base = env::temp_dir().join(name);
        let home = base.join("home");
        let here = base.join("outer/inner");
        for (dir, text) in [
            (&home, "build.rustc = 'bin/rustc'\nbuild.target = 'of-home'"),
            (
                &base.join("outer/.cargo"),
                "[build]\ntarget = ['of-outer']\nrustc-wrapper = 'tools/wrap'\nrustdoc = 'mydoc'",
            ),
            (&here, ""),
        ] {
            fs::create_dir_all(dir).unwrap();
            fs::write(dir.join("config.toml"), text).unwrap();
        }
        let options: Vec<String> = options.iter().map(|&option| option.to_owned()).collect();
        let config = Config::of(here, Some(home), &options, environment);
        fs::remove_dir_all(base).unwrap();
        config
    }

    #[test]
    fn the_nearest_file_the_environment_and_the_last_option_have_precedence_in_this_order() {
        let target = |options: &[&str], environment| config(options, environment).target().unwrap();
        let set: fn(&str) -> Option<OsString> =
            |name| (name == "CARGO_BUILD_TARGET").then(|| "of-environment".into());
        assert_eq!(target(&[], |_| None).unwrap(), "of-outer");
        assert_eq!(target(&[], set).unwrap(), "of-environment");
        let options = ["build.target = 'first'", "build.target = 'last'", "x.y = 1"];
        assert_eq!(target(&options, set).unwrap(), "last");
    }

    #[test]
    fn several_targets_are_refused() {
        let config = config(&["build.target = ['a', 'b']"], |_| None);
        let error = config.target().unwrap_err().to_string();
        assert!(error.contains("one target at a time"), "{error}");
    }

    #[test]
    fn a_relative_program_is_relative_to_where_it_is_named_and_a_name_alone_is_one_in_path() {
        let config = config(&[], |name| {
            (name == "RUSTC_WORKSPACE_WRAPPER").then(|| "./here".into())
        });
        let outer = config.here.parent().unwrap();
        let program = |variable, key| config.program(variable, key).unwrap();
        let wrapper = program("RUSTC_WRAPPER", "rustc-wrapper");
        assert_eq!(wrapper, outer.join("tools/wrap"));
        assert_eq!(program("RUSTDOC", "rustdoc"), Path::new("mydoc"));
        assert_eq!(
            program("RUSTC", "rustc"),
            outer.parent().unwrap().join("bin/rustc")
        );
        let wrapper = program("RUSTC_WORKSPACE_WRAPPER", "rustc-workspace-wrapper");
        assert_eq!(wrapper, config.here.join("here"));
    }

    #[test]
    fn an_empty_wrapper_in_the_environment_is_none() {
        let config = config(&[], |name| (name == "RUSTC_WRAPPER").then(OsString::new));
        assert_eq!(config.program("RUSTC_WRAPPER", "rustc-wrapper"), None);
    }
}
