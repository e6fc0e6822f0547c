//! Facts and effects of both machines as one readable line.
//!
//! Owns the words of `cargo xtask replay` and of the simulation's traces. Never decides and never compares: what is left
//! out here still counts there.

mod agent;
mod controller;

use std::fmt::Display;

use serde::Serialize;
use shared::machine::Kind;
use shared::message::Intent;
use shared::name::PoolId;
use shared::reason::Reason;

/// So many elements of a list are named.
const NAMED: usize = 4;
/// So many characters of what has no words of its own are shown.
const SHOWN: usize = 160;

/// A fact or an effect in words, on one line.
pub trait Describe {
    /// Begins with its kind or with what it is about; no line break, a few names at most.
    fn describe(&self) -> String;
}

/// `a, b, c and 3 more`.
fn list<T: Display>(items: impl IntoIterator<Item = T>) -> String {
    let all: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    let named = all.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
    match all.len() {
        0 => "none".to_owned(),
        count if count > NAMED => format!("{named} and {} more", count - NAMED),
        _ => named,
    }
}

/// `done`, or why not.
fn outcome<T>(result: &Result<T, Reason>) -> String {
    match result {
        Ok(_) => "done".to_owned(),
        Err(reason) => format!("failed: {reason}"),
    }
}

fn intent(pool: &PoolId, intent: &Intent) -> String {
    let digest = intent.digest.as_ref().map(|digest| format!(" @ {digest}")).unwrap_or_default();
    format!("{} for pool {pool}{digest}", intent.image)
}

/// What has no words of its own: its kind and the beginning of its JSON.
fn plain<T: Kind + Serialize>(what: &T) -> String {
    let json = serde_json::to_string(what).unwrap_or_default();
    let shown: String = json.chars().take(SHOWN).collect();
    let more = if shown.len() < json.len() { "…" } else { "" };
    format!("{} {shown}{more}", what.kind())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_list_names_a_few_and_counts_the_rest() {
        assert_eq!(list(1..=2), "1, 2");
        assert_eq!(list(1..=6), "1, 2, 3, 4 and 2 more");
        assert_eq!(list(Vec::<u8>::new()), "none");
    }

    #[test]
    fn what_has_no_words_is_its_kind_and_clipped_json() {
        let fact = cluster_plan::Fact::Refused { kind: "event", reason: Reason::Forged };
        assert_eq!(plain(&fact), r#"refused {"refused":{"kind":"event","reason":"forged"}}"#);
        let images = node_plan::Fact::Request {
            verb: shared::subject::RequestVerb::Explain,
            body: "x".repeat(SHOWN),
            reply: None,
        };
        assert!(plain(&images).ends_with('…'));
    }
}
