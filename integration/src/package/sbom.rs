//! The list of what an image is made of: owns its format, `CycloneDX` 1.6 as JSON. It names what the compiler was really given
//! for this program, with its features; `cargo-cyclonedx` 0.5 would name every package that any feature or test might need,
//! and when and where it was run. Nothing here depends on when or where.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context as _, Result};
use cargo_metadata::{DependencyKind, Node, Package, PackageId, TargetKind};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{Compiled, VERSION};

/// The SBOM of a program, compiled from `source`.
pub(super) fn sbom(compiled: &Compiled, program: &[u8], source: &Path) -> Result<Vec<u8>> {
    let graph = Graph::new(compiled)?;
    let checksums = checksums(source)?;
    let root = graph.root;
    let mut components: Vec<Value> = vec![
        part("rust-std", &compiled.rustc, "MIT OR Apache-2.0"),
        part("glibc", &glibc()?, "LGPL-2.1-or-later"),
        part("mozilla-certificate-authorities", webpki_root_certs_version(source)?.as_str(), "MPL-2.0"),
    ];
    let mut dependencies = Vec::new();
    for package in graph.packages.values() {
        let depends: Vec<String> = graph.needs(&package.id).map(reference).collect();
        dependencies.push(json!({ "ref": reference(package), "dependsOn": depends }));
        if package.id != root.id {
            let features = compiled.built.get(&package.id).map_or(&[][..], Vec::as_slice);
            let checksum = checksums.get(&(package.name.to_string(), package.version.to_string()));
            let is_inside = graph.inside.contains(&package.id);
            components.push(library(package, features, checksum.map(String::as_str), is_inside));
        }
    }
    let bom = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": reference(root),
                "name": compiled.component.program(),
                "version": VERSION,
                "licenses": licences(root),
                "hashes": [{ "alg": "SHA-256", "content": hex::encode(Sha256::digest(program)) }],
            },
            "properties": [{ "name": "rustc:target", "value": compiled.triple }],
        },
        "components": components,
        "dependencies": dependencies,
    });
    serde_json::to_vec_pretty(&bom).context("writing the SBOM")
}

/// What was compiled, and what of it is in the program.
struct Graph<'a> {
    root: &'a Package,
    /// By name and version.
    packages: BTreeMap<(&'a str, String), &'a Package>,
    by_id: BTreeMap<&'a PackageId, &'a Package>,
    nodes: BTreeMap<&'a PackageId, &'a Node>,
    /// What the program has code of. The others ran while it was compiled.
    inside: BTreeSet<&'a PackageId>,
}

impl<'a> Graph<'a> {
    fn new(compiled: &'a Compiled) -> Result<Self> {
        let metadata = &compiled.metadata;
        let is_built = |package: &&Package| compiled.built.contains_key(&package.id);
        let by_id: BTreeMap<_, _> = metadata.packages.iter().filter(is_built).map(|found| (&found.id, found)).collect();
        let name = compiled.component.name();
        let root = by_id.values().find(|package| package.name == name && package.source.is_none());
        let root = *root.with_context(|| format!("cargo compiled no package {name}"))?;
        let resolve = metadata.resolve.as_ref().context("cargo tells no dependencies")?;
        let nodes = resolve.nodes.iter().map(|node| (&node.id, node)).collect();
        let packages = by_id.values().map(|package| ((package.name.as_str(), package.version.to_string()), *package));
        let mut graph = Self { root, packages: packages.collect(), by_id, nodes, inside: BTreeSet::new() };
        let mut next = vec![&root.id];
        while let Some(id) = next.pop() {
            if graph.inside.insert(id) {
                next.extend(graph.edges(id).filter(|(_, is_inside)| *is_inside).map(|(package, _)| &package.id));
            }
        }
        Ok(graph)
    }

