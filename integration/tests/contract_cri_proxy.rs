//! The proxy in front of a runtime's socket against a real containerd: what passes is what the runtime says, and each fault
//! is what our client (and crictl) sees of it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use agent::cri::{Client, CriError, Settings, Sockets};
use anyhow::{Context as _, Result, ensure};
use integration::cluster::REGISTRY;
use integration::containerd::Containerd;
use integration::crictl::Crictl;
use integration::eventually::eventually;
use integration::image::{Image, Published};
use integration::parts::{Parts, Tool};
use integration::proxy::cri::CriProxy;
use integration::proxy::cri::fault::{CriFault, CriRule};
use integration::proxy::cri::lie::{Held, Lie};
use integration::proxy::log::RequestLog;
use integration::registry::Registry;
use integration::run::{RunDir, scenario};
use node_plan::fact::RuntimeImage;
use shared::reason::Reason;
use tonic::Code;

const LIMIT: Duration = Duration::from_mins(2);
const SOON: Duration = Duration::from_secs(20);

struct World {
    registry: Registry,
    runtime: Containerd,
    proxy: CriProxy,
    /// Through the proxy.
    client: Client,
    /// Through the proxy.
    crictl: Crictl,
}

async fn world(run: &Arc<RunDir>) -> Result<World> {
    let parts = Parts::ensure(&[Tool::Crane, Tool::Containerd, Tool::Crictl])?;
    let registry = Registry::start(run, &parts).await?;
    let routes: &[(&str, SocketAddr)] = &[(REGISTRY, registry.address())];
    let runtime = Containerd::start(run, &parts, "a", routes).await?;
    let proxy =
        CriProxy::start(&run.folder("a")?.join("cri.sock"), runtime.socket(), &RequestLog::kept_as(run, "cri"))?;
    let crictl = Crictl::new(run, &parts, "proxy", proxy.socket())?;
    let client = Client::new(Settings {
        sockets: Sockets::new(proxy.socket().to_str()),
        request_timeout: Duration::from_secs(5),
        sandbox_namespace: "warm-images".to_owned(),
        sandbox_uid: String::new(),
    });
    Ok(World { registry, runtime, proxy, client, crictl })
}

async fn push(world: &World, name: &str) -> Result<Published> {
    world.registry.push(&Image::new(format!("team/{name}"), "1").layer(5_000)).await
}

async fn held(world: &World, name: &str) -> Result<Published> {
    let image = push(world, name).await?;
    world.runtime.crictl().pull(&image.by_tag(REGISTRY)).await?;
    Ok(image)
}

#[test]
fn what_passes_is_what_the_runtime_says_and_breaks_when_it_does() -> Result<()> {
    scenario("criproxy-pass", LIMIT, async |run| {
        let mut world = world(&run).await?;
        let image = push(&world, "app").await?;
        let name = image.by_tag(REGISTRY);
        world.crictl.pull(&name).await?;
        let (near, far) = (world.runtime.crictl(), &world.crictl);
        for args in [&["images", "-o", "json"][..], &["inspecti", &name], &["version"], &["pods"], &["ps"]] {
            let (near, far) = (near.run(args).await?, far.run(args).await?);
            ensure!(near == far, "{args:?}: {near}\nthrough the proxy: {far}");
        }
        // A refusal with its words.
        let error =
            world.client.pull(&format!("{REGISTRY}/team/absent:1"), SOON).await.err().context("it was pulled")?;
        ensure!(error.reason() == Reason::NotFound, "{error:?}");
        let calls = world.proxy.log().select(|call| call.path == "PullImage");
        ensure!(calls.iter().all(|call| call.complete && call.query.starts_with(REGISTRY)), "{calls:#?}");

        world.client.list_images().await?;
        world.runtime.process().kill()?;
        let error = world.client.list_images().await.err().context("a dead runtime lists images")?;
        ensure!(error.reason() == Reason::RuntimeUnavailable, "{error:?}");
        world.runtime.process().start_again()?;
        world.runtime.until_ready().await?;
        eventually("the same client reaches the new runtime", SOON, async || world.client.list_images().await.map(drop))
            .await
    })
}

