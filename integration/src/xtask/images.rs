//! `cargo xtask images`: the product's container images, made without a Docker engine, measured against their limits. Owns
//! what is written where and the table; what an image is stands in `package`.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::json;

use super::{root, say};
use crate::package::{Compiled, Component, Content, Packed, Packer, VERSION, write_layout};
use crate::parts::{Parts, Tool};
use crate::registry::Registry;
use crate::run::RunDir;

/// The registry of published images.
const REGISTRY: &str = "ghcr.io";

/// What to make.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Where images go; `target/images` of the work tree if not given.
    #[arg(long)]
    output: Option<PathBuf>,
    /// Only write the files of each image below this folder, for another tool to pack.
    #[arg(long)]
    tree: Option<PathBuf>,
    /// Build a second time from a copy of the sources in another place, and fail if anything differs.
    #[arg(long, conflicts_with = "tree")]
    twice: bool,
}

pub(super) fn run(args: &Args) -> Result<()> {
    let contents = compile(&root(), &root().join("target"))?;
    if let Some(folder) = &args.tree {
        return write_trees(&contents, folder);
    }
    let run = RunDir::new("images")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let output = args.output.clone().unwrap_or_else(|| root().join("target/images"));
    let images = runtime.block_on(async {
        let parts = Parts::ensure(&[Tool::Crane])?;
        let registry = Registry::start(&run, &parts).await?;
        let packer = Packer::small(&parts, registry.address())?;
        let images = pack(&packer, &contents)?;
        for (image, content) in images.iter().zip(&contents) {
            write(&packer, image, content, &output)?;
        }
        if args.twice {
            compare(&run, &packer, &images)?;
        }
        anyhow::Ok(images)
    })?;
    print(&images, &output)?;
    let large: Vec<_> = images.iter().filter(|image| image.bytes > image.component.most_bytes()).collect();
    ensure!(large.is_empty(), "larger than allowed: {}", names(large.iter().map(|image| image.component)));
    Ok(())
}

fn compile(source: &Path, target: &Path) -> Result<Vec<Content>> {
    let one = |component: Component| {
        let start = Instant::now();
        say(&format!("building {}, optimised and static", component.program()));
        let content = Content::of(&Compiled::release(component, source, target)?, source)?;
        say(&format!("built    {} in {:.1} s", component.program(), start.elapsed().as_secs_f64()));
        Ok(content)
    };
    Component::ALL.into_iter().map(one).collect()
}

fn pack(packer: &Packer, contents: &[Content]) -> Result<Vec<Packed>> {
    contents.iter().map(|content| packer.push(content, VERSION)).collect()
}

fn write_trees(contents: &[Content], folder: &Path) -> Result<()> {
    for content in contents {
        let folder = folder.join(content.component.name());
        for file in content.files() {
            file.write_below(&folder)?;
        }
        say(&format!("{}: {} bytes", folder.display(), content.bytes()));
    }
    Ok(())
}

fn write(packer: &Packer, image: &Packed, content: &Content, output: &Path) -> Result<()> {
    let name = image.component.name();
    let layout = output.join(name);
    packer.layout(image, &layout)?;
    write_layout(&layout, &published(image.component), &output.join(format!("{name}-{VERSION}.tar")))?;
    let sbom = output.join(format!("{name}-{VERSION}.cdx.json"));
    std::fs::write(&sbom, content.sbom()?).with_context(|| format!("writing {}", sbom.display()))
}

/// Builds once more from a copy of what is in the index and the work tree, with nothing compiled before.
fn compare(run: &Arc<RunDir>, packer: &Packer, images: &[Packed]) -> Result<()> {
    let place = run.folder("another/place")?;
    say("building everything a second time, elsewhere");
    copy_sources(&place)?;
    let again = pack(packer, &compile(&place, &run.folder("and/another")?)?)?;
    for (first, second) in images.iter().zip(&again) {
        let name = first.component.name();
        ensure!(
            first.digest == second.digest,
            "the image {name} differs when built elsewhere: {} and {}",
            first.digest,
            second.digest
        );
    }
    say("the second build gives the same digests");
    Ok(())
}

/// Every file that git knows, as it is now.
fn copy_sources(to: &Path) -> Result<()> {
    let mut list = Command::new("git");
    let list =
        list.args(["ls-files", "-z", "--cached"]).current_dir(root()).output().context("running git ls-files")?;
    if !list.status.success() {
        bail!("git ls-files: {}", String::from_utf8_lossy(&list.stderr));
    }
    for name in String::from_utf8_lossy(&list.stdout).split('\0').filter(|name| !name.is_empty()) {
        let (from, to) = (root().join(name), to.join(name));
        if let Some(parent) = to.parent() {
            std::fs::create_dir_all(parent).with_context(|| format!("creating {}", parent.display()))?;
        }
        if from.is_file() {
            std::fs::copy(&from, &to).with_context(|| format!("copying {}", from.display()))?;
        }
    }
    Ok(())
}

fn print(images: &[Packed], output: &Path) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let megabytes = |bytes: u64| format!("{:.2} MB", bytes as f64 / 1e6);
    writeln!(out, "\n{:<40} {:>10} {:>10} {:>10}  digest", "image", "files", "pulled", "limit")?;
    for image in images {
        let [files, pulled, limit] = [image.bytes, image.compressed, image.component.most_bytes()].map(megabytes);
        writeln!(out, "{:<40} {files:>10} {pulled:>10} {limit:>10}  {}", published(image.component), image.digest)?;
    }
    writeln!(out, "\nin {}: each as an OCI layout, its archive and its SBOM\n", output.display())?;
    let line: Vec<_> = images
        .iter()
        .map(|image| {
            json!({
                "image": published(image.component), "digest": image.digest,
                "bytes": image.bytes, "compressed": image.compressed, "limit": image.component.most_bytes(),
            })
        })
        .collect();
    writeln!(out, "{}", json!({ "images": line }))?;
    Ok(())
}

fn published(component: Component) -> String {
    format!("{REGISTRY}/{}:{VERSION}", component.repository())
}

fn names(components: impl Iterator<Item = Component>) -> String {
    components.map(Component::name).collect::<Vec<_>>().join(", ")
}
