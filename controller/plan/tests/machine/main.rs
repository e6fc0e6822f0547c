//! The whole machine against buckets and Nodes in memory.
#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    clippy::float_cmp,
    clippy::duration_suboptimal_units,
    clippy::too_many_lines,
    reason = "a test that meets what it does not expect is to fail; counts are whole numbers; all waits are in seconds"
)]

mod anew;
mod evidence;
mod explaining;
mod labels;
mod leadership;
mod pausing;
mod properties;
mod recorded;
mod sets;
mod stage;
mod sync;
mod targeting;
mod telling;
mod writes;
