//! What is known about particular crates: which keep OS threads, which are replaced, which still block.

/// How to compile a package for the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Treatment {
    /// Its `std` is the facade.
    Patched,
    /// Its `std` is the facade, but the threads that it spawns are the operating system's: as coroutines they
    /// would keep a worker.
    OsThreads,
    /// It is greenroom, greenroom-std or greenroom-patch, as a dependency of the program. It is replaced by a
    /// crate that re-exports the facade's.
    Greenroom,
    /// Its sources are replaced by a drop-in.
    DropIn(&'static DropIn),
    /// It keeps the real std, because the user says so.
    Excepted,
}

/// Sources of this program that replace those of a package.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct DropIn {
    pub(crate) package: &'static str,
    /// It replaces the versions that begin with one of these.
    pub(crate) versions: &'static [&'static str],
    pub(crate) source: &'static str,
    pub(crate) why: &'static str,
}

pub(crate) const DROP_INS: &[DropIn] = &[DropIn {
    package: "parking_lot_core",
    versions: &["0.9.", "0.10."],
    source: include_str!("../drop-ins/parking_lot_core.rs"),
    why: "it waits by a system call of its own; the drop-in parks",
}];

/// Packages whose own threads run many tasks, or wait in a system call of their own.
const KEEP_OS_THREADS: &[&str] = &[
    "tokio",
    "async-io",
    "async-global-executor",
    "ctrlc",
    "jobserver",
];

/// A crate that the facade has with an `epoll_wait` that parks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PollsBy {
    Libc,
    Rustix,
}

/// Packages that wait in epoll, with the beginnings of their versions and what they call it by.
const POLLS: &[(&str, &[&str], PollsBy)] = &[
    ("mio", &["0.7.", "0.8.", "1."], PollsBy::Libc),
    // Older versions have another rustix.
    (
        "polling",
        &[
            "3.8.", "3.9.", "3.10.", "3.11.", "3.12.", "3.13.", "3.14.", "3.15.",
        ],
        PollsBy::Rustix,
    ),
];

impl PollsBy {
    /// What version `version` of `package` waits in epoll by, if it does.
    pub(crate) fn of(package: &str, version: &str) -> Option<PollsBy> {
        let known = POLLS.iter().find(|(name, ..)| *name == package);
        let (_, versions, polls_by) = known?;
        let mut versions = versions.iter();
        versions
            .any(|beginning| version.starts_with(beginning))
            .then_some(*polls_by)
    }
}

/// What in a package blocks a worker, because it does not call the system by std.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Blocking {
    pub(crate) why: &'static str,
    /// What of it still blocks if the program has the patch of the C library. `None` if all of it parks.
    pub(crate) in_spite_of_patch: Option<&'static str>,
}

impl Blocking {
    /// By calls of the C library that the patch replaces.
    const fn in_libc(why: &'static str) -> Blocking {
        Blocking {
            why,
            in_spite_of_patch: None,
        }
    }

    /// By anything else.
    const fn elsewhere(why: &'static str) -> Blocking {
        Blocking {
            why,
            in_spite_of_patch: Some(why),
        }
    }
}

const OPENS_CONNECTIONS: &str = "connections that the library opens block";

/// Packages that call the system themselves, not by std, and what in them still blocks a worker.
const BLOCKING: &[(&str, Blocking)] = &[
    (
        "socket2",
        Blocking::in_libc(
            "`connect`, `accept`, `recv` and `send` of its `Socket` block; sockets converted to std's types park",
        ),
    ),
    (
        "rustix",
        Blocking::elsewhere("its functions are system calls: those that wait block"),
    ),
    (
        "nix",
        Blocking {
            why: "its functions are system calls: those that wait block",
            in_spite_of_patch: Some("waiting for signals blocks"),
        },
    ),
    (
        "openssl",
        Blocking::in_libc(
            "connections that the library opens block; streams that are passed to it park",
        ),
    ),
    (
        "libsqlite3-sys",
        Blocking::elsewhere(
            "queries compute and read files on the worker: wrap long ones in `greenroom::unblock`",
        ),
    ),
    ("curl-sys", Blocking::in_libc(OPENS_CONNECTIONS)),
    ("pq-sys", Blocking::in_libc(OPENS_CONNECTIONS)),
    ("mysqlclient-sys", Blocking::in_libc(OPENS_CONNECTIONS)),
];

