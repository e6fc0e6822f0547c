//! Whether the process is ready: the machine's judgement, the connection to NATS, the buckets.
//!
//! Owns the one text of `/readyz`, which names everything that is awaited.

use daemon::admin::Readiness;
use daemon::bus::{BusStatus, Status};
use daemon::supervise::Shutdown;
use tokio::sync::watch;

use crate::bus::session::Troubles;

/// What readiness is made of.
pub struct Parts {
    /// What the machine says.
    pub machine: watch::Receiver<Readiness>,
    /// The connection.
    pub nats: Status,
    /// Whether agents are let in, where that is the controller's affair.
    pub identity: watch::Receiver<Readiness>,
    /// What is wrong with buckets.
    pub buckets: watch::Receiver<Troubles>,
}

/// Keeps `ready` up to date until the shutdown.
pub async fn follow(mut parts: Parts, ready: watch::Sender<Readiness>, shutdown: Shutdown) {
    loop {
        let now = judge(
            &parts.machine.borrow_and_update(),
            &parts.nats.borrow_and_update(),
            &parts.buckets.borrow_and_update(),
            &parts.identity.borrow_and_update(),
        );
        let _ = ready.send_replace(now);
        let changed = tokio::select! {
            () = shutdown.cancelled() => return,
            changed = parts.machine.changed() => changed,
            changed = parts.nats.changed() => changed,
            changed = parts.buckets.changed() => changed,
            changed = parts.identity.changed() => changed,
        };
        if changed.is_err() {
            // Whoever told is gone: the process ends.
            shutdown.cancelled().await;
            return;
        }
    }
}

fn judge(machine: &Readiness, nats: &BusStatus, buckets: &Troubles, identity: &Readiness) -> Readiness {
    let nats = (!nats.is_connected()).then(|| format!("NATS: {nats}"));
    let reasons: Vec<String> = nats
        .into_iter()
        .chain(buckets.values().cloned())
        .chain(identity.clone().err())
        .chain(machine.clone().err())
        .collect();
    match machine {
        Ok(does) if reasons.is_empty() => Ok(does.clone()),
        _ => Err(reasons.join("\n")),
    }
}

#[cfg(test)]
mod tests {
    use shared::subject::Bucket;

    use super::*;

    #[test]
    fn ready_is_when_nothing_is_awaited_and_otherwise_everything_is_named() {
        let connected = BusStatus::Connected { generation: 1 };
        assert_eq!(
            judge(&Ok("leads term 1".to_owned()), &connected, &Troubles::new(), &Ok(String::new())),
            Ok("leads term 1".to_owned())
        );
        let troubles = [(Bucket::Assign, "bucket warm-default-assign: storage is \"memory\"".to_owned())].into();
        let lost = BusStatus::Disconnected { last_error: Some("connection refused".to_owned()) };
        let identity = Err("identity: no seed".to_owned());
        let said = judge(&Err("waiting for nodes".to_owned()), &lost, &troubles, &identity).unwrap_err();
        assert_eq!(
            said,
            "NATS: connection refused\nbucket warm-default-assign: storage is \"memory\"\nidentity: no seed\nwaiting for nodes"
        );
    }
}
