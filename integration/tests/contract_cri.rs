//! What `agent::cri` takes for granted of a real containerd, tried on one: pulls, what they are called afterwards, refusals
//! and their reasons, a runtime that stalls, dies and hangs, what is in use or pinned, and that nobody else looks before an
//! image is removed.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use agent::act::remove::look_and_remove;
use agent::cri::{Client, CriError, Settings, Sockets};
use anyhow::{Context as _, Result, bail, ensure};
use integration::containerd::{Containerd, PINNED};
use integration::eventually::eventually;
use integration::image::{Image, Platform};
use integration::parts::{Parts, Tool};
use integration::proxy::fault::{Fault, Rule};
use integration::proxy::http::HttpProxy;
use integration::proxy::log::RequestLog;
use integration::registry::Registry;
use integration::run::{RunDir, scenario};
use node_plan::fact::{Removal, RuntimeImage};
use node_plan::gc::is_used;
use shared::reason::Reason;

const LIMIT: Duration = Duration::from_mins(2);
const DEADLINE: Duration = Duration::from_secs(30);
/// The name of the registry as nodes know it.
const NAME: &str = "registry.test";

struct World {
    registry: Registry,
    proxy: HttpProxy,
    runtime: Containerd,
    client: Client,
}

async fn world(run: &Arc<RunDir>) -> Result<World> {
    let parts = Parts::ensure(&[Tool::Crane, Tool::Containerd, Tool::Crictl])?;
    let registry = Registry::start(run, &parts).await?;
    let proxy = HttpProxy::start("a", registry.address(), &RequestLog::default()).await?;
    let runtime = Containerd::start(run, &parts, "a", &[(NAME, proxy.address())]).await?;
    let client = client(runtime.socket());
    Ok(World { registry, proxy, runtime, client })
}

fn client(socket: &Path) -> Client {
    Client::new(Settings {
        sockets: Sockets::new(Some(&format!("unix://{}", socket.display()))),
        request_timeout: Duration::from_secs(10),
        sandbox_namespace: "warm-images".to_owned(),
        sandbox_uid: "5a0e2f0e-0000-4000-8000-000000000000".to_owned(),
    })
}

async fn refusal(client: &Client, reference: &str) -> Result<CriError> {
    match client.pull(reference, DEADLINE).await {
        Ok(image) => bail!("{reference} was pulled: {image:?}"),
        Err(error) => Ok(error),
    }
}

#[test]
fn the_runtime_names_itself_and_where_its_images_lie() -> Result<()> {
    scenario("cri_version", LIMIT, async |run| {
        let world = world(&run).await?;
        let version = world.client.version().await?;
        ensure!(version.name == "containerd", "{version:?}");
        ensure!(version.version.trim_start_matches('v').starts_with(|c: char| c.is_ascii_digit()), "{version:?}");
        let mountpoint = world.client.image_mountpoint().await?.context("no mountpoint")?;
        ensure!(mountpoint.starts_with(world.runtime.folder()), "{}", mountpoint.display());
        let space = agent::cri::observe::space_of(&[&mountpoint])?;
        ensure!(space.used > 0 && space.free > 0, "{space:?}");
        ensure!(world.client.list_images().await?.is_empty(), "a new store is not empty");
        Ok(())
    })
}

#[test]
fn a_pull_by_tag_makes_the_tag_and_its_digest_known() -> Result<()> {
    scenario("cri_by_tag", LIMIT, async |run| {
        let world = world(&run).await?;
        let published = world.registry.push(&Image::new("team/app", "1").layer(10_000)).await?;
        let reference = published.by_tag(NAME);
        ensure!(world.client.image_status(&reference).await?.is_none(), "it is there before it was pulled");
        let image = world.client.pull(&reference, DEADLINE).await?.image;
        ensure!(image.runtime_id == published.id, "{image:?}");
        ensure!(image.repo_tags == [reference.clone()], "{image:?}");
        ensure!(image.repo_digests == [published.by_digest(NAME)], "{image:?}");
        ensure!(image.bytes >= published.bytes && !image.pinned, "{image:?}");
        ensure!(world.client.list_images().await? == [image.clone()], "the list says something else");
        ensure!(world.client.image_status(&reference).await? == Some(image), "the status says something else");
        Ok(())
    })
}

