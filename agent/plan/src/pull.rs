//! Pulls: what is next, how many at once, when again.
//!
//! Owns the queue's order, the pulls in flight, deadlines and backoff. Never pulls.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use fastrand::Rng;
use shared::backoff::{Backoff, random_up_to};
use shared::machine::{Moment, Now};
use shared::name::ImageKey;
use shared::reason::Reason;
use shared::state::ImageState;

use crate::disk::footprint;
use crate::effect::Effect;
use crate::fact::PullFailure;
use crate::image::{Attempt, Climate, Due, Image, Trouble};
use crate::timing::Timing;

/// The slowest pull that is given its time: bytes a second.
const SLOWEST: u64 = 1024 * 1024;

/// A pull in flight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Flight {
    /// The canonical reference.
    pub(crate) image: String,
    pub(crate) since: Moment,
    /// Its size, if known: it takes this much of the room below the mark.
    pub(crate) bytes: u64,
    /// Nobody wants it any more; it still counts until it ended.
    pub(crate) is_cancelled: bool,
    /// What is wanted changed: a failure says nothing.
    pub(crate) is_outdated: bool,
    /// The image was there when it began.
    pub(crate) is_refresh: bool,
}

/// The pulls in flight.
pub(crate) type Flights = BTreeMap<ImageKey, Flight>;

/// What may start now, the first first: what is missing before what is there and refreshed, then priority, then the smaller
/// (unknown sizes last), then the key.
pub(crate) fn queue<'a>(
    images: &'a BTreeMap<ImageKey, Image>,
    flights: &Flights,
    climate: &Climate,
    now: Moment,
) -> Vec<(&'a ImageKey, &'a Image)> {
    let may_start = |image: &Image| image.may_pull(climate, now) || image.may_refresh(climate, now);
    let mut queue: Vec<_> =
        images.iter().filter(|(id, image)| !flights.contains_key(*id) && may_start(image)).collect();
    queue.sort_by_key(|(id, image)| {
        (image.is_present(), Reverse(image.want.priority), image.want.bytes.unwrap_or(u64::MAX), *id)
    });
    queue
}

/// Starts what may start, within the limit.
pub(crate) fn start(
    images: &BTreeMap<ImageKey, Image>,
    flights: &mut Flights,
    climate: &Climate,
    limit: usize,
    timing: &Timing,
    now: Moment,
) -> Vec<Effect> {
    let free = limit.saturating_sub(flights.len());
    if free == 0 {
        return Vec::new();
    }
    let taken: u64 = flights.values().fold(0, |sum, flight| sum.saturating_add(flight.bytes));
    let mut climate = Climate { room: climate.room.map(|room| room.saturating_sub(taken)), ..*climate };
    let mut effects = Vec::new();
    for (id, image) in queue(images, flights, &climate, now) {
        let bytes = footprint(image.want.bytes.unwrap_or(0));
        if effects.len() == free || climate.room.is_some_and(|room| bytes > room) {
            continue;
        }
        climate.room = climate.room.map(|room| room.saturating_sub(bytes));
        let deadline = deadline(timing, image.want.bytes);
        let is_refresh = image.is_present();
        effects.push(Effect::Pull { id: id.clone(), image: image.want.image.clone(), deadline, is_refresh });
        let flight = Flight {
            image: image.want.image.clone(),
            since: now,
            bytes,
            is_cancelled: false,
            is_outdated: false,
            is_refresh,
        };
        flights.insert(id.clone(), flight);
    }
    effects
}

/// How long a pull may take: longer for what is known to be big.
pub(crate) fn deadline(timing: &Timing, bytes: Option<u64>) -> Duration {
    timing.pull_deadline.max(Duration::from_secs(bytes.unwrap_or(0) / SLOWEST))
}

fn backoff(timing: &Timing) -> Backoff {
    Backoff { base: timing.pull_backoff, ceiling: timing.pull_backoff_max }
}

/// Whether another attempt is pointless until somebody changes something.
pub(crate) fn is_refusal(reason: Reason) -> bool {
    matches!(reason, Reason::Unauthorized | Reason::Policy | Reason::ShortName | Reason::NoPlatform | Reason::Identity)
}

/// How long the next attempt waits after so many that failed in a row.
pub(crate) fn wait_after(
    tries: u32,
    failure: &PullFailure,
    timing: &Timing,
    final_after: u32,
    rng: &mut Rng,
) -> Duration {
    let wait = if is_refusal(failure.reason) || tries >= final_after {
        timing.pull_final + random_up_to(timing.pull_final / 10, rng)
    } else {
        backoff(timing).equal_jitter(tries, rng)
    };
    wait.max(failure.retry_after.unwrap_or_default())
}

/// Writes a failed attempt into the image's record.
pub(crate) fn fail(
    image: &mut Image,
    failure: &PullFailure,
    timing: &Timing,
    final_after: u32,
    now: Now,
    rng: &mut Rng,
) {
    if failure.reason == Reason::RuntimeUnavailable {
        // Not the image's fault: no try. The first time it is enough that a list succeeds.
        image.unanswered = image.unanswered.saturating_add(1);
        let again = image.unanswered - 1;
        let next = (again > 0).then(|| Due::after(now, backoff(timing).equal_jitter(again, rng)));
        image.trouble = Some(Trouble { st: ImageState::Deferred, why: failure.reason, next });
        return;
    }
    image.tries = image.tries.saturating_add(1);
    image.attempt = Some(Attempt { took: failure.took, number: image.tries });
    let wait = wait_after(image.tries, failure, timing, final_after, rng);
    let st = if is_refusal(failure.reason) { ImageState::Refused } else { ImageState::Failed };
    image.trouble = Some(Trouble { st, why: failure.reason, next: Some(Due::after(now, wait)) });
}

/// After an eviction the first pull starts at once, repeated ones back off: the disk is tight.
pub(crate) fn hold_off(timing: &Timing, evictions: u32, now: Now, rng: &mut Rng) -> Option<Due> {
    (evictions > 1).then(|| Due::after(now, backoff(timing).equal_jitter(evictions - 1, rng)))
}
