//! Both machines under a sequence of messages that are of the right form and may say anything.
//!
//! Owns the script's form. What the world around a machine answers, and what must hold, is of `node` and `cluster`. Never
//! invents what honest peers send in order: that is the simulation's.

mod cluster;
mod node;

use std::time::Duration;

/// One line between two steps of a script.
const BETWEEN: &[u8] = b"\n====\n";
/// Longer scripts find nothing that shorter ones do not.
const MOST_STEPS: usize = 64;
/// A clock runs for years at most.
const LONGEST_WAIT: Duration = Duration::from_hours(30 * 24);

/// One step.
enum Step<'a> {
    /// A message on core NATS, or a value of a bucket if the subject is a bucket's.
    Message {
        place: &'a str,
        headers: Vec<(&'a str, &'a str)>,
        body: &'a [u8],
    },
    Connect,
    Disconnect,
    /// The runtime's images from now on: reference, and digest if there is one.
    Images(Vec<(&'a str, Option<&'a str>)>),
    /// What the runtime says to the next pulls; without text they succeed.
    PullsFail(&'a str),
    Pass(Duration),
}

/// A script for both machines.
pub fn check(data: &[u8]) {
    let steps: Vec<Step<'_>> = pieces(data).into_iter().take(MOST_STEPS).filter_map(step).collect();
    let mut node = node::Play::new();
    let mut cluster = cluster::Play::new();
    for step in &steps {
        node.take(step);
        cluster.take(step);
    }
    node.end();
    cluster.end();
}

fn pieces(data: &[u8]) -> Vec<&[u8]> {
    let mut pieces = Vec::new();
    let mut rest = data;
    while let Some(at) = rest.windows(BETWEEN.len()).position(|window| window == BETWEEN) {
        let (piece, after) = rest.split_at(at);
        pieces.push(piece);
        rest = after.get(BETWEEN.len()..).unwrap_or_default();
    }
    pieces.push(rest);
    pieces
}

/// `connect`, `disconnect`, `images` and a line each, `pulls-fail` and a line, `pass` and milliseconds, or a message as
/// [`super::message`] has it.
fn step(piece: &[u8]) -> Option<Step<'_>> {
    let (head, body) = super::message::split(piece);
    let text = std::str::from_utf8(if head.is_empty() { body } else { head }).ok()?;
    let mut lines = text.lines();
    let first = lines.next()?;
    Some(match first.split_once(' ').unwrap_or((first, "")) {
        ("connect", _) => Step::Connect,
        ("disconnect", _) => Step::Disconnect,
        ("images", _) => {
            Step::Images(lines.map(|line| line.split_once(' ').map_or((line, None), |(i, d)| (i, Some(d)))).collect())
        }
        ("pulls-fail", text) => Step::PullsFail(text),
        ("pass", ms) => Step::Pass(Duration::from_millis(ms.parse().ok()?).min(LONGEST_WAIT)),
        _ if head.is_empty() => return None,
        _ => Step::Message { place: first, headers: lines.filter_map(|line| line.split_once(": ")).collect(), body },
    })
}

fn header<'a>(headers: &'a [(&'a str, &'a str)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(key, _)| *key == name).map(|(_, value)| *value)
}
