//! Which images of a workload are wanted, and how much.
//!
//! Owns namespaces by list, opt-outs, rules, priorities, and what a malformed part of a workload does: it spoils only
//! itself and is named. Never looks at nodes, nor at two workloads together.

mod reading;
mod rules;
mod verdict;

pub(crate) use self::reading::{ReadImage, Reading, bad_namespace, read};
pub(crate) use self::rules::{Claim, OfNamespace, Rules, regex};

#[cfg(test)]
mod tests;
