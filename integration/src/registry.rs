//! A real registry (plain HTTP, loopback) and small real images in it: owns the process, its store and pushing. Faults are
//! the proxy's; what an image is made of is in `image`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use hyper::{Method, StatusCode};

use crate::http::Http;
use crate::image::{Blob, Built, Image, Platform, Published, index};
use crate::parts::{Parts, Tool};
use crate::port::Port;
use crate::process::{Invocation, Process};
use crate::run::RunDir;

const READY: Duration = Duration::from_secs(20);

/// A running registry.
pub struct Registry {
    process: Process,
    address: SocketAddr,
    _port: Option<Port>,
    store: PathBuf,
    http: Http,
    /// Every manifest pushed, by repository and tag or digest: the registry keeps those in memory alone.
    manifests: Mutex<BTreeMap<(String, String), Blob>>,
}

impl Registry {
    /// Starts an empty registry.
    pub async fn start(run: &Arc<RunDir>, parts: &Parts) -> Result<Self> {
        Self::named(run, parts, "registry").await
    }

    /// Starts one more registry under a name of its own (its log and store are called so).
    pub async fn named(run: &Arc<RunDir>, parts: &Parts, name: &str) -> Result<Self> {
        let port = Port::free()?;
        Self::listening(run, parts, name, port.address(), Some(port)).await
    }

    /// Starts an empty registry at a given address.
    pub async fn start_at(run: &Arc<RunDir>, parts: &Parts, address: SocketAddr) -> Result<Self> {
        Self::listening(run, parts, "registry", address, None).await
    }

    async fn listening(
        run: &Arc<RunDir>,
        parts: &Parts,
        name: &str,
        address: SocketAddr,
        port: Option<Port>,
    ) -> Result<Self> {
        let store = run.folder(name)?;
        let invocation = Invocation::new(name, parts.path(Tool::Crane)?)
            .args(["registry", "serve", "--address"])
            .arg(address.to_string())
            .arg("--disk")
            .arg(&store);
        let mut registry = Self {
            process: Process::start(run, invocation)?,
            address,
            _port: port,
            store,
            http: Http::new(),
            manifests: Mutex::default(),
        };
        registry.until_ready().await?;
        Ok(registry)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it keeps blobs, to damage them.
    pub fn store(&self) -> &std::path::Path {
        &self.store
    }

    /// Waits until it answers.
    pub async fn until_ready(&mut self) -> Result<()> {
        let url = self.url("");
        let http = &self.http;
        self.process.until_ready(READY, async || http.answers(&url).await).await
    }

    /// SIGKILL and start; afterwards it has what it had before.
    pub async fn restart(&mut self) -> Result<()> {
        self.process.restart()?;
        self.until_ready().await?;
        let manifests = self.known().clone();
        for ((repository, reference), manifest) in &manifests {
            self.put_manifest(repository, reference, manifest).await?;
        }
        Ok(())
    }

    /// Its process. It forgets manifests when it ends; see [`Self::restart`].
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Makes the image and pushes it; pushing to the same tag again moves the tag.
    pub async fn push(&self, image: &Image) -> Result<Published> {
        let built = image.build()?;
        self.push_built(image.repository(), image.tag(), &built).await
    }

    /// Makes one image a platform and pushes them under an index, whose digest is the published one.
    pub async fn push_index(&self, repository: &str, tag: &str, images: &[(Platform, Image)]) -> Result<Published> {
        let mut manifests = Vec::new();
        for (platform, image) in images {
            let built = image.clone().platform(platform.clone()).build()?;
            self.push_built(repository, &built.manifest.digest, &built).await?;
            manifests.push((platform.clone(), built));
        }
        let (index, here) = index(&manifests)?;
        self.put_manifest(repository, tag, &index).await?;
        Ok(Published::new(repository, tag, &index, here))
    }

    async fn push_built(&self, repository: &str, tag: &str, built: &Built) -> Result<Published> {
        for blob in built.layers.iter().chain([&built.config]) {
            self.put_blob(repository, blob).await?;
        }
        self.put_manifest(repository, tag, &built.manifest).await?;
        Ok(Published::new(repository, tag, &built.manifest, Some(built)))
    }

    /// Removes a tag or a digest.
    pub async fn delete(&self, repository: &str, reference: &str) -> Result<()> {
        let url = self.url(&format!("{repository}/manifests/{reference}"));
        self.http.send(Method::DELETE, &url, &[], Bytes::new()).await?.success()?;
        self.known().remove(&(repository.to_owned(), reference.to_owned()));
        Ok(())
    }

    async fn put_blob(&self, repository: &str, blob: &Blob) -> Result<()> {
        let digest = &blob.digest;
        let url = self.url(&format!("{repository}/blobs/{digest}"));
        if self.http.send(Method::HEAD, &url, &[], Bytes::new()).await?.status == StatusCode::OK {
            return Ok(());
        }
        let url = self.url(&format!("{repository}/blobs/uploads/"));
        let begun = self.http.send(Method::POST, &url, &[], Bytes::new()).await?;
        ensure!(begun.status == StatusCode::ACCEPTED, "beginning the upload of {digest}: {}", begun.status);
        let location = begun.headers.get("location").and_then(|value| value.to_str().ok());
        let location = location.context("the registry names no place for an upload")?;
        let place = if location.starts_with('/') {
            format!("http://{}{location}", self.address())
        } else {
            location.to_owned()
        };
        let separator = if place.contains('?') { '&' } else { '?' };
        let headers = [("content-type", "application/octet-stream")];
        let url = format!("{place}{separator}digest={digest}");
        let put = self.http.send(Method::PUT, &url, &headers, blob.bytes.clone()).await?;
        put.success().with_context(|| format!("uploading {digest}"))?;
        Ok(())
    }

    async fn put_manifest(&self, repository: &str, reference: &str, manifest: &Blob) -> Result<()> {
        let url = self.url(&format!("{repository}/manifests/{reference}"));
        let headers = [("content-type", manifest.media_type)];
        let put = self.http.send(Method::PUT, &url, &headers, manifest.bytes.clone()).await?;
        put.success().with_context(|| format!("pushing {repository}:{reference}"))?;
        let name = (repository.to_owned(), reference.to_owned());
        self.known().insert(name, manifest.clone());
        Ok(())
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<(String, String), Blob>> {
        self.manifests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}/v2/{path}", self.address())
    }
}
