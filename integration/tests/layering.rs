//! The rules of `docs/architecture.md` as a test: crate edges, purity, where which types may be named, sizes, names.
//!
//! Crate edges come from `cargo metadata`, everything inside a file from its syntax tree, never from its text.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a helper of a test fails the test")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};
use syn::visit::{self, Visit};

/// Who may depend on whom among ours, with the reason.
const EDGES: &[(&str, &[&str], &str)] = &[
    ("shared", &[], "shared is the vocabulary: it knows nobody"),
    ("daemon", &["shared"], "daemon is what both processes are built on: it knows neither of them"),
    ("cluster-plan", &["shared"], "deciding knows words, never I/O"),
    ("node-plan", &["shared"], "deciding knows words, never I/O"),
    ("controller", &["shared", "cluster-plan", "daemon"], "the controller never knows the agent crate"),
    ("agent", &["shared", "node-plan", "daemon"], "the agent never knows the controller crate"),
    (
        "simulation",
        &["shared", "cluster-plan", "node-plan", "controller", "agent"],
        "the simulation is both machines and the pure parts around them: nothing with I/O of its own",
    ),
    (
        "fleet",
        &["shared", "node-plan", "daemon", "agent"],
        "a fleet is agents in one process: it knows no controller and no Kubernetes",
    ),
];

/// Crates that some of ours must never list, with the reason.
const FORBIDDEN: &[(&[&str], &[&str], &str)] = &[
    (
        &["shared", "cluster-plan", "node-plan"],
        &["tokio", "futures", "kube", "k8s-openapi", "async-nats", "tonic", "prost", "hyper", "tracing", "metrics"],
        "pure crates have no async, no I/O, no clock: what they need comes in as a fact",
    ),
    (&["daemon"], &["kube", "k8s-openapi", "tonic", "prost"], "daemon knows neither Kubernetes nor CRI"),
    (&["agent"], &["kube", "k8s-openapi"], "agents have no Kubernetes API"),
    (&["controller"], &["tonic", "prost"], "the controller never speaks CRI"),
];

const PURE: &[&str] = &["shared/src", "controller/plan/src", "agent/plan/src"];
const CODE: &[&str] = &[
    "shared/src",
    "shared/daemon/src",
    "controller/plan/src",
    "controller/src",
    "agent/plan/src",
    "agent/src",
    "integration/src",
    "integration/sim/src",
    "integration/fleet/src",
];

/// A root of paths and the only places that may name it.
const PLACES: &[(&[&str], &[&str], &str)] = &[
    (
        &["async_nats"],
        &["shared/daemon/src/bus", "controller/src/bus", "agent/src/bus", "integration/src"],
        "NATS is behind daemon::bus",
    ),
    (
        &["kube", "k8s_openapi"],
        &[
            "controller/src/api",
            "controller/src/watch",
            "controller/src/act",
            "controller/src/cleanup",
            "controller/src/leader",
            "controller/src/webhook",
            "integration/src",
        ],
        "Kubernetes types stay at the edge; inside there are domain views",
    ),
    (
        &["tonic", "prost", "tonic_prost", "hyper_util", "tower"],
        &["agent/src/cri", "integration/src"],
        "CRI is behind agent::cri",
    ),
    (&["std::env"], &["shared/daemon/src/config", "integration/src"], "environment is read in daemon::config alone"),
    (
        &["tokio::spawn", "tokio::task"],
        &["shared/daemon/src/supervise", "integration/src"],
        "tasks are spawned by daemon::supervise",
    ),
    (
        &["metrics::counter!", "metrics::gauge!", "metrics::histogram!"],
        &["shared/daemon/src/metrics"],
        "metrics come from the one table through daemon::metrics",
    ),
    (
        &["std::time::Instant", "std::time::SystemTime"],
        &["shared/daemon/src", "controller/src", "agent/src", "integration/src"],
        "pure crates get the time as an input",
    ),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn metadata() -> Metadata {
    MetadataCommand::new().manifest_path(root().join("Cargo.toml")).no_deps().exec().unwrap()
}

fn sources(folders: &[&str]) -> Vec<PathBuf> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    for folder in folders {
        walk(&root().join(folder), &mut found);
    }
    found.sort();
    assert!(found.len() >= folders.len(), "no sources under {folders:?}: the rule would hold of nothing");
    found
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().display().to_string()
}

/// What a file names outside its tests.
#[derive(Default)]
struct Names {
    /// Full paths of `use` items and of expressions and types that begin with a crate.
    paths: BTreeSet<String>,
    /// Constructs of interest: `async`, `await`.
    constructs: BTreeSet<&'static str>,
}

fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|a| {
        let text = quote(a);
        text.contains("cfg(test)") || text == "#[test]" || text.contains("tokio::test")
    })
}

