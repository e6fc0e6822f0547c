//! What the processes used, and what was asked of NATS and of the API server: owns the counting between two moments.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::installation::Installation;
use crate::process::Process;

/// A reading of all counters.
pub(super) struct Reading {
    at: Instant,
    cpu: BTreeMap<&'static str, Duration>,
    /// Messages in, out, bytes in, out.
    traffic: [u64; 4],
    /// Requests of the controller to the API server.
    requests: BTreeMap<String, u64>,
}

/// Reads them.
pub(super) async fn read(installation: &mut Installation, fleet: &Process) -> Result<Reading> {
    let varz = installation.cluster.nats.monitor("varz").await?;
    let traffic = ["in_msgs", "out_msgs", "in_bytes", "out_bytes"]
        .map(|name| varz.get(name).and_then(Value::as_u64).unwrap_or_default());
    let cpu = processes(installation, fleet)?.into_iter().map(|(name, (cpu, _))| (name, cpu)).collect();
    Ok(Reading { at: Instant::now(), cpu, traffic, requests: requests(installation)? })
}

/// Processor time and resident bytes of each process.
fn processes(installation: &mut Installation, fleet: &Process) -> Result<BTreeMap<&'static str, (Duration, u64)>> {
    let mut found = BTreeMap::new();
    let cluster = &mut installation.cluster;
    let ours: [(&'static str, &Process); 2] = [("controller", &installation.controller.process), ("fleet", fleet)];
    for (name, process) in ours {
        found.insert(name, (process.cpu_time()?, process.resident_bytes()?));
    }
    found.insert("nats", of(cluster.nats.process())?);
    found.insert("apiserver", of(cluster.api.server())?);
    found.insert("etcd", of(cluster.api.etcd())?);
    Ok(found)
}

fn of(process: &Process) -> Result<(Duration, u64)> {
    Ok((process.cpu_time()?, process.resident_bytes()?))
}

/// Requests of the controller so far, by verb and resource.
pub(super) fn requests(installation: &Installation) -> Result<BTreeMap<String, u64>> {
    let mut found = BTreeMap::new();
    for request in installation.cluster.api.requests().context("reading the audit log")? {
        *found.entry(format!("{} {}", request.verb, request.resource)).or_default() += 1;
    }
    Ok(found)
}

/// Resident megabytes of each process now.
pub(super) fn memory(installation: &mut Installation, fleet: &Process) -> Result<Value> {
    let megabytes: BTreeMap<&str, u64> =
        processes(installation, fleet)?.into_iter().map(|(name, (_, bytes))| (name, bytes / 1_000_000)).collect();
    Ok(json!(megabytes))
}

impl Reading {
    /// What came since `before`.
    pub(super) fn since(&self, before: &Self) -> Value {
        let seconds = self.at.duration_since(before.at).as_secs_f64();
        let cpu: BTreeMap<&str, f64> = self
            .cpu
            .iter()
            .map(|(name, time)| {
                // A process that was killed meanwhile counts anew.
                let used = time.checked_sub(before.cpu.get(name).copied().unwrap_or_default()).unwrap_or(*time);
                (*name, (used.as_secs_f64() * 100.0).round() / 100.0)
            })
            .collect();
        let [messages_in, messages_out, bytes_in, bytes_out] = std::array::from_fn(|i| {
            let of = |reading: &Self| reading.traffic.get(i).copied().unwrap_or_default();
            of(self).checked_sub(of(before)).unwrap_or(of(self))
        });
        let requests: BTreeMap<&String, u64> = self
            .requests
            .iter()
            .map(|(what, count)| (what, count - before.requests.get(what).copied().unwrap_or_default()))
            .filter(|(_, count)| *count > 0)
            .collect();
        json!({
            "seconds": (seconds * 100.0).round() / 100.0, "cpuSeconds": cpu, "requests": requests,
            "nats": { "messagesIn": messages_in, "messagesOut": messages_out, "bytesIn": bytes_in, "bytesOut": bytes_out },
        })
    }

    /// Seconds of processor time of a process since `before`.
    pub(super) fn cpu_since(&self, before: &Self, name: &str) -> f64 {
        let of = |reading: &Self| reading.cpu.get(name).copied().unwrap_or_default();
        of(self).saturating_sub(of(before)).as_secs_f64()
    }

    /// Seconds between both.
    pub(super) fn seconds_since(&self, before: &Self) -> f64 {
        self.at.duration_since(before.at).as_secs_f64()
    }
}
