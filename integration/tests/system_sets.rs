//! Images named by hand, from `kubectl apply` to the label and back.
//!
//! Shows: a set's images become warm on the nodes it is for and on no others, its status and label say so; an image that is
//! evicted takes both away until it is back; sets and workloads share images, and what the last owner lets go of is
//! withdrawn while the image stays; a suspended set pulls nothing and loses nothing; a set of a namespace that is not
//! watched counts, since somebody named it; one bad image spoils neither the others nor their labels; the status is
//! written on change only, whoever else writes into it; an image that the definition lets pass and nobody can pull is told of
//! in the status and by an Event.

#![allow(clippy::indexing_slicing, reason = "of a JSON value: a missing key is null, never a panic")]

use std::time::Duration;

use anyhow::{Result, ensure};
use integration::cluster::REGISTRY;
use integration::eventually::eventually;
use integration::image::Image;
use integration::installation::sets::condition;
use integration::installation::{Installation, InstallationSpec};
use integration::node::NodeSpec;
use integration::proxy::fault::{Fault, Rule};
use integration::run::scenario;
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::json;
use shared::image::Reference;

const LIMIT: Duration = Duration::from_secs(200);
const SOON: Duration = Duration::from_secs(30);
const NODES: [&str; 2] = ["node-a", "node-b"];

/// `node-b` is one with a fast disk.
fn spec() -> InstallationSpec {
    InstallationSpec::new(vec![NodeSpec::new("node-a"), NodeSpec::new("node-b").label("disk", "ssd")])
}

/// Requests that wrote the status of a set.
fn writes(installation: &Installation) -> Result<usize> {
    let requests = installation.cluster.api.requests()?;
    Ok(requests.iter().filter(|request| request.resource == "imagesets/status").count())
}

#[test]
fn a_set_becomes_ready_is_not_while_an_image_is_away_and_is_again() -> Result<()> {
    scenario("set_life", LIMIT, async |run| {
        let installation = Installation::start(&run, spec()).await?;
        let (one, two) = (Image::new("ml/one", "1").layer(20_000), Image::new("ml/two", "1").layer(30_000));
        let (one, two) =
            (installation.cluster.registry.push(&one).await?, installation.cluster.registry.push(&two).await?);
        let (one, two) = (one.by_tag(REGISTRY), two.by_tag(REGISTRY));
        // Its namespace is one that selection leaves out.
        let set = json!({ "images": [one, two], "priority": 70, "pullSecrets": [{ "name": "registry" }] });
        installation.apply_set("kube-system", "base", &set).await?;
        let status = installation.until_set_ready("kube-system", "base").await?;
        ensure!((status.desired, status.warm, status.nodes, status.images_total) == (4, 4, 2, 2), "{status:?}");
        ensure!(status.bytes >= 50_000, "{status:?}");
        installation.until_set_labels("kube-system", "base", &NODES).await?;
        let id = Reference::parse(&one)?.key();
        let intent = installation.kv("intents", &format!("all.i.{id}")).await?;
        ensure!(intent["owners"] == json!(["ImageSet/kube-system/base"]) && intent["priority"] == 70, "{intent}");
        ensure!(intent["secrets"] == json!(["kube-system/registry"]), "{intent}");

        let node = installation.cluster.node("node-a")?;
        node.registry.add(Rule::new("/v2/", Fault::Cut)?);
        node.containerd.crictl().remove(&one).await?;
        let status = installation.until_set("kube-system", "base", "not ready", |s| !s.is_ready()).await?;
        ensure!(status.warm == 3, "{status:?}");
        installation.until_set_labels("kube-system", "base", &["node-b"]).await?;
        let status = installation.until_set("kube-system", "base", "it fails", |s| s.failed == 1).await?;
        ensure!(condition(&status, "Degraded") == "True ImagesFail", "{status:?}");
        let worst = &status.images[0];
        ensure!(
            worst.image == one && worst.not_warm_on == ["node-a"] && worst.reasons[0].reason == "network",
            "{worst:?}"
        );
        node.registry.heal();
        let status = installation.until_set_ready("kube-system", "base").await?;
        ensure!(condition(&status, "Degraded") == "False AsExpected", "{status:?}");
        installation.until_set_labels("kube-system", "base", &NODES).await?;

        // A foreign hand in the status is put right, with one write and no more.
        let before = writes(&installation)?;
        let theirs = Patch::Merge(json!({ "status": { "warm": 99, "images": [] } }));
        installation.sets("kube-system").patch_status("base", &PatchParams::default(), &theirs).await?;
        let mended = installation.until_set("kube-system", "base", "put right", |s| s.warm == 4).await?;
        ensure!(mended == status, "{mended:?}");
        // The sentinel: something later was told, so the earlier has had its time.
        installation.apply_set("default", "other", &json!({ "images": [one] })).await?;
        installation.until_set_ready("default", "other").await?;
        let others = installation.sets("default").get("other").await?;
        ensure!(others.status.is_some());
        let written = writes(&installation)? - before;
        ensure!((2..=4).contains(&written), "{written} writes: one to put right, and some for the other set");

        installation.delete_set("kube-system", "base").await?;
        installation.until_set_labels("kube-system", "base", &[]).await?;
        eventually("what nobody else wants is withdrawn", SOON, async || {
            let keys = installation.kv_keys("intents").await?;
            let two = format!("all.i.{}", Reference::parse(&two)?.key());
            ensure!(keys.contains(&format!("all.i.{id}")) && !keys.contains(&two), "{keys:?}");
            Ok(())
        })
        .await?;
        ensure!(node.containerd.crictl().has(&two).await?, "the image went with its set");
        // The same name again is another set.
        installation.apply_set("kube-system", "base", &set).await?;
        installation.until_set_ready("kube-system", "base").await?;
        installation.until_set_labels("kube-system", "base", &NODES).await
    })
}

