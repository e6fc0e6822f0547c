//! The controller's elector against a real API server.
//!
//! The contract: at most one replica may write at a time; a release hands over at once, a silence after the duration the
//! holder gave, by our own clock and whatever its timestamps say; who cannot renew stops in time; a Lease that is deleted
//! or taken by hand ends well; and the rights of the table are enough.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use cluster_plan::Fact;
use controller::api::client;
use controller::config::LeaderSettings;
use controller::leader::{Elector, Seat};
use daemon::supervise::{Shutdown, Tasks, Trigger};
use integration::apiserver::ApiServer;
use integration::eventually::eventually;
use integration::installation::rights::{self, LEASE, NAMESPACE};
use integration::listener::Listener;
use integration::parts::{Parts, Tool};
use integration::run::{RunDir, scenario};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tokio::time::Instant;

const TEST: Duration = Duration::from_mins(2);
const SOON: Duration = Duration::from_secs(30);
const USER: &str = "warm-images-controller";

/// Short, yet long enough for a busy machine.
const DURATION: Duration = Duration::from_secs(4);
const DEADLINE: Duration = Duration::from_secs(3);

fn settings() -> LeaderSettings {
    LeaderSettings {
        lease_duration: DURATION,
        renew_deadline: DEADLINE,
        retry_period: Duration::from_millis(400),
        ..LeaderSettings::default()
    }
}

/// One replica's elector.
struct Replica {
    elector: Arc<Elector>,
    seat: Seat,
    said: Listener,
    stop: Trigger,
    tasks: Tasks,
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.stop.trigger();
        self.tasks.stop();
    }
}

impl Replica {
    async fn start(api: &ApiServer, identity: &str) -> Result<Self> {
        let client = client::connect(Some(&api.kubeconfig_for(USER, None)?), SOON).await?;
        let (tasks, shutdown) = Tasks::new();
        let (said, inbox) = Listener::start(&tasks, shutdown);
        let elector = Arc::new(Elector::new(client, NAMESPACE, identity, &settings(), inbox));
        let (stop, stopped) = Shutdown::manual();
        let running = Arc::clone(&elector);
        tasks.spawn_effect("election", running.run(stopped));
        let seat = elector.seat();
        Ok(Self { elector, seat, said, stop, tasks })
    }

    fn may_write(&self) -> bool {
        self.seat.tenure().check().is_ok()
    }

    fn said(&self) -> Vec<bool> {
        let leads = |fact| if let Fact::Lease(holds) = fact { Some(holds) } else { None };
        self.said.facts().into_iter().filter_map(leads).collect()
    }

    async fn until(&self, may_write: bool) -> Result<()> {
        eventually(format!("it may write: {may_write}"), SOON, async || {
            let said = self.said();
            let agrees = self.may_write() == may_write && said.last().copied().unwrap_or(false) == may_write;
            if agrees { Ok(()) } else { Err(anyhow!("may write: {}, told: {said:?}", self.may_write())) }
        })
        .await
    }

    /// As at SIGTERM.
    async fn leave(&self) {
        self.stop.trigger();
        self.elector.release().await;
    }
}

async fn control_plane(run: &Arc<RunDir>) -> Result<ApiServer> {
    let api = ApiServer::start(run, &Parts::ensure(&[Tool::Etcd, Tool::KubeApiserver])?).await?;
    rights::grant(&api.client(), USER).await?;
    Ok(api)
}

fn leases(api: &ApiServer) -> Api<Lease> {
    Api::namespaced(api.client(), NAMESPACE)
}

async fn spec(api: &ApiServer) -> Result<LeaseSpec> {
    leases(api).get(LEASE).await?.spec.context("a spec")
}

async fn write(api: &ApiServer, spec: Value) -> Result<()> {
    let patch = Patch::Merge(json!({ "spec": spec }));
    leases(api).patch(LEASE, &PatchParams::default(), &patch).await?;
    Ok(())
}

