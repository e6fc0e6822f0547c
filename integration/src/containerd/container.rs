//! Containers that never run: owns writing a container's record into containerd, as its CRI would have done before it
//! started it, so that a test has one without runc, shim, CNI and a pod. CRI shows it once containerd has started again.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use prost::Message;
use serde_json::json;
use tonic::Request;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Endpoint;

use super::Containerd;

/// Where CRI keeps its own.
const NAMESPACE: &str = "k8s.io";
const CREATE: &str = "/containerd.services.containers.v1.Containers/Create";
const METADATA: &str = "io.cri-containerd.container.metadata";
const METADATA_TYPE: &str = "github.com/containerd/cri/pkg/store/container/Metadata";

/// `containerd.services.containers.v1.Container`, as much of it as is needed.
#[derive(Clone, PartialEq, Message)]
struct Container {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(btree_map = "string, string", tag = "2")]
    labels: BTreeMap<String, String>,
    #[prost(string, tag = "3")]
    image: String,
    #[prost(message, optional, tag = "4")]
    runtime: Option<Runtime>,
    #[prost(message, optional, tag = "5")]
    spec: Option<Any>,
    #[prost(btree_map = "string, message", tag = "10")]
    extensions: BTreeMap<String, Any>,
}

#[derive(Clone, PartialEq, Message)]
struct Runtime {
    #[prost(string, tag = "1")]
    name: String,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// `CreateContainerRequest` and its response.
#[derive(Clone, PartialEq, Message)]
struct Create {
    #[prost(message, optional, tag = "1")]
    container: Option<Container>,
}

impl Containerd {
    /// Writes the record of a container of an image that has run, by the image's id as CRI does it, with an image volume of each of
    /// `volumes`, and starts containerd again.
    pub async fn create_container(&mut self, name: &str, image_id: &str, volumes: &[&str]) -> Result<()> {
        let create = Create { container: Some(record(name, image_id, volumes)?) };
        let channel = Endpoint::from_shared(format!("unix://{}", self.socket().display()))?.connect().await?;
        let mut request = Request::new(create);
        request.metadata_mut().insert("containerd-namespace", NAMESPACE.parse()?);
        let mut client = Grpc::new(channel);
        client.ready().await.context("containerd's own API")?;
        let codec = tonic_prost::ProstCodec::<Create, Create>::default();
        client.unary(request, PathAndQuery::from_static(CREATE), codec).await.context("creating a container")?;
        // Where CRI keeps how it stands with a container: this one has run and is over.
        let folder = super::store(&self.folder).join("io.containerd.grpc.v1.cri/containers").join(name);
        std::fs::create_dir_all(&folder).context("the container's folder")?;
        let status = json!({ "Version": "v1", "CreatedAt": 1, "StartedAt": 2, "FinishedAt": 3 });
        std::fs::write(folder.join("status"), serde_json::to_vec(&status)?).context("the container's status")?;
        self.restart().await
    }
}

fn record(name: &str, image_id: &str, volumes: &[&str]) -> Result<Container> {
    let mounts: Vec<_> = volumes
        .iter()
        .map(|image| json!({ "container_path": "/volume", "readonly": true, "image": { "image": image } }))
        .collect();
    let metadata = json!({ "Version": "v1", "Metadata": {
        "ID": name,
        "Name": format!("{name}_pod_default_uid_0"),
        "SandboxID": "none",
        "Config": { "metadata": { "name": name }, "image": { "image": image_id }, "mounts": mounts },
        "ImageRef": image_id,
    }});
    let any = |type_url: &str, value| Any { type_url: type_url.to_owned(), value };
    Ok(Container {
        id: name.to_owned(),
        labels: [("io.cri-containerd.kind".to_owned(), "container".to_owned())].into(),
        image: image_id.to_owned(),
        runtime: Some(Runtime { name: "io.containerd.runc.v2".to_owned() }),
        spec: Some(any("types.containerd.io/opencontainers/runtime-spec/1/Spec", b"{}".to_vec())),
        extensions: [(METADATA.to_owned(), any(METADATA_TYPE, serde_json::to_vec(&metadata)?))].into(),
    })
}
