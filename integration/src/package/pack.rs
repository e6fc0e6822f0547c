//! Packing an image: owns how `crane` makes one of archives, without a Docker engine, and what it says afterwards.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use flate2::Compression;

use super::{Component, Content, layer};
use crate::image::Platform;
use crate::parts::{Parts, Tool};

/// Makes images in a registry on this machine.
#[derive(Clone, Debug)]
pub struct Packer {
    crane: PathBuf,
    registry: SocketAddr,
    compression: Compression,
}

/// An image in that registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    /// Whose it is.
    pub component: Component,
    /// The name by which `crane` finds it.
    pub reference: String,
    /// Of its manifest.
    pub digest: String,
    /// Bytes of its files.
    pub bytes: u64,
    /// Bytes of its layers, which is what a pull moves.
    pub compressed: u64,
}

impl Packer {
    /// For a release: as small as can be.
    pub fn small(parts: &Parts, registry: SocketAddr) -> Result<Self> {
        Ok(Self { crane: parts.path(Tool::Crane)?, registry, compression: Compression::best() })
    }

    /// For a cluster on this machine: as quick as can be.
    pub fn quick(parts: &Parts, registry: SocketAddr) -> Result<Self> {
        Ok(Self { compression: Compression::fast(), ..Self::small(parts, registry)? })
    }

    /// Makes the image and pushes it under this tag.
    pub fn push(&self, content: &Content, tag: &str) -> Result<Packed> {
        let component = content.component;
        let folder = tempfile::tempdir().context("a folder for layers")?;
        let repository = format!("{}/{}", self.registry, component.repository());
        let reference = format!("{repository}:{tag}");
        // The tag itself appears with the whole image alone.
        let unfinished = format!("{repository}:{tag}-layers");
        let mut compressed = 0;
        let mut append = self.command(folder.path());
        append.args(["append", "--insecure", "--oci-empty-base", "--new_tag", &unfinished]);
        for (number, files) in content.layers.iter().enumerate() {
            let archive = layer::compressed(files, self.compression)?;
            compressed += archive.len() as u64;
            let path = folder.path().join(format!("{number}.tar.gz"));
            std::fs::write(&path, archive).with_context(|| format!("writing {}", path.display()))?;
            append.arg("--new_layer").arg(path);
        }
        run(append)?;
        let platform = Platform::here();
        let mut mutate = self.command(folder.path());
        mutate.args(["mutate", "--insecure", &unfinished, "--tag", &reference, "--user", component.user()]);
        mutate.args(["--set-platform", &format!("{}/{}", platform.os, platform.architecture)]);
        mutate.args(["--entrypoint", &content.entrypoint()]);
        for (key, value) in content.labels() {
            // A field of CSV: a value may have commas.
            mutate.args(["--label", &format!("\"{key}={value}\"")]);
        }
        run(mutate)?;
        let mut digest = self.command(folder.path());
        digest.args(["digest", "--insecure", &reference]);
        let digest = run(digest)?.trim().to_owned();
        Ok(Packed { component, reference, digest, bytes: content.bytes(), compressed })
    }

    /// Writes an image as an OCI layout into a folder, which is made anew.
    pub fn layout(&self, image: &Packed, folder: &Path) -> Result<()> {
        if folder.exists() {
            std::fs::remove_dir_all(folder).with_context(|| format!("removing {}", folder.display()))?;
        }
        let home = tempfile::tempdir().context("a home folder")?;
        let mut pull = self.command(home.path());
        pull.args(["pull", "--insecure", "--format", "oci", &image.reference]).arg(folder);
        run(pull).map(drop)
    }

    /// `crane`, without what a person has configured for it.
    fn command(&self, home: &Path) -> Command {
        let mut command = Command::new(&self.crane);
        command.env("HOME", home).env("DOCKER_CONFIG", home);
        command
    }
}

fn run(mut command: Command) -> Result<String> {
    let output = command.output().context("starting crane")?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
