//! The assign bucket as facts.

use cluster_plan::Fact;
use cluster_plan::fact::Stored;
use shared::message::{Assignment, Message as _};
use shared::name::NodeName;
use shared::subject::{self, Bucket};

use super::feed::{Feed, Undecodable};

/// `<n>`.
#[derive(Debug)]
pub struct Assignments;

impl Feed for Assignments {
    const BUCKET: Bucket = Bucket::Assign;
    const KIND: &'static str = Assignment::KIND;
    type Key = NodeName;
    type Doc = Assignment;

    fn key(key: &str) -> Option<NodeName> {
        subject::parse_assignment_key(key)
    }

    fn decode(key: &NodeName, body: &[u8]) -> Result<Assignment, Undecodable> {
        let assignment = Assignment::decode(body)?;
        if assignment.node == *key {
            Ok(assignment)
        } else {
            Err(Undecodable::Foreign(format!("node {}", assignment.node)))
        }
    }

    fn read(_created: String, _head: u64, entries: Vec<Stored<NodeName, Assignment>>) -> Fact {
        Fact::Assignments(entries)
    }

    fn changed(entry: Stored<NodeName, Assignment>) -> Fact {
        Fact::AssignmentChanged(entry)
    }
}