#[test]
fn a_pull_by_digest_makes_no_tag_known() -> Result<()> {
    scenario("cri_by_digest", LIMIT, async |run| {
        let world = world(&run).await?;
        let published = world.registry.push(&Image::new("team/app", "1").layer(10_000)).await?;
        let image = world.client.pull(&published.by_digest(NAME), DEADLINE).await?.image;
        ensure!(image.repo_tags.is_empty() && image.repo_digests == [published.by_digest(NAME)], "{image:?}");
        ensure!(world.client.image_status(&published.by_tag(NAME)).await?.is_none(), "the tag is known as well");
        // What a pod that asks for the tag needs: the same content under one more name.
        let image = world.client.pull(&published.by_tag(NAME), DEADLINE).await?.image;
        ensure!(image.repo_tags == [published.by_tag(NAME)], "{image:?}");
        ensure!(world.client.list_images().await?.len() == 1, "one content, two images");
        Ok(())
    })
}

#[test]
fn with_tag_and_digest_the_tag_is_dropped() -> Result<()> {
    scenario("cri_tag_and_digest", LIMIT, async |run| {
        let world = world(&run).await?;
        let published = world.registry.push(&Image::new("team/app", "1").layer(10_000)).await?;
        let both = format!("{}@{}", published.by_tag(NAME), published.digest);
        let image = world.client.pull(&both, DEADLINE).await?.image;
        ensure!(image.repo_tags.is_empty() && image.repo_digests == [published.by_digest(NAME)], "{image:?}");
        Ok(())
    })
}

#[test]
fn the_digest_of_an_image_with_an_index_is_the_index_s() -> Result<()> {
    scenario("cri_index", LIMIT, async |run| {
        let world = world(&run).await?;
        let image = Image::new("team/multi", "1").layer(5_000);
        let platforms = [(Platform::here(), image.clone()), (Platform::linux("riscv64"), image.clone())];
        let published = world.registry.push_index("team/multi", "1", &platforms).await?;
        let pulled = world.client.pull(&published.by_tag(NAME), DEADLINE).await?.image;
        ensure!(pulled.repo_digests == [published.by_digest(NAME)], "{pulled:?}");

        let foreign = [(Platform::linux("riscv64"), image)];
        let published = world.registry.push_index("team/foreign", "1", &foreign).await?;
        let error = refusal(&world.client, &published.by_tag(NAME)).await?;
        ensure!(error.reason() == Reason::NoPlatform, "{error:?}");
        Ok(())
    })
}

#[test]
fn what_a_registry_refuses_has_a_reason() -> Result<()> {
    scenario("cri_refusals", LIMIT, async |run| {
        let world = world(&run).await?;
        let published = world.registry.push(&Image::new("team/app", "1").layer(10_000)).await?;
        let reference = published.by_tag(NAME);
        let error = refusal(&world.client, &format!("{NAME}/team/absent:1")).await?;
        ensure!(error.reason() == Reason::NotFound, "{error:?}");
        let error = refusal(&world.client, "elsewhere.test/team/app:1").await?;
        ensure!(error.reason() == Reason::Network, "{error:?}");
        let faults = [
            (Fault::status(401), Reason::Unauthorized),
            (Fault::status_with(401, "WWW-Authenticate", "Basic realm=\"r\""), Reason::Unauthorized),
            (Fault::status(403), Reason::Unauthorized),
            (Fault::status_with(429, "Retry-After", "1"), Reason::Throttled),
            (Fault::status(500), Reason::RegistryUnavailable),
            (Fault::status(503), Reason::RegistryUnavailable),
            (Fault::Cut, Reason::Network),
        ];
        for (path, wanted) in ["/manifests/", "/blobs/"].into_iter().flat_map(|p| faults.iter().map(move |f| (p, f))) {
            let rule = world.proxy.add(Rule::new(path, wanted.0.clone())?);
            let error = refusal(&world.client, &reference).await?;
            ensure!(error.reason() == wanted.1, "{path} {:?}: {error:?}", wanted.0);
            world.proxy.remove(rule);
        }
        let rule = world.proxy.add(Rule::new("/blobs/", Fault::TruncateAfter(100))?);
        let error = refusal(&world.client, &reference).await?;
        ensure!(error.reason() == Reason::Network, "{error:?}");
        world.proxy.remove(rule);
        world.client.pull(&reference, DEADLINE).await?;
        Ok(())
    })
}