#[test]
fn sets_and_workloads_share_images_and_each_is_for_its_own_nodes() -> Result<()> {
    scenario("set_shared", LIMIT, async |run| {
        let installation = Installation::start(&run, spec()).await?;
        let shared = installation.deploy_new("shared").await?.by_tag(REGISTRY);
        let own = installation.cluster.registry.push(&Image::new("ml/own", "1").layer(9_000)).await?.by_tag(REGISTRY);
        let ssd = json!({ "images": [shared, own], "nodeSelector": { "disk": "ssd" } });
        installation.apply_set("default", "fast", &ssd).await?;
        installation.apply_set("default", "same", &json!({ "images": [shared] })).await?;
        let status = installation.until_set_ready("default", "fast").await?;
        ensure!((status.desired, status.nodes) == (2, 1), "{status:?}");
        installation.until_set_ready("default", "same").await?;
        installation.until_set_labels("default", "fast", &["node-b"]).await?;
        installation.until_set_labels("default", "same", &NODES).await?;
        let crictl = installation.cluster.node("node-a")?.containerd.crictl();
        ensure!(!crictl.has(&own).await?, "node-a has no fast disk");

        // The workload goes; the sets still want the image, one everywhere.
        installation.undeploy("default", "shared").await?;
        installation.delete_set("default", "same").await?;
        installation.until_set_labels("default", "same", &[]).await?;
        installation.until_unlabelled("node-a", &shared).await?;
        installation.until_set_labels("default", "fast", &["node-b"]).await?;
        let status = installation.until_set_ready("default", "fast").await?;
        ensure!(status.warm == 2, "{status:?}");

        // One that cannot be used and one that is not there spoil only themselves.
        let bad = format!("{REGISTRY}/Bad/Ref:1");
        let missing = format!("{REGISTRY}/ml/missing:1");
        let more = json!({ "images": [shared, own, missing], "nodeSelector": { "disk": "ssd" } });
        installation.apply_set("default", "fast", &more).await?;
        let status = installation.until_set("default", "fast", "one fails", |s| s.failed == 1).await?;
        ensure!((status.warm, status.desired) == (2, 3), "{status:?}");
        ensure!(condition(&status, "Ready") == "False ImagesFail", "{status:?}");
        installation.until_set_labels("default", "fast", &[]).await?;
        let refused = installation.apply_set("default", "fast", &json!({ "images": [bad] })).await;
        let said = format!("{:#}", refused.err().map(|e| e.root_cause().to_string()).unwrap_or_default());
        ensure!(said.contains("spec.images[0]"), "{said}");
        Ok(())
    })
}