fn quote(attribute: &syn::Attribute) -> String {
    match &attribute.meta {
        syn::Meta::Path(path) => format!("#[{}]", joined(path)),
        syn::Meta::List(list) => format!("{}({})", joined(&list.path), list.tokens),
        syn::Meta::NameValue(pair) => joined(&pair.path),
    }
}

fn joined(path: &syn::Path) -> String {
    path.segments.iter().map(|s| s.ident.to_string()).collect::<Vec<_>>().join("::")
}

fn flatten(tree: &syn::UseTree, prefix: &str, into: &mut BTreeSet<String>) {
    let under = |name: &dyn std::fmt::Display| {
        if prefix.is_empty() { name.to_string() } else { format!("{prefix}::{name}") }
    };
    match tree {
        syn::UseTree::Path(path) => flatten(&path.tree, &under(&path.ident), into),
        syn::UseTree::Name(name) => {
            into.insert(under(&name.ident));
        }
        syn::UseTree::Rename(rename) => {
            into.insert(under(&rename.ident));
        }
        syn::UseTree::Glob(_) => {
            into.insert(under(&"*"));
        }
        syn::UseTree::Group(group) => group.items.iter().for_each(|t| flatten(t, prefix, into)),
    }
}

impl<'a> Visit<'a> for Names {
    fn visit_item(&mut self, item: &'a syn::Item) {
        let attributes = match item {
            syn::Item::Mod(i) => &i.attrs,
            syn::Item::Fn(i) => &i.attrs,
            syn::Item::Impl(i) => &i.attrs,
            syn::Item::Use(i) => &i.attrs,
            _ => return visit::visit_item(self, item),
        };
        if !is_test(attributes) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'a syn::ItemUse) {
        flatten(&item.tree, "", &mut self.paths);
    }

