//! The chart in the hand of the real Helm: owns which sets of values are kept as snapshots and how one is made. Installs
//! nothing.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::generate::Generated;
use crate::helm::Helm;

/// Name of the release, and of its namespace, in snapshots.
pub const RELEASE: &str = "warm-images";

/// Sets of values with a snapshot: the defaults, or a file of `helm/warm-images/ci`.
pub const CASES: [(&str, &str); 4] = [
    ("default", "integration/tests/chart/default.yaml"),
    ("minimal", "integration/tests/chart/minimal.yaml"),
    ("external-nats", "integration/tests/chart/external-nats.yaml"),
    ("production", "integration/tests/chart/production.yaml"),
];

/// What stands in a snapshot for what is made anew each time.
const GENERATED: &str = "<generated>";

/// The chart of this repository.
#[derive(Debug, Clone)]
pub struct Chart {
    helm: PathBuf,
    folder: PathBuf,
}

impl Chart {
    /// In the hand of the pinned Helm.
    pub fn new() -> Result<Self> {
        Self::by(Helm::Four)
    }

    /// In the hand of one Helm or the other, which is got if it is not there yet.
    pub fn by(helm: Helm) -> Result<Self> {
        Ok(Self { helm: helm.program()?, folder: Self::source() })
    }

    /// Its folder in the work tree.
    pub fn source() -> PathBuf {
        root().join("helm/warm-images")
    }

    /// What `values.yaml` says.
    pub fn default_values() -> Result<Value> {
        let path = Self::source().join("values.yaml");
        let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        serde_saphyr::from_str(&text).with_context(|| format!("reading {}", path.display()))
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A file of it.
    pub fn read(&self, name: &str) -> Result<String> {
        let path = self.folder.join(name);
        std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
    }

    /// Arguments that choose a set of values.
    pub fn values(&self, case: &str) -> Vec<String> {
        match case {
            "default" => Vec::new(),
            _ => vec!["--values".to_owned(), self.folder.join(format!("ci/{case}.yaml")).display().to_string()],
        }
    }

    /// Runs Helm.
    pub fn helm<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Result<Output> {
        let mut command = Command::new(&self.helm);
        command.args(args).output().with_context(|| format!("starting {}", self.helm.display()))
    }

    /// `helm template` with these arguments: all objects, or what Helm says is wrong.
    pub fn template<A: AsRef<str>>(&self, args: &[A]) -> Result<Result<String, String>> {
        let folder = self.folder.display().to_string();
        let fixed = ["template", RELEASE, &folder, "--namespace", RELEASE];
        let output = self.helm(fixed.into_iter().chain(args.iter().map(AsRef::as_ref)))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) })
    }

    /// All objects of a set of values.
    pub fn rendered(&self, case: &str) -> Result<String> {
        match self.template(&self.values(case))? {
            Ok(text) => Ok(text),
            Err(why) => bail!("the chart with the values `{case}`: {why}"),
        }
    }

    /// The snapshots as they ought to be.
    pub fn snapshots(&self) -> Result<Vec<Generated>> {
        CASES.iter().map(|(case, path)| Ok(Generated { path, text: masked(&self.rendered(case)?) })).collect()
    }
}

/// Without what Secrets hold.
fn masked(text: &str) -> String {
    let mut is_secret = false;
    let mut is_data = false;
    let mut masked = String::with_capacity(text.len());
    for line in text.lines() {
        if line == "---" {
            (is_secret, is_data) = (false, false);
        } else if line == "kind: Secret" {
            is_secret = true;
        } else if !line.starts_with(' ') {
            is_data = line == "data:";
        }
        match line.split_once(": ") {
            Some((key, _)) if is_secret && is_data => {
                masked.push_str(key);
                masked.push_str(": ");
                masked.push_str(GENERATED);
            }
            _ => masked.push_str(line),
        }
        masked.push('\n');
    }
    masked
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_secret_holds_is_masked() {
        let text = "kind: Secret\nmetadata:\n  name: a\ndata:\n  b: eA==\n---\nkind: ConfigMap\ndata:\n  c: d\n";
        assert_eq!(masked(text), text.replace("eA==", GENERATED));
    }
}
