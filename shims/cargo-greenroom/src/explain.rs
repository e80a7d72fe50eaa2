//! The packages of the program, and what `--explain` says of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use cargo_metadata::{DependencyKind, Metadata, PackageId, TargetKind};

use crate::crates::{self, PollsBy, Treatment};
use crate::error::{Error, Result};

/// The packages of a program, and what happens to each.
pub(crate) struct Graph {
    /// The packages that cargo may compile for the target, by name and version.
    packages: BTreeMap<(String, String), Treatment>,
    /// Proc macros, and the packages that only proc macros and build scripts depend on. They run during the
    /// build, on the real std.
    of_compiler: BTreeSet<String>,
    /// The features of greenroom that the program asks for.
    pub(crate) greenroom_features: Vec<String>,
}

impl Graph {
    /// # Errors
    ///
    /// If the program depends on another version of greenroom than the facade is built on, or `except`
    /// names a crate that the program does not have.
    pub(crate) fn of(metadata: &Metadata, except: &[String]) -> Result<Graph> {
        let resolve = metadata
            .resolve
            .as_ref()
            .ok_or_else(|| Error::new("cargo lists no dependencies of the program"))?;
        let nodes: BTreeMap<&PackageId, _> =
            resolve.nodes.iter().map(|node| (&node.id, node)).collect();
        let is_proc_macro = |id: &PackageId| {
            let targets = &metadata[id].targets;
            targets
                .iter()
                .any(|target| target.kind.contains(&TargetKind::ProcMacro))
        };
        let mut target = BTreeSet::new();
        let mut compiler = BTreeSet::new();
        let mut open: Vec<(&PackageId, bool)> = metadata
            .workspace_members
            .iter()
            .map(|id| (id, false))
            .collect();
        // A package that the target and a build script depend on is compiled twice, and visited twice.
        while let Some((id, in_compiler)) = open.pop() {
            let in_compiler = in_compiler || is_proc_macro(id);
            let seen = if in_compiler {
                &mut compiler
            } else {
                &mut target
            };
            if !seen.insert(id) {
                continue;
            }
            for dependency in nodes.get(id).map_or(&[][..], |node| &node.deps) {
                for kind in &dependency.dep_kinds {
                    let for_build = kind.kind == DependencyKind::Build;
                    open.push((&dependency.pkg, in_compiler || for_build));
                }
            }
        }
        let mut packages = BTreeMap::new();
        let mut greenroom_features = BTreeSet::new();
        for id in &target {
            let package = &metadata[*id];
            let name = package.name.to_string();
            let version = package.version.to_string();
            let treatment = Treatment::of(&name, &version, except);
            if treatment == Treatment::Greenroom {
                if version != env!("CARGO_PKG_VERSION") {
                    return Err(Error::new(format!(
                        "the program depends on {name} {version}, but this cargo-greenroom is version {}: install \
                         cargo-greenroom {version}",
                        env!("CARGO_PKG_VERSION")
                    )));
                }
                let features = nodes.get(*id).map_or(&[][..], |node| &node.features);
                let known = features.iter().map(|feature| feature.to_string());
                greenroom_features.extend(known.filter(|feature| feature != "default"));
            }
            packages.insert((name, version), treatment);
        }
        for name in except {
            let mut names = packages.keys().map(|(name, _)| name.replace('_', "-"));
            if !names.any(|known| known == *name) {
                return Err(Error::new(format!(
                    "--except {name}: no such crate among the program's dependencies"
                )));
            }
        }
        let of_compiler = compiler.difference(&target);
        Ok(Graph {
            of_compiler: of_compiler
                .map(|id| metadata[*id].name.to_string())
                .collect(),
            packages,
            greenroom_features: greenroom_features.into_iter().collect(),
        })
    }

    /// Whether the program depends on the crate with the patch of the C library.
    pub(crate) fn names_patch(&self) -> bool {
        let mut names = self.packages.keys().map(|(name, _)| name);
        names.any(|name| name == "greenroom-patch")
    }

    /// What is patched, what is not, and what still blocks: without the patch of the C library, or with it.
    pub(crate) fn explain(&self, with_libc: bool) -> String {
        let mut text = String::new();
        let all = |wanted: fn(&Treatment) -> bool| {
            let packages = self
                .packages
                .iter()
                .filter(move |(_, treatment)| wanted(treatment));
            packages
                .map(|((name, version), _)| format!("{name} {version}"))
                .collect::<Vec<_>>()
        };
        let mut section = |title: &str, lines: Vec<String>| {
            if !lines.is_empty() {
                let _ = writeln!(text, "{title}:");
                lines.iter().for_each(|line| {
                    let _ = writeln!(text, "  {line}");
                });
            }
        };
        section(
            "on greenroom's std",
            all(|treatment| matches!(treatment, Treatment::Patched | Treatment::OsThreads)),
        );
        section(
            "of these, some start threads of their own, which stay OS threads",
            all(|treatment| *treatment == Treatment::OsThreads),
        );
        let drop_ins = self
            .packages
            .iter()
            .filter_map(|((name, version), treatment)| match treatment {
                Treatment::DropIn(drop_in) => Some(format!("{name} {version}: {}", drop_in.why)),
                _ => None,
            });
        section("replaced by a drop-in", drop_ins.collect());
        let polls = self.packages.iter().filter(|((name, version), treatment)| {
            **treatment != Treatment::Excepted && PollsBy::of(name, version).is_some()
        });
        section(
            "waiting in their polls parks the coroutine",
            polls
                .map(|((name, version), _)| format!("{name} {version}"))
                .collect(),
        );
        section(
            "named by the program, which gets the greenroom that its std is built on",
            all(|treatment| *treatment == Treatment::Greenroom),
        );
        section(
            "on the real std, because of --except",
            all(|treatment| *treatment == Treatment::Excepted),
        );
        section(
            "not patched: proc macros, and the dependencies of proc macros and build scripts",
            self.of_compiler.iter().cloned().collect(),
        );
        let mut parking = Vec::new();
        let mut blocking = Vec::new();
        for (name, version) in self.packages.keys() {
            let Some(known) = crates::blocks(name, version) else {
                continue;
            };
            let reached_by_patch = known.in_spite_of_patch != Some(known.why);
            let why = match known.in_spite_of_patch {
                in_spite if with_libc => in_spite.map(str::to_owned),
                _ if reached_by_patch => Some(format!("{} (not with --libc)", known.why)),
                _ => Some(known.why.to_owned()),
            };
            if with_libc && reached_by_patch {
                parking.push(format!("{name} {version}"));
            }
            blocking.extend(why.map(|why| format!("{name} {version}: {why}")));
        }
        section(
            "waiting in their calls of the C library parks the coroutine, because of --libc",
            parking,
        );
        section(
            "can still block a worker, because they call the system or a C library themselves",
            blocking,
        );
        text
    }
}
