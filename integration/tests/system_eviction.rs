//! Images vanish from a node.
//!
//! Shows: an image removed by hand while the registry is cut is noticed, an event `evicted` says so, the label goes; when
//! the registry is back it is pulled and the label is back. With the registry up it is pulled again with two label patches.

use std::time::Duration;

use anyhow::{Result, ensure};
use integration::cluster::REGISTRY;
use integration::eventually::eventually;
use integration::image::Image;
use integration::installation::{Installation, InstallationSpec};
use integration::proxy::fault::{Fault, Rule};
use integration::run::scenario;

const LIMIT: Duration = Duration::from_secs(150);

#[test]
fn an_image_removed_while_the_registry_is_cut_is_noticed_and_comes_back() -> Result<()> {
    scenario("evicted", LIMIT, async |run| {
        let installation = Installation::start(&run, InstallationSpec::two_nodes()).await?;
        let events = installation.listen("warm.v1.default.node.node-a.ev.evicted")?;
        let image = installation.cluster.registry.push(&Image::new("shop/web", "1").layer(20_000)).await?;
        let reference = image.by_tag(REGISTRY);
        installation.deploy("web", &[&reference]).await?;
        for node in ["node-a", "node-b"] {
            installation.until_labelled(node, &reference, &image.digest).await?;
        }
        let node = installation.cluster.node("node-a")?;
        node.registry.add(Rule::new("/v2/", Fault::Cut)?);
        node.containerd.crictl().remove(&reference).await?;
        installation.until_unlabelled("node-a", &reference).await?;
        installation.until_state("node-a", &reference, "failed", Some("network")).await?;
        eventually("the event is printed", Duration::from_secs(10), async || {
            events.log_text().contains("\"st\":\"evicted\"")
        })
        .await?;
        installation.until_labelled("node-b", &reference, &image.digest).await?;

        node.registry.heal();
        installation.until_labelled("node-a", &reference, &image.digest).await?;
        ensure!(node.containerd.crictl().has(&reference).await?, "labelled, yet not there");
        Ok(())
    })
}

#[test]
fn an_image_removed_while_the_registry_is_up_is_pulled_again_with_two_label_patches() -> Result<()> {
    scenario("evicted-up", LIMIT, async |run| {
        let installation = Installation::start(&run, InstallationSpec::two_nodes()).await?;
        let image = installation.cluster.registry.push(&Image::new("shop/web", "1").layer(20_000)).await?;
        let reference = image.by_tag(REGISTRY);
        installation.deploy("web", &[&reference]).await?;
        for node in ["node-a", "node-b"] {
            installation.until_labelled(node, &reference, &image.digest).await?;
        }
        let patches =
            async || installation.metric(&installation.controller.admin(), "warm_label_patches_total", "").await;
        let (before, reads) = (patches().await?, installation.blob_reads("node-a", "shop/web"));
        let crictl = installation.cluster.node("node-a")?.containerd.crictl();
        crictl.remove(&reference).await?;
        eventually("it is pulled again", Duration::from_secs(20), async || {
            installation.blob_reads("node-a", "shop/web") > reads && crictl.has(&reference).await.unwrap_or(false)
        })
        .await?;
        installation.until_state("node-a", &reference, "warm", None).await?;
        installation.until_labelled("node-a", &reference, &image.digest).await?;
        let more = patches().await? - before;
        ensure!(more <= 2.0, "{more} label patches for one eviction");
        Ok(())
    })
}
