//! Whether a node is one that pods of a constraint could land on.
//!
//! Owns the rules of the scheduler's `NodeAffinity` and `TaintToleration` as far as warming follows them
//! (`kubernetes.io/docs/concepts/scheduling-eviction`), and where it deliberately does not: transient conditions and
//! cordons do not stop warming; nodes being deleted and virtual nodes are never warmed.

use shared::name::NodeName;

use crate::input::{
    Constraint, MatchExpression, Node, NodeSelectorTerm, Operator, Taint, TaintEffect, Toleration, TolerationOperator,
};

/// Taints that come and go with a node's condition, or with a cordon: ignored, a node is warmed through them.
const CONDITION_TAINTS: [&str; 7] = [
    "node.kubernetes.io/not-ready",
    "node.kubernetes.io/unreachable",
    "node.kubernetes.io/memory-pressure",
    "node.kubernetes.io/disk-pressure",
    "node.kubernetes.io/pid-pressure",
    "node.kubernetes.io/unschedulable",
    "node.kubernetes.io/network-unavailable",
];

/// Taints by which autoscalers say that a node is about to be deleted.
const DELETION_TAINTS: [&str; 2] = ["ToBeDeletedByClusterAutoscaler", "karpenter.sh/disrupted"];

/// Taint and label of nodes without a runtime of their own.
const VIRTUAL_TAINT: &str = "virtual-kubelet.io/provider";
const VIRTUAL_LABEL: (&str, &str) = ("type", "virtual-kubelet");

/// The only field that `matchFields` knows.
pub(crate) const NAME_FIELD: &str = "metadata.name";

/// Whether no toleration of this taint key can ever matter: the taint is ignored, or its nodes are in no pool.
pub(crate) fn is_irrelevant_key(key: &str) -> bool {
    CONDITION_TAINTS.contains(&key) || DELETION_TAINTS.contains(&key) || key == VIRTUAL_TAINT
}

/// A node without a runtime of its own: it gets no agent, no assignment, no label.
pub(crate) fn is_virtual(node: &Node) -> bool {
    node.labels.get(VIRTUAL_LABEL.0).is_some_and(|v| v == VIRTUAL_LABEL.1)
        || node.taints.iter().any(|t| t.key == VIRTUAL_TAINT)
}

/// A node that is going away: a member of no pool, never.
pub(crate) fn is_leaving(node: &Node) -> bool {
    node.deleting || node.taints.iter().any(|t| DELETION_TAINTS.contains(&t.key.as_str()))
}

/// The taints that must be tolerated.
pub(crate) fn hard_taints(node: &Node) -> impl Iterator<Item = &Taint> {
    node.taints.iter().filter(|t| {
        matches!(t.effect, TaintEffect::NoSchedule | TaintEffect::NoExecute)
            && !CONDITION_TAINTS.contains(&t.key.as_str())
    })
}

/// Whether pods of `constraint` could land on this node. A pod that names its node has been placed already: nothing
/// else is asked of it.
pub(crate) fn is_eligible(constraint: &Constraint, name: &NodeName, node: &Node) -> bool {
    if is_leaving(node) || is_virtual(node) {
        return false;
    }
    if let Some(wanted) = constraint.node_name.as_deref().filter(|n| !n.is_empty()) {
        return wanted == name.as_str();
    }
    constraint.node_selector.iter().all(|(key, value)| node.labels.get(key) == Some(value))
        && constraint.affinity.as_ref().is_none_or(|terms| terms.iter().any(|t| matches_term(t, name, node)))
        && hard_taints(node).all(|taint| constraint.tolerations.iter().any(|t| tolerates(t, taint)))
}

fn matches_term(term: &NodeSelectorTerm, name: &NodeName, node: &Node) -> bool {
    !is_dead(term)
        && term.match_expressions.iter().all(|e| matches(e, node.labels.get(&e.key).map(String::as_str)))
        && term.match_fields.iter().all(|e| matches(e, Some(name.as_str())))
}

/// Whether a term can match no node at all: it is empty, or a part of it is invalid or unknown here.
pub(crate) fn is_dead(term: &NodeSelectorTerm) -> bool {
    let is_void = |e: &MatchExpression| match e.operator {
        Operator::In | Operator::NotIn => e.values.is_empty(),
        Operator::Exists | Operator::DoesNotExist => false,
        Operator::Gt | Operator::Lt => bound(e).is_none(),
        Operator::Unknown => true,
    };
    let is_void_field = |e: &MatchExpression| {
        e.key != NAME_FIELD || e.values.len() != 1 || !matches!(e.operator, Operator::In | Operator::NotIn)
    };
    (term.match_expressions.is_empty() && term.match_fields.is_empty())
        || term.match_expressions.iter().any(is_void)
        || term.match_fields.iter().any(is_void_field)
}

fn matches(expression: &MatchExpression, value: Option<&str>) -> bool {
    let number = || value.and_then(|v| v.parse::<i64>().ok());
    match expression.operator {
        Operator::In => value.is_some_and(|v| expression.values.contains(v)),
        Operator::NotIn => value.is_none_or(|v| !expression.values.contains(v)),
        Operator::Exists => value.is_some(),
        Operator::DoesNotExist => value.is_none(),
        Operator::Gt => number().zip(bound(expression)).is_some_and(|(v, bound)| v > bound),
        Operator::Lt => number().zip(bound(expression)).is_some_and(|(v, bound)| v < bound),
        Operator::Unknown => false,
    }
}

/// The one integer that `Gt` and `Lt` compare with.
fn bound(expression: &MatchExpression) -> Option<i64> {
    match expression.values.len() {
        1 => expression.values.first()?.parse().ok(),
        _ => None,
    }
}

/// `ToleratesTaint` of k8s.io/component-helpers.
pub(crate) fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let effect = toleration.effect.is_none_or(|e| e == taint.effect);
    let key = toleration.key.as_ref().is_none_or(|k| *k == taint.key);
    effect
        && key
        && match toleration.operator {
            TolerationOperator::Exists => true,
            // Without a key only `Exists` is valid.
            TolerationOperator::Equal => toleration.key.is_some() && toleration.value == taint.value,
            TolerationOperator::Unknown => false,
        }
}
