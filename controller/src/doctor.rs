//! `warm-controller doctor`: whether an installation does its work, as one of its pods sees it.
//!
//! Owns the questions: does NATS answer, are the buckets there and as they must be, does a controller lead, is every agent
//! heard. Asks as a controller would, with its configuration and its credentials, and changes nothing. Used by `helm test`
//! and by people.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use daemon::bus::{Bus, Status};
use daemon::supervise::Tasks;
use serde_json::Value;
use shared::subject::{Bucket, ControlVerb, Subject, controller_inbox};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::bus::buckets::spec;
use crate::config::ControllerConfig;

/// Between two looks while something is not well yet.
const PAUSE: Duration = Duration::from_secs(1);
/// How many silent nodes are named.
const NAMED: usize = 10;

/// One question and its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at.
    pub what: &'static str,
    /// How it is.
    pub is: Health,
}

/// How something is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// Well.
    Well(String),
    /// It works, and somebody should look.
    Fair(String),
    /// It does not work.
    Ill(String),
}

/// Everything that was found, in the order of the questions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report(pub Vec<Finding>);

impl Report {
    /// Whether the installation works.
    pub fn works(&self) -> bool {
        !self.0.iter().any(|finding| matches!(finding.is, Health::Ill(_)))
    }

    fn is_well(&self) -> bool {
        self.0.iter().all(|finding| matches!(finding.is, Health::Well(_)))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, Finding { what, is }) in self.0.iter().enumerate() {
            let (word, text) = match is {
                Health::Well(text) => ("ok  ", text),
                Health::Fair(text) => ("look", text),
                Health::Ill(text) => ("FAIL", text),
            };
            let end = if at + 1 == self.0.len() { "" } else { "\n" };
            write!(f, "{word}  {what}: {text}{end}")?;
        }
        Ok(())
    }
}

/// Looks until everything is well, at most for `limit`; gives the last look.
pub async fn examine(config: &ControllerConfig, limit: Duration) -> Report {
    let (tasks, _) = Tasks::new();
    let inbox = controller_inbox(&config.cluster_id, &format!("doctor-{}", Uuid::new_v4().simple()));
    let (bus, status) = match Bus::connect(&config.nats, "warm-controller doctor", &inbox, &tasks).await {
        Ok(connected) => connected,
        Err(error) => return Report(vec![Finding { what: "NATS", is: Health::Ill(error.to_string()) }]),
    };
    let deadline = Instant::now() + limit;
    let report = loop {
        let report = look(config, &bus, &status).await;
        if report.is_well() || Instant::now() + PAUSE > deadline {
            break report;
        }
        sleep(PAUSE).await;
    };
    tasks.stop();
    report
}

async fn look(config: &ControllerConfig, bus: &Bus, status: &Status) -> Report {
    let connection = status.borrow().clone();
    if !connection.is_connected() {
        return Report(vec![Finding { what: "NATS", is: Health::Ill(connection.to_string()) }]);
    }
    let mut findings =
        vec![Finding { what: "NATS", is: Health::Well("answers, and takes the controller's login".to_owned()) }];
    for bucket in Bucket::ALL {
        let spec = spec(bucket, &config.cluster_id, &config.buckets);
        let is = match bus.ensure_bucket(&spec, false).await {
            Ok(info) => Health::Well(format!("{}, {} keys", spec.name, info.messages)),
            Err(error) => Health::Ill(format!("{}: {error}", error.reason())),
        };
        findings.push(Finding { what: "bucket", is });
    }
    let subject = Subject::Control(ControlVerb::Status).print(&config.cluster_id);
    match bus.request(&subject, &[], Bytes::new()).await {
        Err(error) => {
            let is = Health::Ill(format!("no controller answers on {subject}: {error}"));
            findings.push(Finding { what: "controller", is });
        }
        Ok(answer) => match serde_json::from_slice(&answer.payload) {
            Err(error) => {
                let is = Health::Ill(format!("what answers on {subject} says no JSON: {error}"));
                findings.push(Finding { what: "controller", is });
            }
            Ok(said) => {
                findings.push(Finding { what: "controller", is: controller(&said) });
                findings.push(Finding { what: "agents", is: agents(&said) });
            }
        },
    }
    Report(findings)
}

/// What a controller says of itself and of who leads.
fn controller(said: &Value) -> Health {
    let text = |at: &str| said.pointer(at).and_then(Value::as_str);
    let instance = text("/instance").unwrap_or("one without a name");
    match (said.get("ready"), text("/leadership/by")) {
        (Some(Value::Bool(true)), Some(leader)) if said.pointer("/paused/paused") == Some(&Value::Bool(true)) => {
            Health::Fair(format!("{instance} answers, {leader} leads, and somebody has paused everything"))
        }
        (Some(Value::Bool(true)), Some(leader)) => Health::Well(format!("{instance} answers, {leader} leads")),
        (Some(Value::String(why)), _) => Health::Ill(format!("{instance} is not ready: {why}")),
        _ => Health::Ill(format!("{instance} answers, and nobody has led yet")),
    }
}

/// What a controller has heard of agents.
fn agents(said: &Value) -> Health {
    let count = |word: &str| said.pointer(&format!("/nodes/{word}/count")).and_then(Value::as_u64).unwrap_or(0);
    let (ready, silent) = (count("ready"), count("unknown") + count("no-agent"));
    let names = ["unknown", "no-agent"].into_iter().flat_map(|word| {
        let names = said.pointer(&format!("/nodes/{word}/names")).and_then(Value::as_array);
        names.into_iter().flatten().filter_map(Value::as_str)
    });
    let some: Vec<&str> = names.take(NAMED).collect();
    match (ready, silent) {
        (0, 0) => Health::Ill("the controller knows of no node".to_owned()),
        (0, _) => Health::Ill(format!("of {silent} nodes none has an agent that is heard: {}", some.join(", "))),
        (_, 0) => Health::Well(format!("heard on all {ready} nodes")),
        _ => Health::Fair(format!("heard on {ready} of {} nodes; not on {}", ready + silent, some.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    #[rstest]
    #[case(json!({ "ready": { "count": 3 } }), "ok    agents: heard on all 3 nodes")]
    #[case(json!({ "ready": { "count": 2 }, "unknown": { "count": 1, "names": ["c"] } }), "look  agents: heard on 2 of 3 nodes; not on c")]
    #[case(json!({ "no-agent": { "count": 1, "names": ["a"] } }), "FAIL  agents: of 1 nodes none has an agent that is heard: a")]
    #[case(json!({}), "FAIL  agents: the controller knows of no node")]
    fn silent_nodes_are_named_and_only_a_cluster_without_any_agent_fails(#[case] nodes: Value, #[case] expected: &str) {
        let report = Report(vec![Finding { what: "agents", is: agents(&json!({ "nodes": nodes })) }]);
        assert_eq!(report.to_string(), expected);
        assert_eq!(report.works(), !expected.starts_with("FAIL"));
    }

    #[rstest]
    #[case(json!({ "ready": true, "instance": "a", "leadership": { "by": "b" } }), Health::Well("a answers, b leads".to_owned()))]
    #[case(json!({ "ready": "waiting", "instance": "a", "leadership": { "by": "b" } }), Health::Ill("a is not ready: waiting".to_owned()))]
    #[case(json!({ "ready": true, "instance": "a", "leadership": { "by": null } }), Health::Ill("a answers, and nobody has led yet".to_owned()))]
    fn a_controller_works_if_it_is_ready_and_somebody_leads(#[case] said: Value, #[case] expected: Health) {
        assert_eq!(controller(&said), expected);
    }
}
