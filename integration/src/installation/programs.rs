//! The programs under test: owns that they are built from the sources at hand, and where they are.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

/// The programs under test.
#[derive(Clone, Debug)]
pub struct Programs {
    /// `warm-controller`.
    pub controller: PathBuf,
    /// `warm-agent`.
    pub agent: PathBuf,
}

impl Programs {
    /// Builds them if need be, so that a test never runs an older one, and says where they are.
    pub fn built() -> Result<Self> {
        static BUILT: std::sync::Mutex<Option<PathBuf>> = std::sync::Mutex::new(None);
        let mut built = BUILT.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let folder = if let Some(folder) = &*built {
            folder.clone()
        } else {
            build(&["--quiet"])?;
            let me = std::env::current_exe().context("the path of this program")?;
            let folder =
                me.ancestors().skip(1).find(|folder| folder.join("warm-agent").is_file()).with_context(|| {
                    format!("cargo built warm-agent, yet it is in no folder above {}", me.display())
                })?;
            built.insert(folder.to_path_buf()).clone()
        };
        Ok(Self::in_folder(&folder))
    }

    /// The same, optimised.
    pub fn release() -> Result<Self> {
        build(&["--release"])?;
        let debug = Self::built()?;
        let folder = debug.agent.ancestors().nth(2).context("the target folder")?.join("release");
        Ok(Self::in_folder(&folder))
    }

    /// `warm-fleet`, built as these are, and together with them: alone it would have its dependencies built again, with
    /// other features.
    pub fn fleet(&self) -> Result<PathBuf> {
        let folder = self.agent.parent().context("the folder of the programs")?;
        let how = if folder.ends_with("release") { "--release" } else { "--quiet" };
        let what = ["build", "--locked", "-p", "controller", "-p", "agent", "-p", "fleet", "--bins", how];
        crate::xtask::cargo(&what, &[])?;
        Ok(folder.join("warm-fleet"))
    }

    fn in_folder(folder: &std::path::Path) -> Self {
        Self { controller: folder.join("warm-controller"), agent: folder.join("warm-agent") }
    }
}

fn build(how: &[&str]) -> Result<()> {
    let what = ["build", "--locked", "-p", "controller", "-p", "agent", "--bins"];
    crate::xtask::cargo(&[&what[..], how].concat(), &[])
}
