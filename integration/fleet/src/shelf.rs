//! The intents that members know, each held once.
//!
//! Owns the sharing alone: what a member has decoded is replaced by the same that another has.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use node_plan::Fact;
use node_plan::fact::Stored;
use shared::message::{DeltaChange, Intent};
use shared::name::ImageKey;

/// The newest of each.
#[derive(Debug, Default)]
pub struct Shelf(Mutex<BTreeMap<ImageKey, Arc<Intent>>>);

impl Shelf {
    /// The same fact, of shared intents.
    pub fn share(&self, mut fact: Fact) -> Fact {
        match &mut fact {
            Fact::PoolRead { result: Ok(content), .. } => {
                let intents = content.entries.iter_mut().filter_map(|entry| match &mut entry.value {
                    Some(Stored::Intent(intent)) => Some(intent),
                    _ => None,
                });
                self.replace(intents);
            }
            Fact::Delta(delta) => {
                let intents = delta.entries.iter_mut().flatten().filter_map(|entry| match &mut entry.change {
                    DeltaChange::Put(intent) => Some(intent),
                    DeltaChange::Del => None,
                });
                self.replace(intents);
            }
            _ => {}
        }
        fact
    }

    fn replace<'a>(&self, intents: impl Iterator<Item = &'a mut Arc<Intent>>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for intent in intents {
            match known.get(&intent.id) {
                Some(same) if **same == **intent => *intent = Arc::clone(same),
                _ => {
                    known.insert(intent.id.clone(), Arc::clone(intent));
                }
            }
        }
    }
}
