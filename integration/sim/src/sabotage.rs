//! Faults planted between a machine and its world, to show that the invariants notice.
//!
//! Owns the list. None of them changes a line of a machine: each alters settings, facts or effects on their way.

/// A planted fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sabotage {
    /// Agents run with one pull more than is allowed.
    OnePullMore,
    /// The controller labels what a node was told to pull, before anybody has proven it.
    LabelBeforeEvidence,
    /// The controller believes in a budget of one label more.
    OneLabelMore,
    /// Agents are told a beat that agrees with whatever they have read.
    SweepWithoutMatch,
    /// The controller keeps whatever label a Node shows.
    KeepLabels,
    /// The agent removes an image that a container uses.
    RemoveUsed,
}
