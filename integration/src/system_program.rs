//! Programs that the system has to bring, because they are no Go modules: owns finding them, getting them where that is
//! possible, and otherwise saying how.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::xtask::say;

/// Where programs for root are, which a user's PATH may lack.
const SYSTEM: [&str; 2] = ["/usr/sbin", "/sbin"];

/// What pods are run with, and the Debian package of each.
pub const FOR_PODS: [(&str, &str); 4] =
    [("runc", "runc"), ("nft", "nftables"), ("ip", "iproute2"), ("busybox", "busybox-static")];

/// What reads metrics and judges rules, and the Debian package it comes with.
pub const FOR_METRICS: [(&str, &str); 2] = [("prometheus", "prometheus"), ("promtool", "prometheus")];

/// What reads a Python package, and the Debian package it comes with.
pub const FOR_PYTHON: [(&str, &str); 2] = [("python3", "python3"), ("pip3", "python3-pip")];

/// The program of that name, or an error that says how to get it.
pub fn find(name: &str) -> Result<PathBuf> {
    look_for(name).with_context(|| {
        let known = FOR_PODS.iter().chain(&FOR_METRICS).chain(&FOR_PYTHON).find(|(program, _)| *program == name);
        let package = known.map_or(name, |(_, package)| package);
        format!("the real parts and their tests need `{name}`, which is not there; {}", remedy(&[package]))
    })
}

/// Has these programs there: on Debian, as root, what is missing is installed. Otherwise an error names all of it.
pub fn ensure(programs: &[(&str, &str)]) -> Result<()> {
    let missing: Vec<_> = programs.iter().filter(|(program, _)| look_for(program).is_none()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let mut packages: Vec<&str> = missing.iter().map(|(_, package)| *package).collect();
    packages.dedup();
    let names: Vec<_> = missing.iter().map(|(program, _)| format!("`{program}`")).collect();
    let names = names.join(", ");
    let Some(apt) = look_for("apt-get").filter(|_| rustix::process::getuid().is_root()) else {
        bail!("the real parts and their tests need {names}; {}", remedy(&packages));
    };
    say(&format!("installing what is missing: {}", packages.join(" ")));
    let run = |args: &[&str]| {
        let mut command = Command::new(&apt);
        let command = command.args(args).env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null());
        command.stdout(Stdio::null()).status().is_ok_and(|status| status.success())
    };
    let install: Vec<&str> = ["install", "--yes", "--quiet", "--no-install-recommends"]
        .into_iter()
        .chain(packages.iter().copied())
        .collect();
    // A fresh machine knows of no packages yet.
    let is_done = run(&install) || (run(&["update", "--quiet"]) && run(&install));
    if !is_done || missing.iter().any(|(program, _)| look_for(program).is_none()) {
        bail!("{names} could not be installed; {}", remedy(&packages));
    }
    Ok(())
}

/// A `PATH` with `first` before all.
pub fn path(first: &Path) -> Result<OsString> {
    std::env::join_paths(std::iter::once(first.to_owned()).chain(folders())).context("a PATH")
}

fn remedy(packages: &[&str]) -> String {
    format!("on Debian, as root: apt-get install --no-install-recommends {}", packages.join(" "))
}

fn look_for(name: &str) -> Option<PathBuf> {
    folders().into_iter().map(|folder| folder.join(name)).find(|path| path.is_file())
}

fn folders() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).chain(SYSTEM.map(PathBuf::from)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_with_its_package() {
        let error = find("no-such-program").unwrap_err().to_string();
        assert!(error.contains("`no-such-program`") && error.contains("apt-get install"), "{error}");
        let there = [("sh", "dash")];
        assert!(ensure(&there).is_ok());
    }
}
