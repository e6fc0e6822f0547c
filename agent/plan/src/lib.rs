//! What a node pulls, keeps and reports next.
//!
//! Owns every decision of the agent as one pure machine, [`NodeState`]: facts in, effects out. Never does I/O, never
//! reads a clock, knows neither CRI nor NATS.

pub mod disk;
pub mod effect;
pub mod fact;
pub mod follower;
pub mod gc;
pub mod persisted;
pub mod state;
pub mod timing;

mod ack;
mod age;
mod assignment;
mod beginning;
mod begun;
mod content;
mod cut;
mod doubt;
mod explain;
mod image;
mod inventory;
mod ledger;
mod pool;
mod presence;
mod pull;
mod ranges;
mod reading;
mod refresh;
mod runtime;
mod save;
mod subscription;
mod sync;
mod want;

pub use beginning::Beginning;
pub use disk::DiskSettings;
pub use effect::Effect;
pub use fact::Fact;
pub use follower::Follower;
pub use gc::{GcMode, GcSettings};
pub use inventory::Evidence;
pub use persisted::Persisted;
pub use state::{Identity, NodeState, Settings};
pub use timing::Timing;
