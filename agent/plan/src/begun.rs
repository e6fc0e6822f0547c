//! Attempts of which no success is known, at images that nobody wants now.
//!
//! Owns how long that is remembered: should one be wanted again, what the runtime holds of it may be unfinished.

use std::collections::BTreeMap;
use std::time::Duration;

use shared::image::Reference;
use shared::machine::Moment;
use shared::name::ImageKey;

use crate::persisted::Setback;
use crate::presence::Listing;

/// One of them.
#[derive(Debug, Clone)]
struct Attempt {
    /// Canonical reference.
    image: String,
    /// Nobody has waited for it since.
    left: Moment,
}

/// All of them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Begun(BTreeMap<ImageKey, Attempt>);

impl Begun {
    /// Nobody waits for this one any more.
    pub(crate) fn leave(&mut self, id: ImageKey, image: String, now: Moment) {
        self.0.insert(id, Attempt { image, left: now });
    }

    /// It is wanted again; says whether there was an attempt at it.
    pub(crate) fn take(&mut self, id: &ImageKey) -> bool {
        self.0.remove(id).is_some()
    }

    /// Forgets what is there as a whole, and what is not there at all and cannot come any more: a runtime may go on with a pull
    /// until `deadline` after its caller has left. Says whether there was any.
    pub(crate) fn look(&mut self, listing: &Listing, deadline: Duration) -> bool {
        let before = self.0.len();
        self.0.retain(|id, attempt| {
            let reference = Reference::parse(&attempt.image).ok();
            match reference.and_then(|reference| listing.look(id, &reference, None, None)) {
                Some(present) => present.digest.is_none(),
                None => listing.asked() <= attempt.left + deadline,
            }
        });
        self.0.len() != before
    }

    /// As it is persisted.
    pub(crate) fn store(&self) -> impl Iterator<Item = (ImageKey, Setback)> {
        self.0.iter().map(|(id, attempt)| (id.clone(), Setback::begun(attempt.image.clone())))
    }
}
