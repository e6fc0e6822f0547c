//! Registry, runtime and the proxies against each other: what passes, what is logged, and what each fault does.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use integration::cluster::REGISTRY;
use integration::containerd::Containerd;
use integration::eventually::eventually;
use integration::image::{Image, Platform};
use integration::nats::{Nats, NatsConfig};
use integration::parts::{Parts, Tool};
use integration::proxy::fault::{Fault, Rule};
use integration::proxy::http::HttpProxy;
use integration::proxy::log::RequestLog;
use integration::proxy::tcp::TcpProxy;
use integration::registry::Registry;
use integration::run::{RunDir, scenario};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// For a whole test, on a machine that builds at the same time.
const TEST: Duration = Duration::from_mins(3);
/// For one state to be seen.
const SOON: Duration = Duration::from_secs(20);

const NATS: &[Tool] = &[Tool::NatsServer, Tool::Nats];
const IMAGES: &[Tool] = &[Tool::Crane, Tool::Containerd, Tool::Crictl];

/// Registry, proxy and runtime of one node.
struct Puller {
    registry: Registry,
    proxy: HttpProxy,
    log: RequestLog,
    containerd: Containerd,
}

impl Puller {
    async fn start(run: &Arc<RunDir>) -> Result<Self> {
        let parts = Parts::ensure(IMAGES)?;
        let registry = Registry::start(run, &parts).await?;
        let log = RequestLog::kept(run);
        let proxy = HttpProxy::start("a", registry.address(), &log).await?;
        let containerd = Containerd::start(run, &parts, "a", &[(REGISTRY, proxy.address())]).await?;
        Ok(Self { registry, proxy, log, containerd })
    }

    async fn pull(&self, name: &str) -> Result<()> {
        self.containerd.crictl().pull(name).await
    }
}

#[test]
fn containerd_pulls_a_made_image_through_the_proxy_of_its_node() -> Result<()> {
    scenario("pull", TEST, async |run| {
        let mut node = Puller::start(&run).await?;
        let image = node.registry.push(&Image::new("team/app", "1").layer(100_000).layer(50_000)).await?;
        let name = image.by_tag(REGISTRY);
        node.pull(&name).await?;

        let held = node.containerd.crictl().image(&name).await?;
        assert_eq!(held.id, image.id);
        let status = node.containerd.crictl().inspect(&name).await?;
        assert_eq!(status["status"]["id"], image.id.as_str());

        let asked = node.log.all();
        assert!(asked.iter().all(|request| request.node == "a" && request.is_of("team/app")), "{}", node.log.show());
        assert!(asked.iter().all(|request| request.user_agent.starts_with("containerd/")), "{asked:#?}");
        assert!(asked.iter().all(|request| request.query == format!("ns={REGISTRY}")), "{asked:#?}");
        assert!(asked.iter().all(|request| request.complete && request.status == Some(200)), "{}", node.log.show());
        let of_blobs: u64 = asked.iter().filter(|request| request.is_blob()).map(|request| request.bytes).sum();
        assert_eq!(of_blobs, image.bytes, "{}", node.log.show());

        let mark = node.log.len();
        node.pull(&name).await?;
        assert!(node.log.since(mark).iter().all(|request| !request.is_blob()), "a second pull moves no blob");

        node.containerd.crictl().remove(&name).await?;
        assert!(!node.containerd.crictl().has(&name).await?);
        assert!(node.pull("elsewhere.test/team/app:1").await.is_err(), "an unknown registry is refused");

        node.registry.restart().await?;
        node.pull(&name).await.context("after a restart of the registry")?;

        let moved = node.registry.push(&Image::new("team/app", "1").revision(1)).await?;
        assert_ne!(moved.digest, image.digest);
        node.pull(&name).await?;
        assert_eq!(node.containerd.crictl().image(&name).await?.id, moved.id);
        Ok(())
    })
}

#[test]
fn an_index_resolves_to_the_image_for_this_machine() -> Result<()> {
    scenario("index", TEST, async |run| {
        let node = Puller::start(&run).await?;
        let images = [
            (Platform::here(), Image::new("multi", "1").layer(1000)),
            (Platform::linux("s390x"), Image::new("multi", "1").layer(2000)),
        ];
        let published = node.registry.push_index("multi", "1", &images).await?;
        node.pull(&published.by_tag(REGISTRY)).await?;
        let held = node.containerd.crictl().image(&published.by_tag(REGISTRY)).await?;
        assert_eq!(held.id, published.id);
        assert!(held.is(&published.by_digest(REGISTRY)), "the digest of the index: {held:?}");
        Ok(())
    })
}

#[test]
fn registry_faults_fail_or_hold_a_pull_until_they_are_healed() -> Result<()> {
    scenario("registry_faults", TEST, async |run| {
        let node = Puller::start(&run).await?;
        let faults = [
            Rule::new("/manifests/", Fault::status(500))?,
            Rule::new("/manifests/", Fault::status(401))?,
            Rule::new("/manifests/", Fault::status_with(429, "Retry-After", "1"))?,
            Rule::new("/blobs/", Fault::TruncateAfter(1000))?,
            Rule::new("/blobs/", Fault::Alter)?,
            Rule::new(".*", Fault::Cut)?,
        ];
        for (number, fault) in faults.into_iter().enumerate() {
            let shown = format!("{fault:?}");
            let image = node.registry.push(&Image::new("app", number.to_string()).layer(100_000)).await?;
            let name = image.by_tag(REGISTRY);
            let mark = node.log.len();
            node.proxy.add(fault);
            let failed = node.pull(&name).await;
            assert!(failed.is_err(), "{shown}");
            assert!(node.log.since(mark).iter().any(|request| request.fault.is_some()), "{shown}");
            node.proxy.heal();
            // What came altered is still there for the next try, which finds it out and throws it away.
            eventually(format!("pulled after {shown}"), SOON, async || node.pull(&name).await).await?;
        }
        Ok(())
    })
}

