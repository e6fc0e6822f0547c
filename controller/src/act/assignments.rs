//! Writing assignments: a pipelined batch, then a copy of each acknowledged one to its agent.

use bytes::Bytes;
use cluster_plan::Fact;
use cluster_plan::effect::AssignmentWrite;
use shared::message::{Message as _, SCHEMA, header};
use shared::reason::Reason;
use shared::subject::{Bucket, Subject, assignment_key};

use super::Peers;
use super::outcome::{NotDone, batch_done, flat, said};
use super::puts::{Content, Put, write_all};
use super::reread::reread;
use crate::bus::Assignments;
use crate::leader::tenure::Tenure;

/// Writes all and sends the copies with `epoch` and `term` in their headers.
pub(super) async fn write(
    peers: Peers,
    tenure: Tenure,
    kind: &'static str,
    epoch: String,
    term: u64,
    writes: Vec<AssignmentWrite>,
) {
    let puts = writes.iter().map(|write| put(&peers, write)).collect();
    let written = write_all(&peers.bus, &tenure, puts).await;
    let headers = [(header::SCHEMA, SCHEMA.to_string()), (header::EPOCH, epoch), (header::TERM, term.to_string())];
    for (write, result) in writes.iter().zip(&written) {
        if let (Some(assignment), Ok(_)) = (&write.assignment, result) {
            let subject = Subject::Assign(write.node.clone()).print(&peers.cluster);
            // One that is lost is read when the agent next looks.
            let copy = peers.bus.publish(subject, &headers, Bytes::from(assignment.encode()));
            if let Err(error) = flat(tenure.guard(copy).await) {
                said("assign-copy", &error);
            }
        }
    }
    batch_done(kind, written.iter().filter_map(|result| result.as_ref().err()));
    tell_conflicts(&peers, &writes, &written).await;
    let results = writes.into_iter().zip(written).map(|(write, result)| {
        let result: Result<u64, Reason> = result.map_err(|error| said(kind, &error));
        (write.node, result)
    });
    let results = results.collect();
    peers.inbox.send(Fact::AssignmentsWritten(results)).await;
}

fn put(peers: &Peers, write: &AssignmentWrite) -> Put {
    Put {
        subject: Bucket::Assign.subject(&peers.cluster, &assignment_key(&write.node)),
        expected: write.expected,
        content: match &write.assignment {
            Some(assignment) => Content::Value(assignment.encode().into()),
            None => Content::Purge(peers.marker_ttl),
        },
    }
}

async fn tell_conflicts(peers: &Peers, writes: &[AssignmentWrite], written: &[Result<u64, NotDone>]) {
    for (write, result) in writes.iter().zip(written) {
        if result.as_ref().is_err_and(NotDone::is_conflict) {
            let key = assignment_key(&write.node);
            if let Some(there) = reread::<Assignments>(&peers.bus, &peers.cluster, write.node.clone(), &key).await {
                peers.inbox.send(Fact::AssignmentChanged(there)).await;
            }
        }
    }
}
