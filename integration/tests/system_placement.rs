//! Which nodes and which namespaces.
//!
//! Shows: nodeSelector, required node affinity and taints decide which nodes pull; a namespace that is not included, is
//! excluded or opted out pulls nothing, until the list changes back. "Nothing is pulled" is shown by a sentinel: a later
//! Deployment has become warm on the same node, and the registry's log has nothing of the first. A node that joins or leaves
//! changes its own assignment and nothing else, and a pool comes and goes with its own keys and those of its nodes: counted
//! by the sequences of the real buckets.

#![allow(clippy::indexing_slicing, reason = "of a JSON value: a missing key is null, never a panic")]

use std::time::Duration;

use anyhow::{Result, ensure};
use integration::cluster::REGISTRY;
use integration::eventually::eventually;
use integration::image::{Image, Published};
use integration::installation::{Installation, InstallationSpec};
use integration::node::NodeSpec;
use integration::run::scenario;
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(150);

async fn push(installation: &Installation, repository: &str) -> Result<Published> {
    installation.cluster.registry.push(&Image::new(repository, "1").layer(2_000)).await
}

async fn deploy(installation: &Installation, namespace: &str, name: &str, pod: Value) -> Result<Published> {
    let image = push(installation, &format!("team/{name}")).await?;
    installation.deploy_with(namespace, name, &[&image.by_tag(REGISTRY)], pod).await?;
    Ok(image)
}

/// A Deployment that every node takes has become warm on all of them.
async fn sentinel(installation: &Installation, name: &str, nodes: &[&str]) -> Result<()> {
    let everywhere = json!({ "tolerations": [{ "operator": "Exists" }] });
    let image = deploy(installation, "default", name, everywhere).await?;
    for node in nodes {
        installation.until_labelled(node, &image.by_tag(REGISTRY), &image.digest).await?;
    }
    Ok(())
}

#[test]
fn only_nodes_where_a_pod_could_land_pull() -> Result<()> {
    scenario("placement", LIMIT, async |run| {
        let nodes = vec![
            NodeSpec::new("plain"),
            NodeSpec::new("fast").label("disk", "ssd").label("zone", "z1"),
            NodeSpec::new("gpu").label("disk", "ssd").taint("gpu", "yes", "NoSchedule"),
        ];
        let installation = Installation::start(&run, InstallationSpec::new(nodes)).await?;
        let selected =
            deploy(&installation, "default", "selected", json!({ "nodeSelector": { "disk": "ssd" } })).await?;
        let affine = json!({ "affinity": { "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{ "matchExpressions": [{ "key": "zone", "operator": "NotIn", "values": ["z1"] }] }],
        } } } });
        let affine = deploy(&installation, "default", "affine", affine).await?;
        let tolerating = json!({
            "nodeSelector": { "disk": "ssd" },
            "tolerations": [{ "key": "gpu", "operator": "Equal", "value": "yes", "effect": "NoSchedule" }],
        });
        let tolerating = deploy(&installation, "default", "tolerating", tolerating).await?;
        let plain = deploy(&installation, "default", "anywhere", json!({})).await?;
        for (image, nodes) in [
            (&selected, &["fast"][..]),
            (&affine, &["plain"][..]),
            (&tolerating, &["fast", "gpu"][..]),
            (&plain, &["plain", "fast"][..]),
        ] {
            for node in nodes {
                installation.until_labelled(node, &image.by_tag(REGISTRY), &image.digest).await?;
            }
        }
        sentinel(&installation, "sentinel", &["plain", "fast", "gpu"]).await?;
        for (repository, node) in [
            ("team/selected", "plain"),
            ("team/selected", "gpu"),
            ("team/affine", "fast"),
            ("team/affine", "gpu"),
            ("team/tolerating", "plain"),
            ("team/anywhere", "gpu"),
        ] {
            let reads = installation.reads(node, repository);
            ensure!(reads == 0, "{node} read {repository} {reads} times:\n{}", installation.cluster.requests.show());
        }
        a_node_that_becomes_eligible_pulls(&installation, &selected).await
    })
}

async fn a_node_that_becomes_eligible_pulls(installation: &Installation, image: &Published) -> Result<()> {
    let (nodes, reference) = (installation.cluster.node_objects(), image.by_tag(REGISTRY));
    nodes.set_label("plain", "disk", Some("ssd")).await?;
    installation.until_labelled("plain", &reference, &image.digest).await?;
    nodes.set_label("plain", "disk", None).await?;
    installation.until_unlabelled("plain", &reference).await
}

