//! A set that follows moving tags, on a real runtime and a real registry.
//!
//! Shows: after the shortest period that the definition allows, an image whose tag has not moved costs the registry one
//! question for its manifest and no blob; one whose tag has moved is pulled, and its label names the new digest; one whose
//! refresh fails stays warm; no label is ever away, and no event says that anything was not warm.

#![allow(clippy::indexing_slicing, reason = "of a JSON value: a missing key is null, never a panic")]

use std::time::Duration;

use anyhow::{Result, ensure};
use integration::cluster::REGISTRY;
use integration::crictl::RuntimeImage;
use integration::eventually::eventually;
use integration::image::Image;
use integration::installation::{Installation, InstallationSpec};
use integration::node::NodeSpec;
use integration::proxy::fault::{Fault, Rule};
use integration::run::scenario;
use integration::witness::Witness;
use serde_json::json;

const LIMIT: Duration = Duration::from_mins(3);
/// A minute and a tenth, and what a busy machine takes beside.
const PERIOD: Duration = Duration::from_secs(66 + 30);
const NODE: &str = "node-a";
const NODES: [&str; 1] = [NODE];

#[test]
fn a_set_follows_tags_that_move_and_no_label_is_ever_away() -> Result<()> {
    scenario("refresh", LIMIT, async |run| {
        let installation = Installation::start(&run, InstallationSpec::new(vec![NodeSpec::new(NODE)])).await?;
        let registry = &installation.cluster.registry;
        let still = registry.push(&Image::new("ml/still", "1").layer(20_000)).await?;
        let moving = registry.push(&Image::new("ml/moving", "1").layer(20_000)).await?;
        let failing = registry.push(&Image::new("ml/failing", "1").layer(20_000)).await?;
        let images = [&still, &moving, &failing].map(|image| image.by_tag(REGISTRY));
        let witness = Witness::start(installation.cluster.client()).await?;
        installation.apply_set("default", "base", &json!({ "images": images, "refresh": "1m" })).await?;
        installation.until_set_ready("default", "base").await?;
        for image in [&still, &moving, &failing] {
            installation.until_warm(&NODES, image).await?;
        }
        installation.until_set_labels("default", "base", &NODES).await?;

        let events = installation.listen("warm.v1.default.node.node-a.ev.>")?;
        let of_still = |blobs: bool| {
            installation.cluster.requests.count(|r| r.is_of("ml/still") && (r.is_blob() == blobs || !blobs))
        };
        let (asked, blobs) = (of_still(false), of_still(true));
        installation.cluster.node(NODE)?.registry.add(Rule::new("/v2/ml/failing/", Fault::Cut)?);
        let moved = registry.push(&Image::new("ml/moving", "1").revision(2).layer(30_000)).await?;
        ensure!(moved.digest != moving.digest);

        let admin = installation.agents[NODE].admin();
        for outcome in ["same", "moved", "network"] {
            eventually(&format!("a refresh ends as {outcome}"), PERIOD, async || {
                let ended = installation.metric(&admin, "warm_refreshes_total", outcome).await?;
                ensure!(ended >= 1.0, "{ended}");
                Ok(())
            })
            .await?;
        }
        installation.until_warm(&NODES, &moved).await?;
        let held = installation.cluster.node(NODE)?.containerd.crictl().images().await?;
        let is_moved = |image: &&RuntimeImage| image.repo_digests.iter().any(|name| name.contains(&moved.digest));
        let tags: Vec<&String> = held.iter().filter(is_moved).flat_map(|image| &image.repo_tags).collect();
        ensure!(tags == [&images[1]], "{tags:?}");
        ensure!(of_still(true) == blobs, "a blob was read again:\n{}", installation.cluster.requests.show());
        let more = of_still(false) - asked;
        ensure!(more == 1, "{more} requests for one refresh:\n{}", installation.cluster.requests.show());

        let status = installation.until_set_ready("default", "base").await?;
        ensure!((status.warm, status.failed) == (3, 0), "{status:?}");
        eventually("the move was told", Duration::from_secs(10), async || {
            events.log_text().contains(moved.digest.as_str())
        })
        .await?;
        for word in ["pulling", "failed", "evicted", "pending", "deferred"] {
            ensure!(!events.log_text().contains(&format!("\"st\":\"{word}\"")), "{}", events.log_text());
        }
        let state = installation.agent_state(NODE).await?;
        ensure!(
            state["counters"]["pull-failed"].is_null(),
            "a failed refresh is no failed pull: {}",
            state["counters"]
        );
        witness.none_lost(&NODES, &[&still, &moving, &failing]).await
    })
}
