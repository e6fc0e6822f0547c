//! The whole machine against buckets and Nodes in memory.

mod evidence;
mod labels;
mod leadership;
mod properties;
mod stage;
mod sync;
mod writes;
