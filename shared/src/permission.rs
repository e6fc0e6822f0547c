//! What each NATS user may publish and subscribe to: the one table of `protocol.md` section 6.
//!
//! Owns the subjects. The controller signs them into the tokens of agents, tests give them to the users of a real server
//! and compare the chart's with them. Never talks to NATS.

use std::time::Duration;

use crate::name::{ClusterId, NodeName};
use crate::subject::Bucket;

/// What a user may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permissions {
    /// Subjects it may publish to.
    pub publish: Rule,
    /// Subjects it may subscribe to.
    pub subscribe: Rule,
    /// Answers it may give to requests that reach it, beside `publish`.
    pub responses: Option<Responses>,
}

/// Subjects; an empty `allow` allows all but those in `deny`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rule {
    /// Allowed subjects.
    pub allow: Vec<String>,
    /// Denied subjects; they win.
    pub deny: Vec<String>,
}

/// Answers to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Responses {
    /// How many to each.
    pub max: u32,
    /// For how long after it.
    pub ttl: Duration,
}

/// Whose agents a user is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Agents<'a> {
    /// That of one node.
    Of(&'a NodeName),
    /// All of them: NATS then does not tell one node from another.
    All,
}

impl Rule {
    fn only(allow: Vec<String>) -> Self {
        Self { allow, deny: Vec::new() }
    }
}

/// An agent, or all of them.
pub fn agent(cluster: &ClusterId, agents: Agents<'_>) -> Permissions {
    let node = match agents {
        Agents::Of(node) => node.token(),
        Agents::All => "*".to_owned(),
    };
    let core = |word: String| format!("warm.v1.{cluster}.{word}");
    let direct = |bucket: Bucket| format!("$JS.API.DIRECT.GET.{}", bucket.stream(cluster));
    let assignment = Bucket::Assign.subject(cluster, &node);
    Permissions {
        publish: Rule::only(vec![
            core(format!("node.{node}.hb")),
            core(format!("node.{node}.ev.*")),
            core(format!("permit.{node}")),
            core(format!("cred.{node}")),
            Bucket::Nodes.subject(cluster, &format!("{node}.inv")),
            direct(Bucket::Intents),
            format!("{}.{assignment}", direct(Bucket::Assign)),
        ]),
        subscribe: Rule::only(vec![
            core("delta.*".to_owned()),
            core("beat.*".to_owned()),
            core(format!("assign.{node}")),
            core(format!("node.{node}.req.*")),
            format!("_WI.{cluster}.agent.{node}.>"),
        ]),
        responses: Some(Responses { max: 1, ttl: Duration::from_secs(30) }),
    }
}

/// The controllers.
pub fn controller(cluster: &ClusterId) -> Permissions {
    Permissions {
        publish: Rule { allow: Vec::new(), deny: vec![Bucket::Nodes.subject(cluster, ">")] },
        subscribe: Rule::only([told(cluster), vec!["$SRV.>".to_owned(), format!("_WI.{cluster}.ctl.>")]].concat()),
        responses: None,
    }
}

/// The controllers where they answer the server's question who a client is: nothing but that.
pub fn callout(cluster: &ClusterId) -> Permissions {
    Permissions {
        publish: Rule::only(vec!["$SYS._INBOX.>".to_owned(), callout_probe(cluster)]),
        subscribe: Rule::only(vec![AUTH_REQUEST.to_owned(), format!("_WI.{cluster}.callout.>")]),
        responses: None,
    }
}

/// Where the server asks who a client is.
pub const AUTH_REQUEST: &str = "$SYS.REQ.USER.AUTH";

/// Where nobody listens: the user of the callout asks there to see that the server has let it in.
pub fn callout_probe(cluster: &ClusterId) -> String {
    format!("_WI.{cluster}.probe")
}

/// People who look.
pub fn reader(cluster: &ClusterId) -> Permissions {
    people(cluster, &["ctl.status", "ctl.explain"])
}

/// People who look, and may pause too.
pub fn operator(cluster: &ClusterId) -> Permissions {
    people(cluster, &["ctl.*"])
}

fn people(cluster: &ClusterId, control: &[&str]) -> Permissions {
    let mut publish = Vec::new();
    for bucket in Bucket::ALL {
        let stream = bucket.stream(cluster);
        publish.extend([
            format!("$JS.API.STREAM.INFO.{stream}"),
            format!("$JS.API.DIRECT.GET.{stream}"),
            format!("$JS.API.DIRECT.GET.{stream}.>"),
            format!("$JS.API.STREAM.MSG.GET.{stream}"),
            format!("$JS.API.CONSUMER.*.{stream}"),
            format!("$JS.API.CONSUMER.*.{stream}.>"),
        ]);
    }
    let further = ["$JS.API.INFO", "$JS.API.STREAM.NAMES", "$JS.API.STREAM.LIST", "$JS.ACK.>", "$JS.FC.>"];
    // `nats micro ls`, `info` and `stats` ask whoever offers a service.
    let services = ["$SRV.PING", "$SRV.PING.>", "$SRV.INFO", "$SRV.INFO.>", "$SRV.STATS", "$SRV.STATS.>"];
    publish.extend(further.into_iter().chain(services).map(str::to_owned));
    let asked = control.iter().copied().chain(["node.*.req.inventory", "node.*.req.explain"]);
    publish.extend(asked.map(|word| format!("warm.v1.{cluster}.{word}")));
    Permissions {
        publish: Rule::only(publish),
        subscribe: Rule::only([told(cluster), vec!["_INBOX.>".to_owned()]].concat()),
        responses: None,
    }
}

/// Everything that is said on core NATS and written to the buckets.
fn told(cluster: &ClusterId) -> Vec<String> {
    let buckets = Bucket::ALL.into_iter().map(|bucket| bucket.subject(cluster, ">"));
    std::iter::once(format!("warm.v1.{cluster}.>")).chain(buckets).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_is_granted_its_own_node_and_no_wildcard_over_nodes() {
        let cluster = ClusterId::parse("c").unwrap();
        let node = NodeName::parse("a.b").unwrap();
        let one = agent(&cluster, Agents::Of(&node));
        assert!(one.publish.allow.contains(&"$KV.warm-c-nodes.a_b.inv".to_owned()));
        let direct = "$JS.API.DIRECT.GET.KV_warm-c-assign.$KV.warm-c-assign.a_b";
        assert!(one.publish.allow.iter().any(|subject| subject == direct));
        // What is not of one node is of all: pools and intents.
        let of_all = ["warm.v1.c.delta.*", "warm.v1.c.beat.*", "$JS.API.DIRECT.GET.KV_warm-c-intents"];
        for subject in one.publish.allow.iter().chain(&one.subscribe.allow) {
            assert!(of_all.contains(&subject.as_str()) || subject.contains(".a_b"), "{subject}");
        }
        let all = agent(&cluster, Agents::All);
        let generic = |rule: &Rule| rule.allow.iter().map(|s| s.replace(".a_b", ".*")).collect::<Vec<_>>();
        assert_eq!(generic(&one.publish), all.publish.allow);
        assert_eq!(generic(&one.subscribe), all.subscribe.allow);
    }

    #[test]
    fn only_operators_may_pause() {
        let cluster = ClusterId::default();
        let may = |of: Permissions| of.publish.allow.iter().any(|subject| subject == "warm.v1.default.ctl.*");
        assert!(may(operator(&cluster)) && !may(reader(&cluster)));
    }
}
