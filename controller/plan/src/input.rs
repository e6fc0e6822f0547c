//! Domain views of what is watched: only what deciding needs, no Kubernetes types.

pub mod image_set;
pub mod namespace;
pub mod node;
pub mod replica;
pub mod resources;
pub mod runtime_class;
pub mod selection;
pub mod workload;

pub use image_set::{ImageSet, SetKey};
pub use namespace::Namespace;
pub use node::{Node, Taint, TaintEffect};
pub use replica::{Controller, Replica};
pub use resources::{Capacity, Requests};
pub use runtime_class::RuntimeClass;
pub use selection::Selection;
pub use workload::{
    Constraint, ContainerImage, Limit, MatchExpression, NodeSelectorTerm, Operator, Owner, Part, Toleration,
    TolerationOperator, Workload, WorkloadKey, WorkloadKind,
};
