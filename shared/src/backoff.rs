//! Exponential backoff with jitter, as arithmetic.
//!
//! Owns how long to wait before attempt n. Never waits.

use std::time::Duration;

use fastrand::Rng;

/// Doubles from `base` up to `ceiling`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// Wait after the first failure, before jitter.
    pub base: Duration,
    /// No wait is longer than this.
    pub ceiling: Duration,
}

impl Backoff {
    /// The longest wait after `failures` failures in a row (0 counts as 1), without jitter.
    pub fn limit(&self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        self.base.saturating_mul(1_u32 << doublings).min(self.ceiling)
    }

    /// Equal jitter: between half the limit and the limit, so that a fleet spreads and nobody retries at once.
    pub fn equal_jitter(&self, failures: u32, rng: &mut Rng) -> Duration {
        let limit = self.limit(failures);
        let half = limit / 2;
        half + random_up_to(limit.saturating_sub(half), rng)
    }

    /// Full jitter: between zero and the limit. For requests to a shared server after it came back.
    pub fn full_jitter(&self, failures: u32, rng: &mut Rng) -> Duration {
        random_up_to(self.limit(failures), rng)
    }
}

/// Uniform in `0..=limit`, in whole milliseconds.
pub fn random_up_to(limit: Duration, rng: &mut Rng) -> Duration {
    Duration::from_millis(rng.u64(0..=u64::try_from(limit.as_millis()).unwrap_or(u64::MAX)))
}

/// `value` ± `percent` %, uniform.
pub fn vary(value: Duration, percent: u32, rng: &mut Rng) -> Duration {
    let span = value * percent / 100;
    value.saturating_sub(span) + random_up_to(span * 2, rng)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff { base: Duration::from_secs(1), ceiling: Duration::from_mins(10) };

    #[test]
    fn doubles_to_the_ceiling_and_never_overflows() {
        assert_eq!(BACKOFF.limit(0), Duration::from_secs(1));
        assert_eq!(BACKOFF.limit(1), Duration::from_secs(1));
        assert_eq!(BACKOFF.limit(4), Duration::from_secs(8));
        assert_eq!(BACKOFF.limit(u32::MAX), Duration::from_mins(10));
    }

    #[test]
    fn jitter_stays_in_its_band() {
        let mut rng = Rng::with_seed(7);
        for failures in 0..40 {
            let limit = BACKOFF.limit(failures);
            let wait = BACKOFF.equal_jitter(failures, &mut rng);
            assert!(wait >= limit / 2 && wait <= limit, "{wait:?} outside {limit:?}");
            assert!(BACKOFF.full_jitter(failures, &mut rng) <= limit);
        }
    }

    #[test]
    fn vary_stays_within_the_percentage() {
        let mut rng = Rng::with_seed(1);
        for _ in 0..1_000 {
            let value = vary(Duration::from_secs(30), 20, &mut rng);
            assert!((Duration::from_secs(24)..=Duration::from_secs(36)).contains(&value), "{value:?}");
        }
    }
}