    /// What a package depends on, and whether its code comes to be where that package's is.
    fn edges(&self, id: &PackageId) -> impl Iterator<Item = (&'a Package, bool)> {
        let edges = self.nodes.get(id).into_iter().flat_map(|node| &node.deps);
        edges.filter_map(|edge| {
            let package = *self.by_id.get(&edge.pkg)?;
            let kinds: Vec<_> = edge.dep_kinds.iter().map(|kind| kind.kind).collect();
            let is_macro = package.targets.iter().any(|target| target.kind.contains(&TargetKind::ProcMacro));
            let is_tests = kinds.iter().all(|kind| *kind == DependencyKind::Development);
            (!is_tests).then_some((package, kinds.contains(&DependencyKind::Normal) && !is_macro))
        })
    }

    fn needs(&self, id: &PackageId) -> impl Iterator<Item = &'a Package> {
        self.edges(id).map(|(package, _)| package)
    }
}

fn library(package: &Package, features: &[String], checksum: Option<&str>, is_inside: bool) -> Value {
    let hashes: Vec<Value> = checksum.iter().map(|sum| json!({ "alg": "SHA-256", "content": sum })).collect();
    let links: Vec<Value> = package.repository.iter().map(|url| json!({ "type": "vcs", "url": url })).collect();
    let mut library = json!({
        "type": "library",
        "bom-ref": reference(package),
        "name": package.name,
        "version": package.version,
        // What only ran while the program was compiled is not in it.
        "scope": if is_inside { "required" } else { "excluded" },
        "licenses": licences(package),
        "hashes": hashes,
        "externalReferences": links,
        "properties": [{ "name": "cargo:features", "value": features.join(",") }],
    });
    if let (Some(library), true) = (library.as_object_mut(), package.source.is_some()) {
        library.insert("purl".to_owned(), json!(reference(package)));
    }
    library
}

/// Something that is no crate.
fn part(name: &str, version: &str, licence: &str) -> Value {
    let purl = format!("pkg:generic/{name}@{version}");
    json!({
        "type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl, "scope": "required",
        "licenses": [{ "expression": licence }],
    })
}

fn licences(package: &Package) -> Value {
    // Older crates separate alternatives in a way that is no expression.
    let expression = package.license.as_ref().map(|text| text.replace('/', " OR "));
    expression.map_or_else(|| json!([]), |expression| json!([{ "expression": expression }]))
}

fn reference(package: &Package) -> String {
    format!("pkg:cargo/{}@{}", package.name, package.version.to_string().replace('+', "%2B"))
}

/// SHA-256 of crates, by name and version.
fn checksums(source: &Path) -> Result<BTreeMap<(String, String), String>> {
    let packages = locked(source)?.into_iter().filter_map(|package| {
        let text = |key: &str| Some(package.get(key)?.as_str()?.to_owned());
        Some(((text("name")?, text("version")?), text("checksum")?))
    });
    Ok(packages.collect())
}

/// The certificates in the image are the crate's, which is no dependency of the program.
fn webpki_root_certs_version(source: &Path) -> Result<String> {
    let packages = locked(source)?;
    let package =
        packages.iter().find(|package| package.get("name").and_then(toml::Value::as_str) == Some(AUTHORITIES));
    let version = package.and_then(|package| package.get("version")?.as_str().map(str::to_owned));
    version.with_context(|| format!("Cargo.lock has no {AUTHORITIES}"))
}

const AUTHORITIES: &str = "webpki-root-certs";

fn locked(source: &Path) -> Result<Vec<toml::Value>> {
    let path = source.join("Cargo.lock");
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let mut lock: toml::Table = text.parse().with_context(|| format!("reading {}", path.display()))?;
    match lock.remove("package") {
        Some(toml::Value::Array(packages)) => Ok(packages),
        _ => anyhow::bail!("{} has no packages", path.display()),
    }
}

/// The version of the C library that is linked statically, as its own program says: `ldd (Debian GLIBC 2.36-9) 2.36`.
fn glibc() -> Result<String> {
    let answer = std::process::Command::new("ldd").arg("--version").output().context("running ldd --version")?;
    let text = String::from_utf8_lossy(&answer.stdout).into_owned();
    let line = text.lines().next().unwrap_or_default();
    let packaged = line.split_once("GLIBC ").and_then(|(_, rest)| rest.split(')').next());
    let version = packaged.or_else(|| line.split_whitespace().last());
    version.map(str::to_owned).context("`ldd --version` tells no version")
}
