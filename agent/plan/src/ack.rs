//! Events: each transition of an image, said once, while somebody can hear it.
//!
//! Owns which field belongs to which transition. An event that is lost is said again by the inventory.

use shared::machine::Now;
use shared::message::Event;
use shared::name::ImageKey;
use shared::reason::Reason;
use shared::state::ImageState;

use crate::image::Image;
use crate::state::Identity;

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Moves an image to a state; gives the event to publish if that is news. Its `n` is still to be given.
pub(crate) fn transition(
    id: &ImageKey,
    image: &mut Image,
    to: (ImageState, Option<Reason>),
    who: (&Identity, &str),
    now: Now,
) -> Option<Event> {
    let (st, why) = to;
    if !image.is_new && (image.st, image.why) == to {
        return None;
    }
    image.is_new = false;
    if image.st != st {
        image.since = now.wall;
    }
    (image.st, image.why) = to;
    Some(describe(id, image, (st, why), who, now))
}

/// The event that says what an image is now.
pub(crate) fn describe(
    id: &ImageKey,
    image: &mut Image,
    (st, why): (ImageState, Option<Reason>),
    (identity, uid): (&Identity, &str),
    now: Now,
) -> Event {
    let is_end = matches!(st, ImageState::Warm | ImageState::Failed | ImageState::Refused);
    let attempt = if is_end { image.attempt.take() } else { None };
    let present = image.present.as_ref();
    let bytes = if st == ImageState::Warm { present.map(|p| p.bytes) } else { image.want.bytes };
    Event {
        node: identity.node.clone(),
        inst: identity.inst.clone(),
        n: 0,
        uid: uid.to_owned(),
        id: id.clone(),
        image: image.want.image.clone(),
        st,
        why,
        ms: attempt.map(|a| millis(a.took)),
        bytes,
        digest: present.and_then(|p| p.digest.clone()),
        r#try: match st {
            ImageState::Pulling => Some(image.tries.saturating_add(1)),
            _ => attempt.map(|a| a.number),
        },
        next: if is_end || st == ImageState::Pending { image.next().map(|due| due.wall) } else { None },
        ts: now.wall,
    }
}
