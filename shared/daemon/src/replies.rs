//! Where answers go.
//!
//! Owns what is needed to answer each request that has not been answered, under a number: a machine knows no subject.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// More unanswered requests than this are not kept: whoever asked first has stopped waiting.
const MOST: usize = 256;

/// The ways to answer.
#[derive(Debug)]
pub struct Replies<T>(Mutex<Kept<T>>);

#[derive(Debug)]
struct Kept<T> {
    next: u64,
    ways: BTreeMap<u64, T>,
}

impl<T> Default for Replies<T> {
    fn default() -> Self {
        Self(Mutex::new(Kept { next: 0, ways: BTreeMap::new() }))
    }
}

impl<T> Replies<T> {
    /// Keeps a way; gives its number.
    pub fn keep(&self, way: T) -> u64 {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let number = kept.next;
        kept.next += 1;
        kept.ways.insert(number, way);
        if kept.ways.len() > MOST {
            kept.ways.pop_first();
        }
        number
    }

    /// The way of a number, once.
    pub fn take(&self, number: u64) -> Option<T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).ways.remove(&number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_sent_once_and_old_ones_are_forgotten() {
        let replies = Replies::default();
        let first = replies.keep("a");
        assert_eq!(replies.take(first), Some("a"));
        assert_eq!(replies.take(first), None);
        let old = replies.keep("b");
        let new: Vec<u64> = (0..MOST).map(|_| replies.keep("c")).collect();
        assert_eq!(replies.take(old), None);
        assert_eq!(replies.take(new[0]), Some("c"));
    }
}
