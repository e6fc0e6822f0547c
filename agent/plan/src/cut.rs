//! What of an inventory fits into one message.
//!
//! Owns which of its forms is sent, and what is left out when none fits: a message that is too large is stored by nobody,
//! and a node that cannot report would prove nothing at all. What is left out is not spoken of: it stays as it was last
//! proven, by events for the most part.

use std::collections::BTreeMap;

use shared::image::Digest;
use shared::message::{Content, Exception};
use shared::name::{ImageKey, PoolId};
use shared::reason::Reason;
use shared::state::ImageState;
use shared::subject::Bucket;

use crate::inventory::Evidence;

/// So many exceptions are always named with their reasons, though the list of what is warm were shorter.
const ALWAYS_NAMED: usize = 64;

/// Bytes for headers and for what an inventory says beside its lists, pools apart.
const ENVELOPE: usize = 8 * 1024;

/// Bytes of a pool beside its id: head, count and digest at their longest.
const POOL: usize = 110;

/// Bytes of a listed image: its key, quotes, a comma.
const LISTED: usize = 29;

/// Bytes of an image's digest beside the digest: the key, quotes, colon, comma.
const DIGEST: usize = 32;

/// Bytes of an exception beside its reason and its digest: times and numbers at their longest, so that a clock never moves
/// what fits.
const EXCEPTION: usize = 240;

/// An image that is warm.
#[derive(Debug, Clone)]
pub(crate) struct Warm {
    /// Its key.
    pub(crate) id: ImageKey,
    /// How much it is wanted.
    pub(crate) priority: u8,
    /// What is there, if the intent says none or another.
    pub(crate) digest: Option<Digest>,
}

impl Warm {
    fn digest_bytes(&self) -> usize {
        self.digest.as_ref().map_or(0, |digest| digest.to_string().len() + DIGEST)
    }

    fn bytes(&self) -> usize {
        LISTED + self.digest_bytes()
    }
}

fn exception_bytes(exception: &Exception) -> usize {
    let digest = exception.digest.as_ref().map_or(0, |digest| digest.to_string().len());
    EXCEPTION + digest + exception.why.map_or(0, |why| Reason::as_str(why).len())
}

/// Bytes that the lists of an inventory about these pools may have.
pub(crate) fn room<'a>(pools: impl Iterator<Item = &'a PoolId>) -> usize {
    let pools: usize = pools.map(|id| id.as_str().len() + POOL).sum();
    usize::try_from(Bucket::Nodes.max_message_bytes()).unwrap_or(usize::MAX).saturating_sub(ENVELOPE + pools)
}

/// Everything that could be said.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lists {
    /// What is warm, sorted by key.
    pub(crate) warm: Vec<Warm>,
    /// What is not.
    pub(crate) except: Vec<Exception>,
}

impl Lists {
    /// The form in which it fits into `room` bytes. `complete`: every intent of the pools is in one of the lists.
    pub(crate) fn fit(self, complete: bool, room: usize) -> Evidence {
        let digests: usize = self.warm.iter().map(Warm::digest_bytes).sum();
        let has_room_excepting = digests + self.except.iter().map(exception_bytes).sum::<usize>() <= room;
        let has_room_listing = digests + self.warm.len() * LISTED <= room;
        let is_short = self.except.len() <= self.warm.len().max(ALWAYS_NAMED);
        // An incomplete report proves only what it lists, so it lists what is warm.
        let prefers_except = if complete { is_short } else { self.warm.is_empty() };
        if has_room_excepting && (prefers_except || (complete && !has_room_listing)) {
            self.excepting(complete)
        } else if has_room_listing && (!prefers_except || complete) {
            self.listing(complete)
        } else {
            self.cut(room)
        }
    }

    fn excepting(self, complete: bool) -> Evidence {
        let digests = digests(&self.warm);
        Evidence { content: Content::Except(self.except), not_warm: Vec::new(), complete, digests, left_out: 0 }
    }

    fn listing(self, complete: bool) -> Evidence {
        let digests = digests(&self.warm);
        let ids = self.warm.into_iter().map(|warm| warm.id).collect();
        Evidence { content: Content::WarmIds(ids), not_warm: Vec::new(), complete, digests, left_out: 0 }
    }

    /// Names what is most telling: what is not warm, for a label may say otherwise, worst first, in at most half of the
    /// room if what is warm needs the other half; of what is warm, what is wanted most. Which images those are depends on
    /// nothing but the images, so that the same state is reported the same way.
    fn cut(mut self, room: usize) -> Evidence {
        let all = self.warm.len() + self.except.len();
        let needed: usize = self.warm.iter().map(Warm::bytes).sum();
        self.except.sort_by(|a, b| (rank(a.st), &a.id).cmp(&(rank(b.st), &b.id)));
        let for_warm = needed.min(room / 2);
        let left = shorten(&mut self.except, room - for_warm, exception_bytes);
        self.warm.sort_by(|a, b| b.priority.cmp(&a.priority).then_with(|| a.id.cmp(&b.id)));
        shorten(&mut self.warm, for_warm + left, Warm::bytes);
        self.warm.sort_by(|a, b| a.id.cmp(&b.id));
        let left_out = all - self.warm.len() - self.except.len();
        Evidence { not_warm: std::mem::take(&mut self.except), left_out, ..self.listing(false) }
    }
}

/// How telling a state is that is not warm: the lower, the more.
fn rank(state: ImageState) -> u8 {
    match state {
        ImageState::Evicted => 0,
        ImageState::Refused => 1,
        ImageState::Failed => 2,
        ImageState::Deferred | ImageState::Pulling => 3,
        ImageState::Pending | ImageState::Waiting | ImageState::Warm => 4,
    }
}