#[test]
fn an_image_that_is_removed_is_gone_under_every_name_and_an_unknown_one_is_no_error() -> Result<()> {
    scenario("cri_remove", LIMIT, async |run| {
        let world = world(&run).await?;
        let client = &world.client;
        client.remove_image(&format!("{NAME}/team/absent:1")).await?;
        let published = world.registry.push(&Image::new("team/app", "1").layer(10_000)).await?;
        let other = world.registry.push(&Image::new("team/other", "1").layer(10_000)).await?;
        for reference in [published.by_tag(NAME), published.by_digest(NAME), other.by_tag(NAME)] {
            client.pull(&reference, DEADLINE).await?;
        }
        client.remove_image(&published.by_tag(NAME)).await?;
        for reference in [published.by_tag(NAME), published.by_digest(NAME), published.id.clone()] {
            let found = client.image_status(&reference).await?;
            ensure!(found.is_none(), "{reference} is still there: {found:?}");
        }
        let left = client.list_images().await?;
        ensure!(left.len() == 1 && left[0].repo_tags == [other.by_tag(NAME)], "{left:?}");
        client.remove_image(&published.by_tag(NAME)).await?;
        // It comes back whole: nothing of it was kept that a pull would take for the image.
        let image = client.pull(&published.by_tag(NAME), DEADLINE).await?.image;
        ensure!(image.runtime_id == published.id, "{image:?}");
        Ok(())
    })
}

#[test]
fn an_image_of_a_container_or_a_volume_is_known_to_be_in_use_and_the_runtime_removes_it_all_the_same() -> Result<()> {
    scenario("cri_in_use", LIMIT, async |run| {
        let mut world = world(&run).await?;
        ensure!(world.client.images_in_use().await?.is_empty(), "a new runtime has containers");
        let mut pulled = Vec::new();
        for name in ["used", "mounted", "unused"] {
            let image = world.registry.push(&Image::new(format!("team/{name}"), "1").layer(10_000)).await?;
            pulled.push(world.client.pull(&image.by_tag(NAME), DEADLINE).await?.image);
        }
        let [used, mounted, unused] = pulled.as_slice() else { bail!("{pulled:?}") };
        world.runtime.create_container("one", &used.runtime_id, &[&mounted.repo_tags[0]]).await?;
        let names = world.client.images_in_use().await?;
        ensure!(is_used(used, &names) && is_used(mounted, &names), "{names:?}");
        ensure!(!is_used(unused, &names), "{names:?}");
        // The container's status resolves its image as long as it is there, and names it differently.
        ensure!(names.contains(&used.runtime_id), "{names:?}");

        for (image, end) in [(used, Removal::Used), (mounted, Removal::Used), (unused, Removal::Removed)] {
            let reference = &image.repo_tags[0];
            let removal = look_and_remove(&world.client, reference, image, false).await?;
            ensure!(removal == end, "{reference}: {removal:?}");
            let is_there = world.client.image_status(reference).await?.is_some();
            ensure!(is_there == (end == Removal::Used), "{reference} {}", if is_there { "stays" } else { "is gone" });
        }

        // So whoever removes has to look: containerd does not.
        world.client.remove_image(&used.repo_tags[0]).await?;
        ensure!(world.client.image_status(&used.repo_tags[0]).await?.is_none(), "containerd protects what is in use");
        let names = world.client.images_in_use().await?;
        ensure!(is_used(used, &names), "a container whose image is gone no longer counts: {names:?}");
        Ok(())
    })
}

#[test]
fn a_pinned_image_is_said_to_be_and_the_runtime_removes_it_all_the_same() -> Result<()> {
    scenario("cri_pinned", LIMIT, async |run| {
        let world = world(&run).await?;
        let published = world.registry.push(&Image::new("pinned", "1").layer(10_000)).await?;
        let reference = published.by_tag(NAME);
        ensure!(reference == PINNED, "{reference}");
        let image = world.client.pull(&reference, DEADLINE).await?.image;
        ensure!(image.pinned && world.client.list_images().await?.iter().all(|image| image.pinned), "{image:?}");
        let unpinned = RuntimeImage { pinned: false, ..image };
        let removal = look_and_remove(&world.client, &reference, &unpinned, false).await?;
        ensure!(removal == Removal::Changed, "{removal:?}");
        ensure!(world.client.image_status(&reference).await?.is_some(), "what is pinned is gone");
        world.client.remove_image(&reference).await?;
        ensure!(world.client.image_status(&reference).await?.is_none(), "containerd protects what is pinned");
        Ok(())
    })
}

