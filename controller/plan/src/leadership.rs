//! Who writes: the term, the epoch, and whose buckets these are.
//!
//! Owns taking the term by compare-and-set of `_meta` while the Lease is held, and every reason not to write. Never
//! writes anything else. The Lease only says who tries: what fences the buckets is the term.

use fastrand::Rng;
use shared::backoff::Backoff;
use shared::machine::Moment;
use shared::message::Meta;
use shared::reason::Reason;
use shared::subject::IntentsKey;

use crate::bucket::{Held, IntentsBucket};
use crate::effect::Effect;
use crate::fact::{IntentsDoc, Newer, Stored};

/// Where this controller stands.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Standing {
    /// It does not hold the term; it tries when it may, which is never without the Lease.
    Idle,
    /// A compare-and-set of `_meta` is in flight.
    Taking {
        /// What it writes.
        meta: Meta,
        /// What had been taken in when it was issued.
        head: u64,
        /// How often the bucket had been read when it was issued.
        reads: u64,
    },
    /// It holds the term.
    Leading {
        /// What it wrote.
        meta: Meta,
        /// What had been taken in when it was issued: `prev` of the first delta of a pool.
        head: u64,
    },
    /// Another controller took over though this one holds the Lease: it writes nothing until the Lease was lost and
    /// regained.
    Superseded {
        /// What the other wrote.
        there: Meta,
        /// Whether the Lease was given up already, so that the two do not wait for each other.
        released: bool,
    },
    /// `_meta` is of a newer major: whoever wrote it leads in ways that this version does not know. It writes nothing as
    /// long as that is there.
    Newer {
        /// What is there.
        there: Newer,
        /// Whether the Lease was given up already, so that a newer version can take it.
        released: bool,
    },
    /// The buckets belong to another cluster: it writes nothing, ever.
    Foreign(Meta),
}

/// Leadership of one controller.
#[derive(Debug, Clone)]
pub(crate) struct Leadership {
    standing: Standing,
    lease: bool,
    candidate: String,
    epochs: u32,
    highest: u64,
    failures: u32,
    last: Option<Reason>,
    retry: Moment,
    kept: Option<Stored<IntentsKey, IntentsDoc>>,
}

impl Leadership {
    /// `candidate` is the id of the next epoch, if one is needed; later ones are derived from it.
    pub(crate) fn new(candidate: String) -> Self {
        let standing = Standing::Idle;
        let retry = Moment::default();
        Self { standing, lease: false, candidate, epochs: 0, highest: 0, failures: 0, last: None, retry, kept: None }
    }

    /// Where this controller stands.
    pub(crate) fn standing(&self) -> &Standing {
        &self.standing
    }

    /// Whether this replica holds the Lease.
    pub(crate) fn holds_lease(&self) -> bool {
        self.lease
    }

    /// Learns whether this replica holds the Lease; says whether that is news. Without it, it is no leader at once.
    pub(crate) fn lease(&mut self, holds: bool) -> bool {
        if self.lease == holds {
            return false;
        }
        self.lease = holds;
        if holds {
            (self.failures, self.last, self.retry) = (0, None, Moment::default());
        } else {
            match &mut self.standing {
                Standing::Leading { .. } | Standing::Superseded { .. } => self.standing = Standing::Idle,
                Standing::Newer { released, .. } => *released = false,
                Standing::Idle | Standing::Taking { .. } | Standing::Foreign(_) => {}
            }
        }
        true
    }

    /// What it wrote, while it holds the term.
    pub(crate) fn leads(&self) -> Option<&Meta> {
        if let Standing::Leading { meta, .. } = &self.standing { Some(meta) } else { None }
    }

    /// What had been taken in when the term was taken.
    pub(crate) fn head(&self) -> u64 {
        if let Standing::Leading { head, .. } = &self.standing { *head } else { 0 }
    }

    /// The highest term seen.
    pub(crate) fn term(&self) -> u64 {
        self.highest
    }

    /// Why the last attempt at the term failed.
    pub(crate) fn refused(&self) -> Option<Reason> {
        self.last
    }

