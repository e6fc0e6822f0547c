//! The state file: it lies on a host path, where a crash, a full disk or a person may have left anything.
//!
//! Owns what must hold of every content: it is read or refused with a short reason, what is read is written back the same,
//! and the machine that starts from it runs.

use std::time::Duration;

use agent::state_file::{Decoded, decode, encode};
use jiff::Timestamp;
use node_plan::{Effect, Fact, Identity, NodeState, Persisted, Settings};
use shared::machine::{Machine as _, Moment, Now};
use shared::name::NodeName;

/// The content of the file.
pub fn check(data: &[u8]) {
    match decode(data) {
        Ok(Decoded { persisted, lost }) => {
            for entry in lost {
                super::is_short_line(&entry);
            }
            assert_eq!(again(&persisted).as_ref(), Some(&persisted), "what is read is written back the same");
            runs(persisted);
        }
        Err(error) => super::is_short_line(&error.to_string()),
    }
}

/// Written and read, whole.
fn again(persisted: &Persisted) -> Option<Persisted> {
    let decoded = decode(&encode(persisted).ok()?).ok()?;
    decoded.lost.is_empty().then_some(decoded.persisted)
}

/// From this state the machine starts, pulls no more than it may, and writes a state that can be read.
fn runs(persisted: Persisted) {
    let Ok(node) = NodeName::parse("a") else { return };
    let identity = Identity { node, inst: "run".into(), boot: "boot".into(), agent_version: "1".into() };
    let settings = Settings::default();
    let most = settings.max_in_flight;
    let mut now = Now { mono: Moment(1_000), wall: Timestamp::UNIX_EPOCH };
    let mut machine = NodeState::new(identity, settings, Some(persisted), 1, now);
    let mut pulls = 0;
    for fact in [Fact::Images(Ok(Vec::new())), Fact::Connected, Fact::Meta(Ok(None)), Fact::Disconnected] {
        machine.apply(fact, now);
        for effect in machine.step(now) {
            match effect {
                Effect::Pull { .. } => pulls += 1,
                Effect::Persist(state) => {
                    assert_eq!(again(&state), Some(*state), "what is saved is loaded");
                }
                _ => {}
            }
        }
        assert!(machine.step(now).is_empty(), "a second step at the same time has nothing to do");
        now.mono = now.mono + Duration::from_secs(1);
    }
    assert!(pulls <= most, "{pulls} pulls in flight");
}