#[test]
fn a_fault_is_done_to_the_calls_it_names_and_to_no_other() -> Result<()> {
    scenario("criproxy-fault", LIMIT, async |run| {
        let world = world(&run).await?;
        let image = held(&world, "app").await?;
        let name = image.by_tag(REGISTRY);
        let rule = CriRule::new("ListImages", CriFault::Status(Code::Unknown, "no space left on device".to_owned()));
        world.proxy.add(rule.times(1));
        let error = world.client.list_images().await.err().context("it was to be refused")?;
        ensure!(error.reason() == Reason::NoSpace, "{error:?}");
        ensure!(world.client.list_images().await?.len() == 1, "once, not more often");

        let start = tokio::time::Instant::now();
        let by = Duration::from_millis(300);
        let rule = world.proxy.add(CriRule::new("ImageStatus", CriFault::Delay(by)).image(&name));
        ensure!(world.client.image_status("registry.test/team/other:1").await?.is_none(), "there is no other");
        world.client.image_status(&name).await?.context("it is there")?;
        ensure!(start.elapsed() >= by, "{:?}", start.elapsed());
        world.proxy.remove(rule);

        world.proxy.add(CriRule::new("ListImages", CriFault::TruncateAfter(40)).times(1));
        let error = world.client.list_images().await.err().context("half a list is a list")?;
        ensure!(error.reason() == Reason::RuntimeUnavailable, "{error:?}");
        ensure!(world.client.list_images().await?.len() == 1, "the connection is good again");
        Ok(())
    })
}

#[test]
fn a_call_hangs_until_it_is_given_up_or_the_rule_goes() -> Result<()> {
    scenario("criproxy-hang", LIMIT, async |run| {
        let world = world(&run).await?;
        let image = push(&world, "app").await?;
        let name = image.by_tag(REGISTRY);
        world.proxy.add(CriRule::new("PullImage", CriFault::Hang).image(&name));
        let error = world.client.pull(&name, Duration::from_millis(500)).await.err().context("it was pulled")?;
        ensure!(matches!(error, CriError::Deadline { .. }), "{error:?}");
        eventually("the call is over for the proxy, too", SOON, async || world.proxy.log().in_flight() == 0).await?;
        ensure!(
            world.proxy.log().select(|call| call.path == "PullImage").iter().all(|call| !call.complete),
            "answered"
        );

        let pull = world.client.pull(&name, SOON);
        let heal = async {
            eventually("it hangs again", SOON, async || world.proxy.log().in_flight() == 1).await?;
            world.proxy.heal();
            anyhow::Ok(())
        };
        let (pulled, healed) = tokio::join!(pull, heal);
        healed?;
        ensure!(pulled?.image.runtime_id == image.id, "it went on as if nothing had been");
        Ok(())
    })
}

/// containerd lists images in the order of a hash map: another one each time.
fn in_order(mut images: Vec<RuntimeImage>) -> Vec<RuntimeImage> {
    images.sort_by(|a, b| a.runtime_id.cmp(&b.runtime_id));
    images
}

#[test]
fn a_lie_is_told_alike_by_list_and_status_and_changes_nothing_else() -> Result<()> {
    scenario("criproxy-lie", LIMIT, async |run| {
        let world = world(&run).await?;
        let (one, two) = (held(&world, "one").await?, held(&world, "two").await?);
        let truth = in_order(world.client.list_images().await?);
        let other = world.client.image_status(&two.by_tag(REGISTRY)).await?;
        let names = [one.by_tag(REGISTRY), one.by_digest(REGISTRY)];

        let rule = world.proxy.add(CriRule::lie(Lie::Absent(names[0].clone())));
        let listed = world.client.list_images().await?;
        ensure!(listed.len() == 1 && listed.first() == other.as_ref(), "{listed:?}");
        for name in &names {
            ensure!(world.client.image_status(name).await?.is_none(), "{name} is there");
        }
        ensure!(!world.crictl.has(&names[0]).await?, "crictl is told something else");
        ensure!(world.client.image_status(&two.by_tag(REGISTRY)).await? == other, "another image changed");
        world.proxy.remove(rule);

        let digest = format!("sha256:{}", "0".repeat(64));
        let rule = world.proxy.add(CriRule::lie(Lie::Digest(names[0].clone(), digest.clone())));
        let wrong = [format!("{REGISTRY}/team/one@{digest}")];
        let status = world.client.image_status(&names[0]).await?.context("it is there")?;
        ensure!(status.repo_digests == wrong && status.repo_tags == [names[0].clone()], "{status:?}");
        ensure!(world.client.list_images().await?.contains(&status), "list and status differ");
        world.proxy.remove(rule);

        let made = format!("{REGISTRY}/team/made:1");
        let held = Held { tag: made.clone(), digest: format!("{REGISTRY}/team/made@{digest}") };
        world.proxy.add(CriRule::lie(Lie::Present(held)));
        let status = world.client.image_status(&made).await?.context("it is said to be there")?;
        let listed = world.client.list_images().await?;
        ensure!(listed.len() == 3 && listed.contains(&status), "{listed:?}");
        ensure!(world.client.image_status(&two.by_tag(REGISTRY)).await? == other, "another image changed");
        ensure!(world.client.image_status(&format!("{REGISTRY}/team/none:1")).await?.is_none(), "one lie, no other");
        world.proxy.heal();
        ensure!(in_order(world.client.list_images().await?) == truth, "the truth is not what it was");
        Ok(())
    })
}
