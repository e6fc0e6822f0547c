//! `crictl` in a test's hand: owns how it is called and how its answers are read. The runtime's side is in `containerd`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use serde::Deserialize;
use serde_json::Value;

use crate::parts::{Parts, Tool};
use crate::process::{Invocation, Output, output};
use crate::run::RunDir;

/// Longer than any pull that a test waits for.
const LIMIT: Duration = Duration::from_mins(2);

/// The client of one runtime's socket.
#[derive(Clone, Debug)]
pub struct Crictl {
    run: Arc<RunDir>,
    program: PathBuf,
    config: PathBuf,
}

/// An image as the runtime lists it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RuntimeImage {
    /// The digest of its config.
    pub id: String,
    /// Names by tag.
    #[serde(default)]
    pub repo_tags: Vec<String>,
    /// Names by digest.
    #[serde(default)]
    pub repo_digests: Vec<String>,
    /// Bytes, as text.
    #[serde(default)]
    pub size: String,
    /// Whether the runtime keeps it in any case.
    #[serde(default)]
    pub pinned: bool,
}

impl RuntimeImage {
    /// Whether it goes by this name.
    pub fn is(&self, reference: &str) -> bool {
        self.repo_tags.iter().chain(&self.repo_digests).any(|name| name == reference)
    }
}

#[derive(Deserialize)]
struct List {
    #[serde(default)]
    images: Vec<RuntimeImage>,
}

impl Crictl {
    /// A client of the runtime at `socket`; its settings are kept in the folder `node` of the run.
    pub fn new(run: &Arc<RunDir>, parts: &Parts, node: &str, socket: &std::path::Path) -> Result<Self> {
        // A file of its own, so that the machine's /etc/crictl.yaml is never read.
        let endpoint = format!("unix://{}", socket.display());
        let config = serde_json::json!({ "runtime-endpoint": endpoint, "image-endpoint": endpoint, "timeout": 20 });
        let config = run.write(&format!("{node}/crictl.yaml"), serde_json::to_vec_pretty(&config)?)?;
        Ok(Self { run: Arc::clone(run), program: parts.path(Tool::Crictl)?, config })
    }

    /// Runs it with these arguments, whatever comes of it.
    pub async fn output(&self, args: &[&str]) -> Result<Output> {
        let invocation =
            Invocation::new("crictl", &self.program).arg("--config").arg(&self.config).args(args.iter().copied());
        output(&self.run, &invocation, LIMIT).await
    }

    /// Runs it with these arguments; an exit code other than 0 is an error with what it said.
    pub async fn run(&self, args: &[&str]) -> Result<String> {
        self.output(args).await?.success()
    }

    /// Pulls an image.
    pub async fn pull(&self, reference: &str) -> Result<()> {
        self.run(&["pull", reference]).await.map(drop)
    }

    /// All images.
    pub async fn images(&self) -> Result<Vec<RuntimeImage>> {
        let text = self.run(&["images", "--output", "json"]).await?;
        let list: List = serde_json::from_str(&text).with_context(|| format!("the list of images: {text}"))?;
        Ok(list.images)
    }

    /// The image of that name; a state for `eventually` if there is none.
    pub async fn image(&self, reference: &str) -> Result<RuntimeImage> {
        let images = self.images().await?;
        let names: Vec<_> = images.iter().flat_map(|image| image.repo_tags.clone()).collect();
        images
            .into_iter()
            .find(|image| image.is(reference))
            .ok_or_else(|| anyhow!("{reference} is not among {} images: {}", names.len(), names.join(" ")))
    }

    /// Whether there is an image of that name.
    pub async fn has(&self, reference: &str) -> Result<bool> {
        Ok(self.images().await?.iter().any(|image| image.is(reference)))
    }

    /// Removes an image.
    pub async fn remove(&self, reference: &str) -> Result<()> {
        self.run(&["rmi", reference]).await.map(drop)
    }

    /// What the runtime knows of an image (`ImageStatus`, verbose); an error if it has none of that name.
    pub async fn inspect(&self, reference: &str) -> Result<Value> {
        let text = self.run(&["inspecti", "--output", "json", reference]).await?;
        serde_json::from_str(&text).with_context(|| format!("the status of {reference}"))
    }
}
