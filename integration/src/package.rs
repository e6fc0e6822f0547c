//! The container images of the product: owns what is in each and how it is labelled. There is one definition; a release, a
//! local cluster and the `Dockerfile` differ in how the program was compiled and in who packs it, never in the content.

mod authorities;
mod compile;
mod layer;
mod layout;
mod pack;
mod sbom;

use std::path::Path;

use anyhow::{Context as _, Result};

pub use compile::Compiled;
pub use layer::File;
pub use layout::write_layout;
pub use pack::{Packed, Packer};

/// Files that are in the image of either, beside the program.
const AUTHORITIES: &str = "etc/ssl/certs/ca-certificates.crt";
const LICENCE: &str = "usr/share/warm-images/LICENSE";
const SBOM: &str = "usr/share/warm-images/sbom.cdx.json";

/// What has an image of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Component {
    /// `warm-controller`.
    Controller,
    /// `warm-agent`.
    Agent,
}

impl Component {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Controller, Self::Agent];

    /// The crate, and the last part of the image's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Controller => "controller",
            Self::Agent => "agent",
        }
    }

    /// The program.
    pub fn program(self) -> &'static str {
        match self {
            Self::Controller => "warm-controller",
            Self::Agent => "warm-agent",
        }
    }

    /// The repository below the registry, as the chart has it.
    pub fn repository(self) -> String {
        format!("warm-images/{}", self.name())
    }

    /// User and group. The agent's owns the runtime's socket and the state folder.
    pub fn user(self) -> &'static str {
        match self {
            Self::Controller => "65532:65532",
            Self::Agent => "0:0",
        }
    }

    /// Most bytes of all its files together (quality P8). What is pulled is smaller, being compressed.
    pub fn most_bytes(self) -> u64 {
        match self {
            Self::Controller => 20_000_000,
            Self::Agent => 12_000_000,
        }
    }

    fn description(self) -> &'static str {
        match self {
            Self::Controller => {
                "Watches workloads, publishes which image each node could be asked to run, labels nodes."
            }
            Self::Agent => "Pulls images through CRI before pods need them, verifies, keeps and reports them.",
        }
    }
}

/// The version of images, of the chart and of all crates.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Everything in the image of a component, layer by layer: what changes rarely first, so that it is shared.
#[derive(Clone, Debug)]
pub struct Content {
    /// Which one it is.
    pub component: Component,
    /// Files of each layer.
    pub layers: Vec<Vec<File>>,
}

impl Content {
    /// Of a program that was compiled from `source`, the top of a work tree.
    pub fn of(compiled: &Compiled, source: &Path) -> Result<Self> {
        let component = compiled.component;
        let program =
            std::fs::read(&compiled.program).with_context(|| format!("reading {}", compiled.program.display()))?;
        let licence = std::fs::read(source.join("LICENSE")).context("reading LICENSE")?;
        let sbom = sbom::sbom(compiled, &program, source)?;
        let shared = vec![File::text(AUTHORITIES, authorities::pem().into_bytes()), File::text(LICENCE, licence)];
        let own = vec![File::program(component.program(), program), File::text(SBOM, sbom)];
        Ok(Self { component, layers: vec![shared, own] })
    }

    /// What the image says of itself.
    pub fn labels(&self) -> Vec<(&'static str, &'static str)> {
        vec![
            ("org.opencontainers.image.description", self.component.description()),
            ("org.opencontainers.image.licenses", env!("CARGO_PKG_LICENSE")),
            ("org.opencontainers.image.title", self.component.program()),
            ("org.opencontainers.image.vendor", "warm-images"),
            ("org.opencontainers.image.version", VERSION),
        ]
    }

    /// What a container runs.
    pub fn entrypoint(&self) -> String {
        format!("/{}", self.component.program())
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.files().map(|file| file.content.len() as u64).sum()
    }

    /// All files.
    pub fn files(&self) -> impl Iterator<Item = &File> {
        self.layers.iter().flatten()
    }

    /// The list of what it was made of, `CycloneDX` as JSON.
    pub fn sbom(&self) -> Result<&[u8]> {
        let file = self.files().find(|file| file.path == SBOM).context("the image has no SBOM")?;
        Ok(&file.content)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chart::Chart;

    #[test]
    fn the_chart_asks_for_these_images() {
        let values = Chart::default_values().unwrap();
        let chart = std::fs::read_to_string(Chart::source().join("Chart.yaml")).unwrap();
        assert!(chart.contains(&format!("\nappVersion: {VERSION}\n")), "{chart}");
        for component in Component::ALL {
            let path = format!("/{}/image/repository", component.name());
            let asked = values.pointer(&path).and_then(serde_json::Value::as_str);
            assert_eq!(asked, Some(component.repository().as_str()));
        }
    }

    /// cargo 1.95 strips a package that has settings of its own only if those say so.
    #[test]
    fn programs_are_stripped() {
        let text = std::fs::read_to_string(crate::xtask::root().join("Cargo.toml")).unwrap();
        let manifest: toml::Table = text.parse().unwrap();
        let release = manifest.get("profile").and_then(|profile| profile.get("release")).unwrap();
        let strips = |settings: &toml::Value| settings.get("strip").and_then(toml::Value::as_bool) == Some(true);
        assert!(strips(release));
        for component in Component::ALL {
            let own = release.get("package").and_then(|packages| packages.get(component.name()));
            assert!(own.is_none_or(strips), "{}: {own:?}", component.name());
        }
    }

    #[test]
    fn the_dockerfile_packs_the_same() {
        let text = std::fs::read_to_string(crate::xtask::root().join("Dockerfile")).unwrap();
        for component in Component::ALL {
            let (name, program) = (component.name(), component.program());
            let (_, stage) = text.split_once(&format!("FROM scratch AS {name}\n")).unwrap();
            let stage = stage.split("\nFROM ").next().unwrap_or_default();
            for wanted in [
                format!("COPY --from=build /images/{name}/ /\n"),
                format!("USER {}\n", component.user()),
                format!("ENTRYPOINT [\"/{program}\"]\n"),
                format!("org.opencontainers.image.title=\"{program}\""),
                format!("org.opencontainers.image.licenses=\"{}\"", env!("CARGO_PKG_LICENSE")),
                format!("org.opencontainers.image.version=\"{VERSION}\""),
            ] {
                assert!(stage.contains(&wanted), "{name}: the Dockerfile lacks {wanted}");
            }
        }
        let toolchain = std::fs::read_to_string(crate::xtask::root().join("rust-toolchain.toml")).unwrap();
        let channel = toolchain.split('"').nth(1).unwrap();
        assert!(text.contains(&format!("FROM rust:{channel}-")), "another Rust than rust-toolchain.toml");
    }
}