impl DropIn {
    fn replaces(&self, package: &str, version: &str) -> bool {
        let mut versions = self.versions.iter();
        self.package == package && versions.any(|beginning| version.starts_with(beginning))
    }
}

impl Treatment {
    /// The treatment of `package` in version `version`. `except` has the names of the packages that keep the
    /// real std, with `-` for each `_`.
    pub(crate) fn of(package: &str, version: &str, except: &[String]) -> Treatment {
        if except.iter().any(|name| *name == package.replace('_', "-")) {
            return Treatment::Excepted;
        }
        match package {
            "greenroom" | "greenroom-std" | "greenroom-patch" => Treatment::Greenroom,
            name if KEEP_OS_THREADS.contains(&name) => Treatment::OsThreads,
            name => DROP_INS
                .iter()
                .find(|drop_in| drop_in.replaces(name, version))
                .map_or(Treatment::Patched, Treatment::DropIn),
        }
    }
}

/// What in `version` of `package` still blocks a worker. `None` if nothing is known to.
pub(crate) fn blocks(package: &str, version: &str) -> Option<Blocking> {
    let of_package = |drop_in: &&DropIn| drop_in.package == package;
    if let Some(drop_in) = DROP_INS.iter().find(of_package)
        && !drop_in.replaces(package, version)
    {
        let why = "this version has no drop-in, and blocks when it waits: update it";
        return Some(Blocking::in_libc(why));
    }
    let polls = POLLS.iter().find(|(name, ..)| *name == package);
    if let Some((.., polls_by)) = polls
        && PollsBy::of(package, version).is_none()
    {
        let why = "waiting in the poll of this version blocks";
        // polling called the C library before version 3.
        let is_old_polling = ["1.", "2."].iter().any(|old| version.starts_with(old));
        return Some(match polls_by {
            PollsBy::Rustix if !is_old_polling => Blocking::elsewhere(why),
            _ => Blocking::in_libc(why),
        });
    }
    let known = BLOCKING.iter().find(|(name, _)| *name == package);
    known.map(|(_, blocking)| *blocking)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_patched_unless_something_else_is_known_of_it() {
        let of = |package, version| Treatment::of(package, version, &["left-pad".into()]);
        assert_eq!(of("ureq", "2.0.0"), Treatment::Patched);
        assert_eq!(of("tokio", "1.0.0"), Treatment::OsThreads);
        assert_eq!(of("greenroom", "0.1.0"), Treatment::Greenroom);
        assert_eq!(of("left_pad", "1.0.0"), Treatment::Excepted);
        assert!(matches!(
            of("parking_lot_core", "0.9.12"),
            Treatment::DropIn(_)
        ));
        assert!(matches!(
            of("parking_lot_core", "0.10.0"),
            Treatment::DropIn(_)
        ));
        assert_eq!(of("parking_lot_core", "0.8.6"), Treatment::Patched);
        assert!(blocks("parking_lot_core", "0.8.6").is_some());
        assert_eq!(blocks("parking_lot_core", "0.9.12"), None);
        assert_eq!(PollsBy::of("mio", "1.2.5"), Some(PollsBy::Libc));
        assert_eq!(PollsBy::of("polling", "3.11.0"), Some(PollsBy::Rustix));
        assert_eq!(blocks("mio", "1.2.5"), None);
    }

    #[test]
    fn the_patch_of_the_c_library_reaches_what_does_not_make_system_calls_by_itself() {
        let with_patch = |package, version| blocks(package, version).unwrap().in_spite_of_patch;
        for (package, version) in [
            ("socket2", "0.6.0"),
            ("polling", "2.8.0"),
            ("mio", "0.6.0"),
            ("parking_lot_core", "0.8.6"),
        ] {
            assert_eq!(with_patch(package, version), None, "{package}");
        }
        for (package, version) in [("rustix", "1.1.0"), ("polling", "3.7.0"), ("nix", "0.31.0")] {
            assert!(with_patch(package, version).is_some(), "{package}");
        }
    }
}
