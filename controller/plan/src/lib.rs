//! Which image belongs on which node, and what the evidence allows to be said of it.
//!
//! Owns every decision of the controller as one pure machine, [`World`]: facts in, effects out. Never does I/O, never
//! reads a clock, knows neither Kubernetes types nor NATS.

mod abreast;
mod admit;
mod beat;
mod beginning;
mod bucket;
mod choice;
mod claims;
mod demand;
mod diff;
pub mod effect;
mod evidence;
pub mod fact;
mod family;
pub mod input;
mod judge;
mod known;
mod label;
mod leadership;
mod ledger;
mod lists;
mod member;
mod notice;
mod pace;
mod place;
mod plan;
mod pool;
mod select;
pub mod set;
pub mod settings;
mod silence;
mod snapshot;
mod suspect;
mod switch;
pub mod timing;
pub mod world;

pub use beginning::Beginning;
pub use effect::Effect;
pub use fact::Fact;
pub use settings::{Cordoned, EventSettings, LabelMode, LabelSettings, Settings, SnapshotSettings, TargetSettings};
pub use timing::Timing;
pub use world::{Row, World};
