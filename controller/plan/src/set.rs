//! Sets of images that somebody names by hand.
//!
//! Owns what is told of them: their status and their label on nodes. What they want is selection's and the plan's, as of any
//! workload.

mod condition;
mod label;
mod pace;
mod status;
mod tally;
mod view;

pub(crate) use self::condition::{Circumstances, conditions};
pub(crate) use self::label::{OnClass, Verdict};
pub(crate) use self::pace::StatusPace;
pub use self::status::{Condition, ConditionStatus, MOST_IMAGES, MOST_NODES, SetImage, SetReason, SetStatus};
pub(crate) use self::tally::Tally;
pub(crate) use self::view::SetView;