#[test]
fn a_stalled_pull_ends_at_its_deadline_and_the_runtime_drops_it() -> Result<()> {
    scenario("cri_stall", LIMIT, async |run| {
        let world = world(&run).await?;
        let published = world.registry.push(&Image::new("team/big", "1").layer(400_000)).await?;
        let reference = published.by_tag(NAME);
        world.proxy.add(Rule::new("/blobs/", Fault::StallAfter(1_000))?);
        let start = tokio::time::Instant::now();
        let result = world.client.pull(&reference, Duration::from_millis(1_500)).await;
        let error = result.err().context("a stalled image was pulled")?;
        ensure!(matches!(error, CriError::Deadline { .. }) && error.reason() == Reason::DeadlineExceeded, "{error:?}");
        ensure!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        eventually("the runtime has given the download up", DEADLINE, async || match world.proxy.log().in_flight() {
            0 => Ok(()),
            n => Err(anyhow::anyhow!("{n} requests in flight")),
        })
        .await?;
        ensure!(world.client.image_status(&reference).await?.is_none(), "half an image is there");
        world.proxy.heal();
        world.client.pull(&reference, DEADLINE).await?;
        Ok(())
    })
}

#[test]
fn a_restarted_runtime_is_found_again() -> Result<()> {
    scenario("cri_restart", LIMIT, async |run| {
        let mut world = world(&run).await?;
        let published = world.registry.push(&Image::new("team/big", "1").layer(400_000)).await?;
        let reference = published.by_tag(NAME);
        let rule = world.proxy.add(Rule::new("/blobs/", Fault::StallAfter(1_000))?);

        // Killed in the middle of a pull: the pull ends at once, and it is nobody's fault but the runtime's.
        let client = world.client.clone();
        let pulling = client.pull(&reference, DEADLINE);
        let killing = async {
            let stalled = async || {
                if world.proxy.log().in_flight() > 0 { Some(()) } else { None }
            };
            eventually("the download stalls", DEADLINE, stalled).await?;
            world.runtime.process().kill()
        };
        let (pulled, killed) = tokio::join!(pulling, killing);
        killed?;
        let error = pulled.err().context("an image was pulled from a runtime that is dead")?;
        ensure!(error.reason() == Reason::RuntimeUnavailable, "{error:?}");
        world.proxy.remove(rule);

        let error = world.client.list_images().await.err().context("a dead runtime lists images")?;
        ensure!(error.reason() == Reason::RuntimeUnavailable, "{error:?}");
        let text = error.to_string();
        ensure!(
            text.contains(&world.runtime.socket().display().to_string()) && text.contains("`runtime.socket`"),
            "{text}"
        );

        world.runtime.process().start_again()?;
        world.runtime.until_ready().await?;
        // The same client, the first call.
        ensure!(world.client.list_images().await?.is_empty(), "half an image is there");
        world.client.pull(&reference, DEADLINE).await?;

        // Restarted between two calls: whatever the first call after it meets, the second succeeds.
        world.runtime.restart().await?;
        let first = world.client.list_images().await;
        let listed = world.client.list_images().await.with_context(|| format!("the call before it: {first:?}"))?;
        ensure!(listed.len() == 1, "{listed:?}");
        Ok(())
    })
}

#[test]
fn a_runtime_that_hangs_does_not_hang_the_caller() -> Result<()> {
    scenario("cri_hang", LIMIT, async |run| {
        let mut world = world(&run).await?;
        world.runtime.process().pause()?;
        let patient = Settings {
            sockets: Sockets::new(world.runtime.socket().to_str()),
            request_timeout: Duration::from_millis(300),
            sandbox_namespace: "warm-images".to_owned(),
            sandbox_uid: String::new(),
        };
        let error = Client::new(patient).version().await.err().context("a paused runtime answers")?;
        ensure!(error.reason() == Reason::DeadlineExceeded, "{error:?}");
        world.runtime.process().resume()?;
        world.client.version().await?;
        Ok(())
    })
}

#[test]
fn a_registry_that_comes_and_goes_leaves_no_trace_in_the_client() -> Result<()> {
    scenario("cri_reroute", LIMIT, async |run| {
        let world = world(&run).await?;
        let published = world.registry.push(&Image::new("team/app", "1").layer(10_000)).await?;
        world.runtime.route(NAME, SocketAddr::from(([127, 0, 0, 1], 1)))?;
        let error = refusal(&world.client, &published.by_tag(NAME)).await?;
        ensure!(error.reason() == Reason::Network, "{error:?}");
        world.runtime.route(NAME, world.proxy.address())?;
        world.client.pull(&published.by_tag(NAME), DEADLINE).await?;
        Ok(())
    })
}
