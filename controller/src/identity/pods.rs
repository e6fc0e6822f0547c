//! The Pods of the agents, as the watch last showed them.
//!
//! Owns the comparison of a token's Pod with the one that is there. A fleet that logs in at once asks the API server
//! nothing. Never watches itself.

use std::collections::BTreeMap;
use std::time::Duration;

use shared::reason::Reason;
use tokio::sync::watch;

use super::token::Bearer;

/// A token can be quicker than the watch: a Pod that is not known is waited for, for so long.
const PATIENCE: Duration = Duration::from_secs(2);

/// What matters of an agent's Pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentPod {
    /// Its UID.
    pub uid: String,
    /// Where it runs.
    pub node: String,
}

/// Those that run, by name: in the agents' namespace, with their service account. `None` before the first full list.
pub type Known = Option<BTreeMap<String, AgentPod>>;

/// The Pods. Cheap to clone.
#[derive(Debug, Clone)]
pub struct AgentPods(watch::Receiver<Known>);

impl AgentPods {
    /// What the watch tells.
    pub fn new(known: watch::Receiver<Known>) -> Self {
        Self(known)
    }

    /// Waits for the first full list.
    pub async fn synced(&mut self) {
        if self.0.wait_for(Option::is_some).await.is_err() {
            // Who watches is gone only when the process ends.
            std::future::pending::<()>().await;
        }
    }

    /// Whether the bearer's Pod is there, and where its token says.
    ///
    /// # Errors
    /// [`Reason::PodGone`] and [`Reason::PodElsewhere`].
    pub async fn check(&self, bearer: &Bearer) -> Result<(), Reason> {
        let mut known = self.0.clone();
        let is_there = |known: &Known| known.as_ref().is_some_and(|pods| has(pods, bearer));
        let found = tokio::time::timeout(PATIENCE, known.wait_for(is_there)).await;
        if !matches!(found, Ok(Ok(_))) {
            return Err(Reason::PodGone);
        }
        let known = self.0.borrow();
        let pod = known.as_ref().and_then(|pods| pods.get(&bearer.pod)).ok_or(Reason::PodGone)?;
        if pod.node == bearer.node.as_str() { Ok(()) } else { Err(Reason::PodElsewhere) }
    }
}

fn has(pods: &BTreeMap<String, AgentPod>, bearer: &Bearer) -> bool {
    pods.get(&bearer.pod).is_some_and(|pod| pod.uid == bearer.pod_uid)
}

#[cfg(test)]
mod tests {
    use shared::name::NodeName;

    use super::*;

    fn bearer(pod: &str, uid: &str, node: &str) -> Bearer {
        Bearer { node: NodeName::parse(node).unwrap(), pod: pod.into(), pod_uid: uid.into() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_must_be_there_be_the_same_and_be_where_the_token_says() {
        let pod = AgentPod { uid: "1".into(), node: "a".into() };
        let (told, known) = watch::channel(Some([("x".to_owned(), pod)].into()));
        let pods = AgentPods::new(known);
        assert_eq!(pods.check(&bearer("x", "1", "a")).await, Ok(()));
        assert_eq!(pods.check(&bearer("x", "1", "b")).await, Err(Reason::PodElsewhere));
        assert_eq!(pods.check(&bearer("x", "2", "a")).await, Err(Reason::PodGone));
        assert_eq!(pods.check(&bearer("y", "1", "a")).await, Err(Reason::PodGone));
        told.send_replace(None);
        assert_eq!(pods.check(&bearer("x", "1", "a")).await, Err(Reason::PodGone));
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_that_the_watch_shows_a_little_later_is_there() {
        let (told, known) = watch::channel(None);
        let pods = AgentPods::new(known);
        let wanted = bearer("x", "1", "a");
        let show = async {
            tokio::time::sleep(PATIENCE / 2).await;
            let pod = AgentPod { uid: "1".into(), node: "a".into() };
            told.send_replace(Some([("x".to_owned(), pod)].into()));
        };
        assert_eq!(tokio::join!(pods.check(&wanted), show).0, Ok(()));
    }
}
