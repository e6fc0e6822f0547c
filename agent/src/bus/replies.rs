//! Where answers go.
//!
//! Owns the reply subjects of requests that have not been answered, each under a number: the machine knows no subject.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// More unanswered requests than this are not kept: whoever asked first has stopped waiting.
const MOST: usize = 256;

/// The reply subjects.
#[derive(Debug, Default)]
pub struct Replies(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    next: u64,
    subjects: BTreeMap<u64, String>,
}

impl Replies {
    /// Keeps a subject; gives its number.
    pub fn keep(&self, subject: &str) -> u64 {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let number = kept.next;
        kept.next += 1;
        kept.subjects.insert(number, subject.to_owned());
        if kept.subjects.len() > MOST {
            kept.subjects.pop_first();
        }
        number
    }

    /// The subject of a number, once.
    pub fn take(&self, number: u64) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).subjects.remove(&number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_sent_once_and_old_ones_are_forgotten() {
        let replies = Replies::default();
        let first = replies.keep("a");
        assert_eq!(replies.take(first), Some("a".to_owned()));
        assert_eq!(replies.take(first), None);
        let old = replies.keep("b");
        let new: Vec<u64> = (0..MOST).map(|n| replies.keep(&n.to_string())).collect();
        assert_eq!(replies.take(old), None);
        assert_eq!(replies.take(new[0]), Some("0".to_owned()));
    }
}