    /// Judges what `_meta` says now.
    pub(crate) fn judge(&mut self, bucket: &IntentsBucket, cluster: &str) {
        let meta = bucket.meta();
        if self.is_newer(meta.newer()) {
            return;
        }
        let is_final = matches!(self.standing, Standing::Superseded { .. } | Standing::Foreign(_));
        self.highest = self.highest.max(bucket.highest_term());
        if let Some(there) = &meta.good {
            if is_final {
                return;
            }
            if there.cluster != cluster {
                self.standing = Standing::Foreign(there.clone());
                return;
            }
        }
        let Standing::Leading { meta: mine, .. } = &self.standing else {
            return;
        };
        match (&meta.good, meta.held) {
            (Some(there), _) if there.term > mine.term => {
                self.standing = Standing::Superseded { there: there.clone(), released: false };
            }
            (Some(there), Held::Value)
                if there == mine && mine.stream_created == bucket.created() && self.highest == mine.term => {}
            // Gone, damaged, rolled back, also to this very one, or of another stream: the term is taken again.
            _ => self.standing = Standing::Idle,
        }
    }

    /// Judges whether `_meta` is of a newer major; says whether there is nothing else to judge. What is in flight is
    /// answered first.
    fn is_newer(&mut self, newer: Option<&Newer>) -> bool {
        match (&mut self.standing, newer) {
            (Standing::Foreign(_) | Standing::Taking { .. }, _) => return false,
            (Standing::Newer { there, .. }, Some(newer)) => *there = newer.clone(),
            (standing, Some(newer)) => *standing = Standing::Newer { there: newer.clone(), released: false },
            (standing @ Standing::Newer { .. }, None) => *standing = Standing::Idle,
            (_, None) => {}
        }
        newer.is_some()
    }

    /// Tries for the term, if it is not held and may be tried for.
    pub(crate) fn take(
        &mut self,
        bucket: &IntentsBucket,
        cluster: &str,
        instance: &str,
        now: Moment,
    ) -> Option<Effect> {
        if !self.lease || self.standing != Standing::Idle || self.retry > now {
            return None;
        }
        let there = bucket.meta();
        let kept = there.good.as_ref().filter(|m| m.stream_created == bucket.created());
        let meta = Meta {
            epoch: kept.map_or_else(|| self.next_epoch(), |m| m.epoch.clone()),
            term: self.highest.saturating_add(1),
            cluster: cluster.to_owned(),
            stream_created: bucket.created().to_owned(),
            by: instance.to_owned(),
        };
        self.standing = Standing::Taking { meta: meta.clone(), head: bucket.head(), reads: bucket.reads() };
        Some(Effect::TakeTerm { meta, expected: there.seq })
    }

    /// Gives the Lease up, once, if another controller leads: whoever that is holds it or is to have it.
    pub(crate) fn release(&mut self) -> Option<Effect> {
        match &mut self.standing {
            Standing::Superseded { released, .. } | Standing::Newer { released, .. } if self.lease && !*released => {
                *released = true;
                Some(Effect::ReleaseLease)
            }
            _ => None,
        }
    }

    /// Keeps what a re-read found of `_meta` until the outcome of the attempt tells whether it is to be believed.
    pub(crate) fn keep(&mut self, stored: Stored<IntentsKey, IntentsDoc>) {
        self.kept = Some(stored);
    }

    /// What was kept.
    pub(crate) fn take_kept(&mut self) -> Option<Stored<IntentsKey, IntentsDoc>> {
        self.kept.take()
    }

    fn next_epoch(&self) -> String {
        match self.epochs {
            0 => self.candidate.clone(),
            more => format!("{}-{more}", self.candidate),
        }
    }

    /// Learns how the attempt ended; gives what was written, and how often the bucket had been read by then.
    pub(crate) fn taken(
        &mut self,
        result: Result<u64, Reason>,
        now: Moment,
        backoff: &Backoff,
        rng: &mut Rng,
    ) -> Option<(u64, Meta, u64)> {
        let Standing::Taking { meta, head, reads } = std::mem::replace(&mut self.standing, Standing::Idle) else {
            return None;
        };
        match result {
            Ok(seq) => {
                if meta.epoch == self.next_epoch() {
                    self.epochs = self.epochs.saturating_add(1);
                }
                self.highest = self.highest.max(meta.term);
                (self.failures, self.last) = (0, None);
                // An attempt that outlived the Lease wrote a term that nobody leads.
                if self.lease {
                    self.standing = Standing::Leading { meta: meta.clone(), head };
                }
                Some((seq, meta, reads))
            }
            Err(reason) => {
                self.failures = self.failures.saturating_add(1);
                self.last = Some(reason);
                self.retry = now + backoff.equal_jitter(self.failures, rng);
                None
            }
        }
    }

    /// When the next attempt is due.
    pub(crate) fn due(&self) -> Option<Moment> {
        (self.lease && self.standing == Standing::Idle).then_some(self.retry)
    }
}
