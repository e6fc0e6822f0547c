//! The agent's machine against a small world: a bucket, a runtime and a clock that only move when told.

#[cfg(test)]
mod collecting;
#[cfg(test)]
mod convergence;
#[cfg(test)]
mod keeping;
#[cfg(test)]
mod pausing;
#[cfg(test)]
mod presence;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod pulling;
#[cfg(test)]
mod recorded;
#[cfg(test)]
mod refreshing;
mod reporting;
#[cfg(test)]
mod restart;
#[cfg(test)]
mod syncing;
#[cfg(test)]
mod world;
