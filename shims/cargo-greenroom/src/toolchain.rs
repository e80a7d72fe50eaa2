//! The compiler and cargo in use.

use std::env;
use std::path::Path;
use std::process::Command;

use crate::error::{Context, Error, Result};

/// The oldest compiler that builds greenroom. It takes the macros of the prelude from the crate that it is
/// given as `std`, as newer compilers do.
const OLDEST: (u32, u32) = (1, 89);

/// The cargo that runs this command. If none does, the one in `PATH`.
pub(crate) fn cargo() -> Command {
    Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// What `rustc -vV` says.
#[derive(Debug)]
pub(crate) struct Compiler {
    pub(crate) host: String,
}

impl Compiler {
    /// Asks the compiler `rustc`.
    ///
    /// # Errors
    ///
    /// If there is none, or it is too old.
    pub(crate) fn ask(rustc: &Path) -> Result<Compiler> {
        let output = Command::new(rustc)
            .arg("-vV")
            .output()
            .context(|| format!("cannot run the compiler, {}", rustc.display()))?;
        if !output.status.success() {
            return Err(Error::new(format!(
                "the compiler, {}, fails to print its version: {}",
                rustc.display(),
                String::from_utf8_lossy(&output.stderr).trim()
            )));
        }
        Compiler::parse(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn parse(verbose_version: String) -> Result<Compiler> {
        let field = |name: &str| {
            let value = verbose_version
                .lines()
                .find_map(|line| line.strip_prefix(name));
            value.ok_or_else(|| Error::new(format!("`rustc -vV` prints no line `{name}`")))
        };
        let release = field("release: ")?;
        let mut numbers = release
            .split(['.', '-'])
            .map_while(|part| part.parse().ok());
        let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        if version < OLDEST {
            return Err(Error::new(format!(
                "cargo greenroom needs Rust {}.{} or newer, but this is {release}: use a newer toolchain, \
                 for example by `cargo +stable greenroom`",
                OLDEST.0, OLDEST.1
            )));
        }
        let host = field("host: ")?.to_owned();
        Ok(Compiler { host })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(release: &str) -> Result<Compiler> {
        Compiler::parse(format!(
            "rustc {release}\nhost: x-y-z\nrelease: {release}\n"
        ))
    }

    #[test]
    fn the_version_and_the_host_are_those_that_the_compiler_tells() {
        assert_eq!(parse("1.95.0").unwrap().host, "x-y-z");
        assert!(parse("1.97.0-nightly").is_ok());
        assert!(parse("2.0.0").is_ok());
    }

    #[test]
    fn a_compiler_that_is_too_old_is_refused_with_a_way_out() {
        let error = parse("1.80.1").unwrap_err().to_string();
        assert!(
            error.contains("this is 1.80.1") && error.contains("cargo +stable"),
            "{error}"
        );
        assert!(Compiler::parse("nonsense".into()).is_err());
    }
}