#[test]
fn a_suspended_set_pulls_nothing_and_loses_nothing() -> Result<()> {
    scenario("set_suspended", LIMIT, async |run| {
        let installation = Installation::start(&run, InstallationSpec::two_nodes()).await?;
        let push = async |name: &str| {
            anyhow::Ok(installation.cluster.registry.push(&Image::new(name, "1").layer(9_000)).await?.by_tag(REGISTRY))
        };
        let (one, two) = (push("ml/one").await?, push("ml/two").await?);
        installation.apply_set("default", "base", &json!({ "images": [one] })).await?;
        installation.until_set_ready("default", "base").await?;
        installation.until_set_labels("default", "base", &NODES).await?;
        let held = json!({ "images": [one, two], "suspend": true });
        installation.apply_set("default", "base", &held).await?;
        let status = installation
            .until_set("default", "base", "it waits", |s| {
                s.images.iter().any(|i| i.reasons.iter().any(|r| r.reason == "wave" && r.nodes == 2))
            })
            .await?;
        ensure!((status.warm, status.pending) == (2, 2), "{status:?}");
        ensure!(condition(&status, "Ready") == "False Suspended", "{status:?}");
        // The sentinel: a later image was pulled, so this one has had its chance.
        let sentinel = installation.deploy_new("sentinel").await?;
        installation.until_warm(&NODES, &sentinel).await?;
        ensure!(installation.blob_reads("node-a", "ml/two") == 0, "{}", installation.cluster.requests.show());
        for node in NODES {
            ensure!(installation.cluster.node(node)?.containerd.crictl().has(&one).await?, "{node} lost it");
        }
        installation.apply_set("default", "base", &json!({ "images": [one, two], "suspend": false })).await?;
        installation.until_set_ready("default", "base").await?;
        installation.until_set_labels("default", "base", &NODES).await
    })
}

#[test]
fn an_image_that_only_the_controller_can_refuse_is_told_of_on_its_set() -> Result<()> {
    scenario("set_invalid", LIMIT, async |run| {
        let config = json!({ "events": { "settle": "300ms" } });
        let mut installation = Installation::start(&run, InstallationSpec::two_nodes().controller(config)).await?;
        // What is wrong within three heartbeats of its start a controller takes for old news.
        let admin = installation.agent("node-a")?.admin();
        eventually("some heartbeats", SOON, async || {
            let sent = installation.metric(&admin, "warm_effects_total", "publish-heartbeat").await?;
            ensure!(sent >= 6.0, "{sent}");
            Ok(())
        })
        .await?;
        let one = installation.cluster.registry.push(&Image::new("ml/one", "1").layer(9_000)).await?.by_tag(REGISTRY);
        let bad = "registry.example//broken:1";
        installation.apply_set("default", "base", &json!({ "images": [bad, one] })).await?;
        let status = installation.until_set("default", "base", "the other is warm", |s| s.warm == 2).await?;
        ensure!(condition(&status, "Ready") == "False UnusableImages", "{status:?}");
        ensure!(status.images[0].image == bad && !status.images[0].problem.is_empty(), "{status:?}");
        let events: Api<Event> = Api::namespaced(installation.cluster.client(), "default");
        let about = ListParams::default().fields("regarding.kind=ImageSet,regarding.name=base");
        let event = eventually("an Event on the set", SOON, async || {
            let told = events.list(&about).await?.items;
            anyhow::Ok(told.into_iter().find(|event| event.reason.as_deref() == Some("WarmWorkloadInvalid")))
        })
        .await?;
        ensure!(event.note.as_deref().is_some_and(|note| note.contains(bad)), "{event:?}");
        let set = installation.sets("default").get("base").await?;
        let regarding = event.regarding.unwrap_or_default();
        ensure!(regarding.api_version.as_deref() == Some("warm-images.dev/v1alpha1"), "{regarding:?}");
        ensure!(regarding.uid == set.metadata.uid, "{regarding:?}");
        Ok(())
    })
}