#[test]
fn namespaces_not_included_excluded_or_opted_out_pull_nothing_until_that_changes() -> Result<()> {
    scenario("namespaces", LIMIT, async |run| {
        let select =
            json!({ "select": { "namespaces": { "include": ["default", "team-*"], "exclude": ["team-secret"] } } });
        let installation = Installation::start(&run, InstallationSpec::two_nodes().controller(select)).await?;
        installation.create_namespace("other", &[]).await?;
        installation.create_namespace("team-a", &[]).await?;
        installation.create_namespace("team-secret", &[]).await?;
        installation.create_namespace("team-out", &[("warm-images.dev/warm", "false")]).await?;
        let not_included = deploy(&installation, "other", "not-included", json!({})).await?;
        let excluded = deploy(&installation, "team-secret", "excluded", json!({})).await?;
        let _ = deploy(&installation, "team-out", "opted-out", json!({})).await?;
        let own = push(&installation, "team/own").await?;
        let mut object = integration::installation::deployment("own", &[&own.by_tag(REGISTRY)]);
        object["metadata"]["annotations"] = json!({ "warm-images.dev/warm": "false" });
        installation.apply("default", object).await?;
        let included = deploy(&installation, "team-a", "included", json!({})).await?;
        installation.until_labelled("node-a", &included.by_tag(REGISTRY), &included.digest).await?;
        sentinel(&installation, "sentinel", &["node-a", "node-b"]).await?;
        for repository in ["team/not-included", "team/excluded", "team/opted-out", "team/own"] {
            let reads = installation.reads("node-a", repository).max(installation.reads("node-b", repository));
            ensure!(reads == 0, "{repository} was read:\n{}", installation.cluster.requests.show());
        }

        installation.reconfigure(json!({ "select": { "namespaces": { "include": ["*"], "exclude": [] } } }))?;
        for image in [&not_included, &excluded] {
            for node in ["node-a", "node-b"] {
                installation.until_labelled(node, &image.by_tag(REGISTRY), &image.digest).await?;
            }
        }
        let back = json!({ "metadata": { "annotations": { "warm-images.dev/warm": null } } });
        installation.change("default", "own", back).await?;
        installation.until_labelled("node-b", &own.by_tag(REGISTRY), &own.digest).await
    })
}

/// How often the buckets of intents and of assignments have been written to.
async fn writes(installation: &Installation) -> Result<(u64, u64)> {
    let count = async |bucket: &str| {
        let info = installation.nats(&["stream", "info", &format!("KV_warm-default-{bucket}"), "--json"]).await?;
        let info: Value = serde_json::from_str(&info)?;
        info["state"]["last_seq"].as_u64().ok_or_else(|| anyhow::anyhow!("{info}"))
    };
    Ok((count("intents").await?, count("assign").await?))
}

/// Until the pools of a node are so many; none: it has no assignment.
async fn until_pools(installation: &Installation, node: &str, pools: Option<usize>) -> Result<()> {
    eventually(format!("{node} in {pools:?} pools"), Duration::from_secs(30), async || {
        let all = installation.bucket("assign").await?;
        let seen = all.get(node).map(|assignment| assignment["pools"].as_array().map_or(0, Vec::len));
        ensure!(seen == pools, "{seen:?}");
        Ok(())
    })
    .await
}

#[test]
fn a_node_or_a_pool_that_comes_or_goes_writes_its_own_keys_and_no_others() -> Result<()> {
    scenario("writes", LIMIT, async |run| {
        let nodes = vec![NodeSpec::new("plain"), NodeSpec::new("fast").label("disk", "ssd")];
        let installation = Installation::start(&run, InstallationSpec::new(nodes)).await?;
        sentinel(&installation, "everywhere", &["plain", "fast"]).await?;
        let objects = installation.cluster.node_objects();
        let ssd = json!({ "nodeSelector": { "disk": "ssd" } });

        let keys = installation.kv_keys("intents").await?;
        let (intents, assign) = writes(&installation).await?;
        let image = deploy(&installation, "default", "selected", ssd).await?;
        installation.until_labelled("fast", &image.by_tag(REGISTRY), &image.digest).await?;
        assert_eq!(writes(&installation).await?, (intents + 2, assign + 1), "a definition and an intent; one node");

        let (intents, assign) = writes(&installation).await?;
        objects.create(&NodeSpec::new("joins").label("disk", "ssd")).await?;
        until_pools(&installation, "joins", Some(2)).await?;
        sentinel_write(&installation, "plain").await?;
        assert_eq!(writes(&installation).await?, (intents, assign + 3), "its own, and the two of the sentinel");

        let (intents, assign) = writes(&installation).await?;
        objects.delete("joins").await?;
        until_pools(&installation, "joins", None).await?;
        sentinel_write(&installation, "plain").await?;
        assert_eq!(writes(&installation).await?, (intents, assign + 3), "its own, and the two of the sentinel");

        let (intents, assign) = writes(&installation).await?;
        installation.undeploy("default", "selected").await?;
        until_pools(&installation, "fast", Some(1)).await?;
        eventually("the pool is gone", Duration::from_secs(30), async || {
            let left = installation.kv_keys("intents").await?;
            ensure!(left == keys, "{left:?}");
            Ok(())
        })
        .await?;
        assert_eq!(writes(&installation).await?, (intents + 2, assign + 1), "a definition and an intent; one node");
        Ok(())
    })
}

/// A node goes into a pool and out again, so whatever was to be written before has been.
async fn sentinel_write(installation: &Installation, node: &str) -> Result<()> {
    let objects = installation.cluster.node_objects();
    for (value, pools) in [(Some("ssd"), 2), (None, 1)] {
        objects.set_label(node, "disk", value).await?;
        until_pools(installation, node, Some(pools)).await?;
    }
    Ok(())
}
