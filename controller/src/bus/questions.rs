//! What people ask on `ctl.<verb>`: a micro service of which any replica answers.
//!
//! Owns the endpoints and what counts as a question. What is answered is the machine's; who may ask is NATS's.

use std::sync::Arc;

use cluster_plan::Fact;
use daemon::bus::{Bus, BusError, Service, ServiceRequest, ServiceSpec};
use daemon::driver::Inbox;
use daemon::replies::Replies;
use daemon::supervise::Shutdown;
use shared::name::ClusterId;
use shared::reason::Reason;
use shared::subject::{ControlVerb, Subject};
use tracing::debug;

use super::refused;

/// The service's name, and that of the queue group its replicas are in.
const NAME: &str = "warm-controller";

/// Listens to people.
pub struct Questions {
    cluster: ClusterId,
    service: Service,
    inbox: Inbox<Fact>,
    replies: Arc<Replies<ServiceRequest>>,
}

impl Questions {
    /// Offers the service; also works before there is a connection. `replies` keeps the ways back.
    pub async fn offer(
        bus: &Bus,
        cluster: &ClusterId,
        instance: &str,
        inbox: Inbox<Fact>,
        replies: Arc<Replies<ServiceRequest>>,
    ) -> Result<Self, BusError> {
        let spec = ServiceSpec {
            name: NAME,
            version: env!("CARGO_PKG_VERSION"),
            description: "warm-images: how things stand, why an image is where it is, pause and resume",
            metadata: &[("cluster", cluster.as_str()), ("instance", instance)],
            prefix: &Subject::control_prefix(cluster),
            endpoints: &ControlVerb::ALL.map(ControlVerb::as_str),
        };
        let service = bus.offer(&spec).await?;
        Ok(Self { cluster: cluster.clone(), service, inbox, replies })
    }

    /// Turns requests into facts until the shutdown; then other replicas answer.
    pub async fn run(mut self, shutdown: Shutdown) {
        loop {
            let request = tokio::select! {
                () = shutdown.cancelled() => break,
                request = self.service.recv() => request,
            };
            let Some(request) = request else { break };
            self.inbox.send(self.judge(request)).await;
        }
        self.service.stop().await;
    }

    fn judge(&self, request: ServiceRequest) -> Fact {
        let verb = match Subject::parse(&self.cluster, request.subject()) {
            Some(Subject::Control(verb)) if request.is_from_client() => verb,
            _ => {
                let (kind, reason) = ("control", Reason::Forged);
                refused(kind, reason);
                debug!(subject = request.subject(), "a request that no client can have sent is dropped");
                return Fact::Refused { kind, reason };
            }
        };
        let body = String::from_utf8_lossy(request.body()).into_owned();
        Fact::Asked { verb, body, reply: self.replies.keep(request) }
    }
}