#[test]
fn one_of_two_holds_and_a_release_hands_over_at_once() -> Result<()> {
    scenario("two", TEST, async |run| {
        let api = control_plane(&run).await?;
        let a = Replica::start(&api, "a").await?;
        a.until(true).await?;
        let b = Replica::start(&api, "b").await?;
        // Past every deadline: it is renewed, and the other waits.
        let start = Instant::now();
        eventually("the lease outlives its duration", SOON, async || start.elapsed() > DURATION + DEADLINE).await?;
        ensure!(a.said() == [true] && a.may_write() && b.said().is_empty() && !b.may_write(), "{:?}", b.said());
        let first = spec(&api).await?;
        ensure!(first.holder_identity.as_deref() == Some("a") && first.lease_transitions == Some(0), "{first:?}");
        ensure!(first.lease_duration_seconds == Some(4) && first.acquire_time < first.renew_time, "{first:?}");

        let old = a.seat.tenure();
        let start = Instant::now();
        a.leave().await;
        ensure!(old.check().is_err(), "who has released writes no more");
        b.until(true).await?;
        ensure!(start.elapsed() < DURATION / 2, "{:?}", start.elapsed());
        let second = spec(&api).await?;
        ensure!(second.holder_identity.as_deref() == Some("b") && second.lease_transitions == Some(1), "{second:?}");
        Ok(())
    })
}

#[test]
fn a_silent_holder_is_waited_for_by_our_clock_whatever_its_timestamps_say() -> Result<()> {
    scenario("clocks", TEST, async |run| {
        let api = control_plane(&run).await?;
        for renewed in ["2099-01-01T00:00:00.000000Z", "1999-01-01T00:00:00.000000Z"] {
            let lease: Lease = serde_json::from_value(json!({
                "metadata": { "name": LEASE },
                "spec": { "holderIdentity": "ghost", "leaseDurationSeconds": 2, "renewTime": renewed, "leaseTransitions": 6 },
            }))?;
            leases(&api).create(&PostParams::default(), &lease).await?;
            let start = Instant::now();
            let replica = Replica::start(&api, "a").await?;
            replica.until(true).await?;
            let waited = start.elapsed();
            ensure!(waited >= Duration::from_secs(2), "{renewed}: taken after {waited:?}");
            ensure!(spec(&api).await?.lease_transitions == Some(7));
            drop(replica);
            leases(&api).delete(LEASE, &DeleteParams::default()).await?;
        }
        Ok(())
    })
}

#[test]
fn who_cannot_renew_stops_before_the_others_may_begin_and_goes_on_when_it_can() -> Result<()> {
    scenario("away", TEST, async |run| {
        let mut api = control_plane(&run).await?;
        let replica = Replica::start(&api, "a").await?;
        replica.until(true).await?;
        let tenure = replica.seat.tenure();
        api.server().kill()?;
        let start = Instant::now();
        tenure.over().await;
        ensure!(start.elapsed() <= DEADLINE, "it could write for {:?}", start.elapsed());
        replica.until(false).await?;
        api.server().start_again()?;
        api.until_ready().await?;
        replica.until(true).await?;
        ensure!(tenure.check().is_err(), "another tenure does not revive the last");
        ensure!(replica.said() == [true, false, true], "{:?}", replica.said());
        Ok(())
    })
}

#[test]
fn a_lease_that_is_taken_by_hand_or_deleted_has_one_holder_again() -> Result<()> {
    scenario("hands", TEST, async |run| {
        let api = control_plane(&run).await?;
        let (a, b) = (Replica::start(&api, "a").await?, Replica::start(&api, "b").await?);
        let holder = async || {
            eventually("one of them holds it", SOON, async || {
                let holder = spec(&api).await?.holder_identity.unwrap_or_default();
                let (a, b) = (a.may_write(), b.may_write());
                let is_so = (holder == "a" && a && !b) || (holder == "b" && b && !a);
                if is_so { Ok(Some(holder)) } else { Err(anyhow!("{holder:?}, a: {a}, b: {b}")) }
            })
            .await
        };
        for _ in 0..3 {
            holder().await?;
            leases(&api).delete(LEASE, &DeleteParams::default()).await?;
        }
        let before = holder().await?;
        write(&api, json!({ "holderIdentity": "somebody", "leaseDurationSeconds": 1 })).await?;
        let loser = if before == "a" { &a } else { &b };
        loser.until(false).await?;
        holder().await?;
        Ok(())
    })
}

#[test]
fn who_gives_up_leaves_it_to_the_other() -> Result<()> {
    scenario("gives-up", TEST, async |run| {
        let api = control_plane(&run).await?;
        let a = Replica::start(&api, "a").await?;
        a.until(true).await?;
        let b = Replica::start(&api, "b").await?;
        a.seat.give_up();
        b.until(true).await?;
        a.until(false).await?;
        ensure!(a.said() == [true, false], "{:?}", a.said());
        // Alone again, it may.
        b.leave().await;
        a.until(true).await
    })
}
