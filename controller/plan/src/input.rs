//! Domain views of what is watched: only what deciding needs, no Kubernetes types.

pub mod namespace;
pub mod node;
pub mod selection;
pub mod workload;

pub use namespace::Namespace;
pub use node::{Node, Taint, TaintEffect};
pub use selection::Selection;
pub use workload::{
    Constraint, ContainerImage, MatchExpression, NodeSelectorTerm, Operator, Toleration, TolerationOperator, Workload,
    WorkloadKey, WorkloadKind,
};