/// Keeps what fits from the beginning; gives the bytes that are left.
fn shorten<T>(list: &mut Vec<T>, room: usize, bytes: impl Fn(&T) -> usize) -> usize {
    let mut left = room;
    let mut kept = 0;
    for one in list.iter() {
        let Some(rest) = left.checked_sub(bytes(one)) else { break };
        (left, kept) = (rest, kept + 1);
    }
    list.truncate(kept);
    left
}

fn digests(warm: &[Warm]) -> BTreeMap<ImageKey, Digest> {
    warm.iter().filter_map(|warm| Some((warm.id.clone(), warm.digest.clone()?))).collect()
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use proptest::prelude::*;

    use super::*;

    fn key(number: usize) -> ImageKey {
        ImageKey::of(&format!("registry.test/{number}:1"))
    }

    fn digest(number: usize) -> Digest {
        Digest::parse(&format!("sha256:{number:064x}")).unwrap()
    }

    fn warm(number: usize, priority: u8, is_tagged: bool) -> Warm {
        Warm { id: key(number), priority, digest: is_tagged.then(|| digest(number)) }
    }

    /// As long as its form allows.
    fn exception(number: usize, st: ImageState) -> Exception {
        Exception {
            id: key(number),
            st,
            why: Some(Reason::DeadlineExceeded),
            since: Timestamp::MIN,
            digest: Some(digest(number)),
            bytes: Some(u64::MAX),
            tries: Some(u32::MAX),
            next: Some(Timestamp::MIN),
        }
    }

    fn bytes(evidence: &Evidence) -> usize {
        let Evidence { content, not_warm, digests, .. } = evidence;
        let texts = [serde_json::to_string(content), serde_json::to_string(not_warm), serde_json::to_string(digests)];
        texts.into_iter().map(|text| text.unwrap().len()).sum()
    }

    #[test]
    fn what_is_too_long_with_reasons_is_sent_whole_without_them() {
        let except = (0..100).map(|n| exception(n, ImageState::Failed)).collect();
        let lists = Lists { warm: (100..300).map(|n| warm(n, 50, false)).collect(), except };
        let evidence = lists.fit(true, 10_000);
        assert!(matches!(&evidence.content, Content::WarmIds(ids) if ids.len() == 200));
        assert!(evidence.complete && evidence.not_warm.is_empty() && evidence.left_out == 0);
    }

    #[test]
    fn what_does_not_fit_is_what_is_least_telling() {
        let mut lists = Lists::default();
        lists.warm.extend((0..100).map(|n| warm(n, if n == 70 { 90 } else { 50 }, true)));
        lists.except.extend((100..200).map(|n| exception(n, ImageState::Pending)));
        lists.except.push(exception(200, ImageState::Evicted));
        let evidence = lists.fit(true, 8_000);
        assert!(!evidence.complete);
        assert_eq!(evidence.not_warm[0].id, key(200), "the worst first");
        assert!((5..20).contains(&evidence.not_warm.len()), "{} in half of the room", evidence.not_warm.len());
        let Content::WarmIds(ids) = &evidence.content else { panic!("what is warm is listed") };
        assert!(ids.contains(&key(70)) && (25..40).contains(&ids.len()), "{}", ids.len());
        assert_eq!(evidence.left_out, 201 - ids.len() - evidence.not_warm.len());
    }

    proptest! {
        #[test]
        fn it_fits_says_what_it_leaves_out_and_does_not_depend_on_the_order(
            tagged in prop::collection::vec((any::<bool>(), 0..4_u8), 0..60),
            states in prop::collection::vec(0..8_usize, 0..60),
            room in 0..30_000_usize,
            complete in any::<bool>(),
        ) {
            let mut lists = Lists::default();
            lists.warm.extend(tagged.iter().enumerate().map(|(n, (is_tagged, p))| warm(n, *p, *is_tagged)));
            lists.warm.sort_by(|a, b| a.id.cmp(&b.id));
            lists.except.extend(states.iter().enumerate().map(|(n, st)| exception(1_000 + n, ImageState::ALL[*st])));
            let mut other = lists.clone();
            other.except.reverse();
            let (all, evidence) = (lists.warm.len() + lists.except.len(), lists.fit(complete, room));
            prop_assert!(bytes(&evidence) <= room + 100, "{} in {room}", bytes(&evidence));
            prop_assert!(evidence.left_out == 0 || !evidence.complete);
            let is_warm = |id: &ImageKey| tagged.iter().enumerate().any(|(n, _)| key(n) == *id);
            let named = match &evidence.content {
                Content::WarmIds(ids) => {
                    for (n, (is_tagged, _)) in tagged.iter().enumerate() {
                        let is_named = ids.contains(&key(n));
                        prop_assert_eq!(evidence.digests.contains_key(&key(n)), *is_tagged && is_named);
                    }
                    prop_assert!(ids.iter().all(is_warm));
                    ids.len() + evidence.not_warm.len()
                }
                Content::Except(except) => {
                    prop_assert!(evidence.not_warm.is_empty() && !except.iter().any(|e| is_warm(&e.id)));
                    prop_assert_eq!(evidence.left_out, 0);
                    except.len()
                }
            };
            if !evidence.not_warm.is_empty() || evidence.left_out > 0 {
                prop_assert_eq!(named + evidence.left_out, all);
                prop_assert_eq!(other.fit(complete, room), evidence);
            }
        }
    }
}
