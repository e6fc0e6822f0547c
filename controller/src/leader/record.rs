//! The Lease as last seen, and what follows from it.
//!
//! Owns the rules of client-go's leader election: a holder has lapsed when its record has not changed for the duration it
//! gives, by our own monotonic clock. Timestamps of others are written for people and never compared.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use tokio::time::Instant;

/// What a released Lease says: client-go writes the same.
const RELEASED: Duration = Duration::from_secs(1);

/// Who may hold it, and how long without renewing.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    /// Name of the Lease.
    pub(super) lease: String,
    /// What is written as the holder.
    pub(super) identity: String,
    /// How long the others wait.
    pub(super) duration: Duration,
}

/// The Lease as last seen.
#[derive(Debug, Clone)]
pub(super) struct Record {
    lease: Option<Lease>,
    since: Instant,
}

impl Record {
    /// Nothing seen yet.
    pub(super) fn unseen() -> Self {
        Self { lease: None, since: Instant::now() }
    }

    /// Takes what is there; a record that differs from the last one is as fresh as can be known.
    pub(super) fn see(&mut self, lease: Option<Lease>) {
        let differs = self.spec() != lease.as_ref().and_then(|l| l.spec.as_ref());
        self.lease = lease;
        if differs {
            self.since = Instant::now();
        }
    }

    /// Takes what we wrote ourselves.
    pub(super) fn wrote(&mut self, lease: Lease) {
        self.lease = Some(lease);
        self.since = Instant::now();
    }

    /// Whether there is such an object.
    pub(super) fn exists(&self) -> bool {
        self.lease.is_some()
    }

    /// Who holds it; nobody if it was released.
    pub(super) fn holder(&self) -> Option<&str> {
        self.spec()?.holder_identity.as_deref().filter(|holder| !holder.is_empty())
    }

    /// From when on `candidate` may take it, if nothing changes: it is its own, nobody's, or has lapsed by then.
    pub(super) fn free_at(&self, candidate: &Candidate) -> Instant {
        match self.holder() {
            Some(holder) if holder != candidate.identity => self.since + self.duration(candidate),
            _ => self.since,
        }
    }

    fn spec(&self) -> Option<&LeaseSpec> {
        self.lease.as_ref()?.spec.as_ref()
    }

    /// The holder says how long it may be waited for: it may be configured otherwise.
    fn duration(&self, candidate: &Candidate) -> Duration {
        let told = self.spec().and_then(|spec| spec.lease_duration_seconds).and_then(|s| u64::try_from(s).ok());
        told.map_or(candidate.duration, Duration::from_secs)
    }

    /// The object with which `candidate` takes or renews it. Its resource version makes the write a compare-and-set.
    pub(super) fn held_by(&self, candidate: &Candidate, now: Timestamp) -> Lease {
        let old = self.spec().cloned().unwrap_or_default();
        let is_renewal = old.holder_identity.as_deref() == Some(&candidate.identity);
        let transitions = old.lease_transitions.unwrap_or_default();
        let spec = LeaseSpec {
            holder_identity: Some(candidate.identity.clone()),
            lease_duration_seconds: Some(seconds(candidate.duration)),
            acquire_time: if is_renewal { old.acquire_time } else { Some(MicroTime(now)) },
            renew_time: Some(MicroTime(now)),
            lease_transitions: Some(if is_renewal || !self.exists() {
                transitions
            } else {
                transitions.saturating_add(1)
            }),
            ..old
        };
        Lease { metadata: self.metadata(candidate), spec: Some(spec) }
    }

    /// The object with which it is given up: nobody's, so that nobody waits.
    pub(super) fn released(&self, candidate: &Candidate, now: Timestamp) -> Lease {
        let spec = LeaseSpec {
            holder_identity: Some(String::new()),
            lease_duration_seconds: Some(seconds(RELEASED)),
            acquire_time: Some(MicroTime(now)),
            renew_time: Some(MicroTime(now)),
            ..self.spec().cloned().unwrap_or_default()
        };
        Lease { metadata: self.metadata(candidate), spec: Some(spec) }
    }

    fn metadata(&self, candidate: &Candidate) -> ObjectMeta {
        let there = self.lease.as_ref().map(|lease| lease.metadata.clone());
        there.unwrap_or_else(|| ObjectMeta { name: Some(candidate.lease.clone()), ..ObjectMeta::default() })
    }
}

fn seconds(duration: Duration) -> i32 {
    i32::try_from(duration.as_secs()).unwrap_or(i32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(identity: &str) -> Candidate {
        Candidate { lease: "l".to_owned(), identity: identity.to_owned(), duration: Duration::from_secs(15) }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_holder_lapses_by_our_clock_whatever_its_own_says() {
        let (a, b) = (candidate("a"), candidate("b"));
        let mut seen = Record::unseen();
        assert_eq!(seen.free_at(&b), Instant::now());
        // Its clock is hours ahead, then years behind.
        for wall in [9_000_000_000, 0] {
            seen.see(Some(seen.held_by(&a, at(wall))));
            assert_eq!(seen.free_at(&b), Instant::now() + Duration::from_secs(15));
            tokio::time::advance(Duration::from_secs(10)).await;
            // Seen again without a change it is as old as it was.
            seen.see(seen.lease.clone());
            assert_eq!(seen.free_at(&b), Instant::now() + Duration::from_secs(5));
        }
        assert!(seen.free_at(&a) <= Instant::now());
    }

    #[tokio::test(start_paused = true)]
    async fn the_duration_waited_is_that_of_the_holder() {
        let mut seen = Record::unseen();
        let patient = Candidate { duration: Duration::from_mins(1), ..candidate("a") };
        seen.see(Some(seen.held_by(&patient, at(0))));
        assert_eq!(seen.free_at(&candidate("b")), Instant::now() + Duration::from_mins(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_released_lease_is_free_at_once_and_transitions_count_holders() {
        let (a, b) = (candidate("a"), candidate("b"));
        let mut seen = Record::unseen();
        let mut transitions = Vec::new();
        for (holder, wall) in [(&a, 1), (&a, 2), (&b, 3)] {
            seen.wrote(seen.held_by(holder, at(wall)));
            let spec = seen.spec().unwrap();
            transitions.push((spec.lease_transitions, spec.acquire_time.clone(), spec.renew_time.clone()));
        }
        let time = |s| Some(MicroTime(at(s)));
        assert_eq!(
            transitions,
            [(Some(0), time(1), time(1)), (Some(0), time(1), time(2)), (Some(1), time(3), time(3))]
        );
        seen.see(Some(seen.released(&b, at(4))));
        assert_eq!((seen.holder(), seen.free_at(&a)), (None, Instant::now()));
        assert_eq!(seen.spec().unwrap().lease_transitions, Some(1));
        seen.wrote(seen.held_by(&a, at(5)));
        assert_eq!(seen.spec().unwrap().lease_transitions, Some(2));
    }

    #[tokio::test(start_paused = true)]
    async fn what_others_keep_on_the_object_stays() {
        let mut seen = Record::unseen();
        let mut lease = seen.held_by(&candidate("a"), at(0));
        lease.metadata.labels = Some([("team".to_owned(), "x".to_owned())].into());
        lease.metadata.resource_version = Some("7".to_owned());
        seen.see(Some(lease.clone()));
        assert_eq!(seen.held_by(&candidate("b"), at(1)).metadata, lease.metadata);
    }
}