    fn visit_path(&mut self, path: &'a syn::Path) {
        let name = joined(path);
        // A single lower-case word is a variable, not a crate.
        if name.contains("::") || name.starts_with(char::is_uppercase) {
            self.paths.insert(name);
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, called: &'a syn::Macro) {
        self.paths.insert(format!("{}!", joined(&called.path)));
    }

    fn visit_signature(&mut self, signature: &'a syn::Signature) {
        if signature.asyncness.is_some() {
            self.constructs.insert("async fn");
        }
        visit::visit_signature(self, signature);
    }

    fn visit_expr_async(&mut self, expression: &'a syn::ExprAsync) {
        self.constructs.insert("async block");
        visit::visit_expr_async(self, expression);
    }

    fn visit_expr_await(&mut self, expression: &'a syn::ExprAwait) {
        self.constructs.insert(".await");
        visit::visit_expr_await(self, expression);
    }
}

/// A file that holds only tests, whatever it is a module of.
fn holds_tests(path: &Path) -> bool {
    path.file_stem().is_some_and(|stem| stem == "tests" || stem.to_string_lossy().ends_with("_tests"))
        || path.components().any(|c| c.as_os_str() == "tests")
}

fn names(path: &Path) -> Names {
    let text = std::fs::read_to_string(path).unwrap();
    let file = syn::parse_file(&text).unwrap_or_else(|e| panic!("{}: {e}", shown(path)));
    let mut names = Names::default();
    if !is_test(&file.attrs) && !holds_tests(path) {
        names.visit_file(&file);
    }
    names
}

fn begins(path: &str, root: &str) -> bool {
    path == root || path.strip_prefix(root).is_some_and(|rest| rest.starts_with("::"))
}

fn assert_none(rule: &str, found: &[String]) {
    assert!(found.is_empty(), "{rule}\n  {}", found.join("\n  "));
}

#[test]
fn crates_depend_only_as_the_table_says() {
    let metadata = metadata();
    let ours: BTreeSet<String> = metadata.workspace_packages().iter().map(|p| p.name.to_string()).collect();
    let expected: BTreeSet<String> =
        EDGES.iter().map(|(name, ..)| (*name).to_owned()).chain(["integration".to_owned()]).collect();
    assert_eq!(ours, expected, "a crate came or went: say in EDGES what it may know");
    let mut found = Vec::new();
    for package in metadata.workspace_packages() {
        let normal = package.dependencies.iter().filter(|d| d.kind != DependencyKind::Development);
        for dependency in normal {
            let (from, to) = (package.name.as_str(), dependency.name.as_str());
            if let Some((_, allowed, why)) = EDGES.iter().find(|(name, ..)| *name == from)
                && ours.contains(to)
                && !allowed.contains(&to)
            {
                found.push(format!("{from} -> {to}: {why}"));
            }
            if to == "integration" {
                found.push(format!("{from} -> integration: nothing imports the harness"));
            }
            for (crates, forbidden, why) in FORBIDDEN {
                if crates.contains(&from) && forbidden.contains(&to) {
                    found.push(format!("{from} -> {to}: {why}"));
                }
            }
        }
    }
    assert_none("crate edges:", &found);
}

#[test]
fn pure_crates_have_no_async_no_io_no_clock_and_ordered_maps_only() {
    let banned = [
        "std::fs",
        "std::net",
        "std::env",
        "std::thread",
        "std::process",
        "std::io",
        "std::time::Instant",
        "std::time::SystemTime",
        "std::collections::HashMap",
        "std::collections::HashSet",
        "HashMap",
        "HashSet",
        "Instant",
        "SystemTime",
    ];
    let clocks_and_dice =
        ["Timestamp::now", "Instant::now", "SystemTime::now", "Zoned::now", "Rng::new", "fastrand::Rng::new"];
    let mut found = Vec::new();
    for path in sources(PURE) {
        let names = names(&path);
        for construct in &names.constructs {
            found.push(format!("{}: {construct}", shown(&path)));
        }
        for name in &names.paths {
            let global_dice = name.strip_prefix("fastrand::").is_some_and(|rest| !rest.starts_with("Rng"));
            if banned.iter().any(|b| begins(name, b))
                || clocks_and_dice.iter().any(|c| name.ends_with(c))
                || global_dice
            {
                found.push(format!("{}: {name}", shown(&path)));
            }
        }
    }
    assert_none("a pure crate takes values and returns values; time and randomness are inputs:", &found);
}

#[test]
fn foreign_types_stay_where_they_belong() {
    let mut found = Vec::new();
    for path in sources(CODE) {
        let file = shown(&path);
        let names = names(&path);
        for (roots, places, why) in PLACES {
            let stem = file.trim_end_matches(".rs");
            if places.iter().any(|p| stem == *p || file.starts_with(&format!("{p}/"))) {
                continue;
            }
            for name in names.paths.iter().filter(|n| roots.iter().any(|r| begins(n, r))) {
                found.push(format!("{file}: {name}: {why}"));
            }
        }
    }
    assert_none("types out of their place:", &found);
}

#[test]
fn watching_and_acting_never_import_each_other() {
    let mut found = Vec::new();
    for path in sources(&["controller/src", "agent/src"]) {
        let file = shown(&path);
        let part = file.split("/src/").nth(1).unwrap_or_default().to_owned();
        let inside = |name: &str| part == format!("{name}.rs") || part.starts_with(&format!("{name}/"));
        let names = names(&path);
        let imports = |module: &str| {
            names.paths.iter().any(|n| begins(n, &format!("crate::{module}")) || begins(n, &format!("super::{module}")))
        };
        if inside("watch") && imports("act") || inside("act") && imports("watch") {
            found.push(format!("{file}: facts and effects meet in app.rs alone"));
        }
        if !inside("watch") && !inside("act") && imports("watch") && imports("act") && part != "app.rs" {
            found.push(format!("{file}: only app.rs knows both watch and act"));
        }
        let knows_cri = names.paths.iter().any(|n| n.contains("cri::proto") || n.contains("cri::v1"));
        if knows_cri && !inside("cri") {
            found.push(format!("{file}: CRI types stay in agent/src/cri"));
        }
    }
    assert_none("module edges:", &found);
}

#[test]
fn files_are_small_and_say_what_they_own() {
    let mut found = Vec::new();
    for path in sources(CODE) {
        let text = std::fs::read_to_string(&path).unwrap();
        let tests = text.lines().position(|l| l.starts_with("#[cfg(test)]")).unwrap_or(text.lines().count());
        if tests > 600 && !holds_tests(&path) {
            found.push(format!("{}: {tests} lines before its tests; 600 at most, about 400 is right", shown(&path)));
        }
        if !text.starts_with("//!") && !holds_tests(&path) {
            found.push(format!("{}: begins without `//!`: what it owns, what it never does", shown(&path)));
        }
    }
    assert_none("files:", &found);
}

#[test]
fn no_drawer_is_called_util_common_helpers_or_misc() {
    let mut folders: BTreeMap<String, PathBuf> = BTreeMap::new();
    for path in sources(CODE) {
        for part in path.strip_prefix(root()).unwrap().components() {
            folders.insert(part.as_os_str().to_string_lossy().trim_end_matches(".rs").to_owned(), path.clone());
        }
    }
    let found: Vec<String> = ["util", "utils", "common", "helper", "helpers", "misc"]
        .iter()
        .filter_map(|name| folders.get(*name))
        .map(|path| shown(path))
        .collect();
    assert_none("a file is named after the one type or verb it holds:", &found);
}