#[test]
fn a_stalled_pull_goes_on_when_the_stall_ends() -> Result<()> {
    scenario("registry_stall", TEST, async |run| {
        let node = Puller::start(&run).await?;
        for (tag, path, fault) in [("1", "/manifests/", Fault::Stall), ("2", "/blobs/", Fault::StallAfter(1000))] {
            let image = node.registry.push(&Image::new("app", tag).layer(100_000)).await?;
            let name = image.by_tag(REGISTRY);
            let rule = node.proxy.add(Rule::new(path, fault)?);
            let pull = node.pull(&name);
            let heal = async {
                eventually("a request is held", SOON, async || node.log.in_flight() > 0).await?;
                ensure!(!node.containerd.crictl().has(&name).await?, "pulled in spite of the stall");
                node.proxy.remove(rule);
                Ok(())
            };
            tokio::try_join!(pull, heal)?;
        }
        eventually("all requests are over", SOON, async || node.log.in_flight() == 0).await
    })
}

#[test]
fn a_private_repository_wants_its_password() -> Result<()> {
    scenario("registry_private", TEST, async |run| {
        let node = Puller::start(&run).await?;
        let image = node.registry.push(&Image::new("private/app", "1")).await?;
        let name = image.by_tag(REGISTRY);
        node.proxy.add(Rule::private("^/v2/private/", "reader", "secret")?);
        assert!(node.pull(&name).await.is_err());
        let crictl = node.containerd.crictl();
        assert!(crictl.run(&["pull", "--creds", "reader:wrong", &name]).await.is_err());
        crictl.run(&["pull", "--creds", "reader:secret", &name]).await?;
        assert!(node.log.all().iter().any(|request| request.authorized && request.status == Some(200)));

        let kept = std::fs::read_to_string(run.log("requests"))?;
        assert!(kept.contains("/v2/private/app/manifests/1 401"), "{kept}");
        Ok(())
    })
}

#[test]
fn a_fault_can_be_for_a_few_requests_only() -> Result<()> {
    scenario("registry_times", TEST, async |run| {
        let node = Puller::start(&run).await?;
        let image = node.registry.push(&Image::new("app", "1")).await?;
        node.proxy.add(Rule::new("/manifests/", Fault::status(503))?.times(2));
        eventually("the pull succeeds once the fault is used up", SOON, async || {
            node.pull(&image.by_tag(REGISTRY)).await
        })
        .await?;
        assert_eq!(node.log.count(|request| request.status == Some(503)), 2);

        let image = node.registry.push(&Image::new("app", "2").layer(100_000)).await?;
        let [layer] = image.layers.as_slice() else { anyhow::bail!("one layer") };
        let mark = node.log.len();
        node.proxy.add(Rule::new(layer, Fault::TruncateAfter(1000))?.times(1));
        node.pull(&image.by_tag(REGISTRY)).await?;
        let passed = node.log.since(mark).into_iter().filter(|request| request.path.contains(layer));
        let passed: Vec<_> = passed.map(|request| (request.status, request.complete)).collect();
        assert_eq!(passed, [(Some(200), false), (Some(206), true)], "resumed where it broke off");
        Ok(())
    })
}

#[test]
fn a_tcp_proxy_cuts_stalls_delays_and_heals() -> Result<()> {
    scenario("tcp_proxy", TEST, async |_run| {
        let proxy = TcpProxy::start(echo_server()?).await?;
        let mut client = TcpStream::connect(proxy.address()).await?;
        echoes(&mut client).await?;
        let passed = proxy.traffic();
        assert_eq!((passed.accepted, passed.open, passed.to_server, passed.to_client), (1, 1, 4, 4));

        proxy.stall();
        assert!(tokio::time::timeout(Duration::from_millis(200), echoes(&mut client)).await.is_err());
        proxy.heal().await?;
        let mut held = [0; 4];
        client.read_exact(&mut held).await?;

        proxy.delay(Duration::from_millis(100));
        let start = tokio::time::Instant::now();
        echoes(&mut client).await?;
        assert!(start.elapsed() >= Duration::from_millis(200), "there and back");

        proxy.cut().await?;
        assert!(echoes(&mut client).await.is_err());
        assert!(TcpStream::connect(proxy.address()).await.is_err());
        assert!(proxy.connections().iter().all(|connection| connection.took.is_some()));
        proxy.heal().await?;
        echoes(&mut TcpStream::connect(proxy.address()).await?).await
    })
}

/// Sends back what it gets, until the test program ends.
fn echo_server() -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || std::io::copy(&mut &stream, &mut &stream));
        }
    });
    Ok(address)
}

async fn echoes(client: &mut TcpStream) -> Result<()> {
    client.write_all(b"ping").await?;
    let mut answer = [0; 4];
    client.read_exact(&mut answer).await?;
    assert_eq!(&answer, b"ping");
    Ok(())
}

#[test]
fn nats_is_reached_through_a_proxy_and_not_when_it_is_cut() -> Result<()> {
    scenario("nats_proxy", TEST, async |run| {
        let nats = Nats::start(&run, &Parts::ensure(NATS)?, NatsConfig::open()).await?;
        let proxy = TcpProxy::start(nats.address()).await?;
        let publish = async || nats.cli_through(proxy.address(), "admin", &["pub", "a", "x"]).await;
        assert!(publish().await?.status.success());
        assert!(proxy.traffic().to_server > 0);
        proxy.cut().await?;
        assert!(!publish().await?.status.success());
        proxy.heal().await?;
        assert!(publish().await?.status.success());
        Ok(())
    })
}
