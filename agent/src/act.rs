//! Carrying effects out.
//!
//! Owns how each is done, once, with a timeout; its outcome goes back as a fact. When something is tried again is the
//! machine's.

mod beside;
pub mod dispatch;
mod lane;
mod look;
mod outcome;
mod over_nats;
mod pull;
mod read;
pub mod remove;
mod report;
mod save;
mod subscribe;

pub use dispatch::{Dispatcher, World};
pub use over_nats::OverNats;
