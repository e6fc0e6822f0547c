//! One agent's place on NATS.
//!
//! Owns which cluster and node its subjects are of, and what every part of this folder shares.

use std::sync::Arc;

use daemon::bus::{Bus, BusError, NatsConfig, Probe};
use daemon::replies::Replies;
use daemon::supervise::Tasks;
use node_plan::Fact;
use shared::message::DecodeError;
use shared::name::{ClusterId, NodeName};
use shared::reason::{Class, Reason};
use shared::subject::{Bucket, IntentsKey, agent_inbox};

use super::receive::{Incoming, Refusals, fact};

/// The link. Cheap to clone.
#[derive(Clone)]
pub struct Link {
    pub(super) bus: Bus,
    pub(super) cluster: ClusterId,
    pub(super) node: NodeName,
    /// Subjects of requests that wait for an answer.
    pub(super) replies: Arc<Replies<String>>,
    refusals: Arc<Refusals>,
}

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// On the way.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// What is stored cannot be used.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// Nobody asked, or not lately.
    #[error("request {0} has no reply subject any more")]
    NoReply(u64),
}

impl Failure {
    /// The bounded reason.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Bus(error) => error.reason(),
            Self::Decode(_) | Self::NoReply(_) => Reason::Invalid,
        }
    }

    /// Whether trying again can help.
    pub fn class(&self) -> Class {
        match self {
            Self::Bus(error) => error.class(),
            // Whoever wrote it writes it again.
            Self::Decode(_) => Class::Transient,
            Self::NoReply(_) => Class::Permanent,
        }
    }
}

impl Link {
    /// Starts connecting and returns at once.
    ///
    /// # Errors
    /// Settings that no attempt could use.
    pub async fn connect(
        config: &NatsConfig,
        cluster: ClusterId,
        node: NodeName,
        tasks: &Tasks,
    ) -> Result<Self, BusError> {
        let meta = Bucket::Intents.subject(&cluster, &IntentsKey::Meta.to_string());
        // What every agent may ask.
        let probe = Probe::direct_get(&Bucket::Intents.stream(&cluster), &meta);
        let (name, inbox) = (format!("warm-agent {node}"), agent_inbox(&cluster, &node));
        let (bus, _) = Bus::connect_with_probe(config, &name, &inbox, probe, tasks).await?;
        Ok(Self { bus, cluster, node, replies: Arc::default(), refusals: Arc::default() })
    }

    /// Hands what was published to the system.
    pub async fn flush(&self) {
        self.bus.flush().await;
    }

    /// What a message of ours means.
    pub(super) fn take(&self, message: &daemon::bus::Message) -> Fact {
        let header = |name: &str| message.headers.get(name);
        let incoming = Incoming {
            subject: &message.subject,
            reply: message.reply.as_deref(),
            header: &header,
            payload: &message.payload,
        };
        fact(&incoming, &self.cluster, &self.node, |subject| self.replies.keep(subject.to_owned()))
            .unwrap_or_else(|refusal| self.refusals.note(refusal, &message.subject))
    }
}
