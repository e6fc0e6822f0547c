//! Whether a node is one that pods of a constraint could land on.
//!
//! Owns the rules of the scheduler's `NodeAffinity` and `TaintToleration` as far as warming follows them
//! (`kubernetes.io/docs/concepts/scheduling-eviction`), and where it deliberately does not: transient conditions and
//! cordons do not stop warming; nodes being deleted and virtual nodes are never warmed.

use std::fmt;

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

/// The taint of a cordoned node, tolerated by pods that land there nevertheless.
pub(crate) const CORDON_TAINT: &str = "node.kubernetes.io/unschedulable";

/// Taints by which autoscalers say that a node is about to be deleted.
const DELETION_TAINTS: [&str; 2] = ["ToBeDeletedByClusterAutoscaler", "karpenter.sh/disrupted"];

/// Taint and label of nodes without a runtime of their own.
const VIRTUAL_TAINT: &str = "virtual-kubelet.io/provider";
const VIRTUAL_LABEL: (&str, &str) = ("type", "virtual-kubelet");

/// The only field that `matchFields` knows.
pub(crate) const NAME_FIELD: &str = "metadata.name";

/// Whether no toleration of this taint key can ever matter: the taint is ignored, or its nodes are in no pool.
pub(crate) fn is_irrelevant_key(key: &str) -> bool {
    (CONDITION_TAINTS.contains(&key) && key != CORDON_TAINT) || DELETION_TAINTS.contains(&key) || key == VIRTUAL_TAINT
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

/// What keeps pods of a constraint off a node: the first thing found. Printed as a clause about the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Obstacle<'a> {
    /// The node is going away.
    Leaving,
    /// The node has no runtime of its own.
    Virtual,
    /// The pod names this node.
    OtherNode(&'a str),
    /// `nodeSelector` wants this value of a label.
    Label {
        /// Its key.
        key: &'a str,
        /// What is wanted.
        wanted: &'a str,
        /// What the node has.
        there: Option<&'a str>,
    },
    /// No term of the required node affinity matches.
    Affinity,
    /// A taint is not tolerated.
    Taint(&'a Taint),
    /// It is cordoned, and those are not warmed.
    Cordoned,
    /// It never has enough of something.
    Lacks {
        /// Of what.
        resource: &'a str,
        /// How much is asked for.
        wanted: String,
        /// What there is, if there is such a thing.
        there: Option<u64>,
    },
    /// Others were chosen, so many.
    NotChosen(u32),
}

impl fmt::Display for Obstacle<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Leaving => f.write_str("the node is being deleted"),
            Self::Virtual => f.write_str("the node is virtual: it has no runtime of its own"),
            Self::OtherNode(name) => write!(f, "the pod names node {name}"),
            Self::Label { key, wanted, there: Some(there) } => {
                write!(f, "nodeSelector wants label {key}={wanted}, the node has {there}")
            }
            Self::Label { key, wanted, there: None } => {
                write!(f, "nodeSelector wants label {key}={wanted}, which the node lacks")
            }
            Self::Affinity => f.write_str("no term of the required node affinity matches the node"),
            Self::Taint(Taint { key, value, effect }) => {
                write!(f, "the node's taint {key}={value}:{effect:?} is not tolerated")
            }
            Self::Cordoned => f.write_str("the node is cordoned, and target.cordoned is skip"),
            Self::Lacks { resource, wanted, there: Some(there) } => {
                write!(f, "a pod asks for {wanted} of {resource}, the whole node has no more than {there}")
            }
            Self::Lacks { resource, wanted, there: None } => {
                write!(f, "a pod asks for {wanted} of {resource}, which the node has none of")
            }
            Self::NotChosen(nodes) => {
                write!(f, "{} limits it to {nodes} nodes, and others were chosen", shared::label::MAX_NODES_ANNOTATION)
            }
        }
    }
}

/// Whether pods of `constraint` could land on this node.
pub(crate) fn is_eligible(constraint: &Constraint, name: &NodeName, node: &Node) -> bool {
    obstacle(constraint, name, node).is_none()
}

/// What keeps pods of `constraint` off this node. A pod that names its node has been placed already: nothing else is
/// asked of it.
pub(crate) fn obstacle<'a>(constraint: &'a Constraint, name: &NodeName, node: &'a Node) -> Option<Obstacle<'a>> {
    if is_leaving(node) {
        return Some(Obstacle::Leaving);
    }
    if is_virtual(node) {
        return Some(Obstacle::Virtual);
    }
    if let Some(wanted) = constraint.node_name.as_deref().filter(|n| !n.is_empty()) {
        return (wanted != name.as_str()).then_some(Obstacle::OtherNode(wanted));
    }
    if let Some((key, wanted)) =
        constraint.node_selector.iter().find(|(key, value)| node.labels.get(*key) != Some(value))
    {
        let there = node.labels.get(key).map(String::as_str);
        return Some(Obstacle::Label { key, wanted, there });
    }
    if constraint.affinity.as_ref().is_some_and(|terms| !terms.iter().any(|t| matches_term(t, name, node))) {
        return Some(Obstacle::Affinity);
    }
    let is_tolerated = |taint: &&Taint| constraint.tolerations.iter().any(|t| tolerates(t, taint));
    if let Some(taint) = hard_taints(node).find(|taint| !is_tolerated(taint)) {
        return Some(Obstacle::Taint(taint));
    }
    if node.unschedulable && !constraint.tolerations.iter().any(tolerates_cordon) {
        return Some(Obstacle::Cordoned);
    }
    let (resource, there) = node.capacity.lacks(&constraint.requests)?;
    let wanted = constraint.requests.coarse().named().remove(resource).unwrap_or_default();
    Some(Obstacle::Lacks { resource, wanted, there })
}

/// Whether a cordon does not keep a pod with it off.
fn tolerates_cordon(toleration: &Toleration) -> bool {
    let taint = Taint { key: CORDON_TAINT.to_owned(), value: String::new(), effect: TaintEffect::NoSchedule };
    tolerates(toleration, &taint)
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
            TolerationOperator::Gt => {
                toleration.key.is_some() && compare(toleration, taint, |there, bound| there > bound)
            }
            TolerationOperator::Lt => {
                toleration.key.is_some() && compare(toleration, taint, |there, bound| there < bound)
            }
            TolerationOperator::Unknown => false,
        }
}

fn compare(toleration: &Toleration, taint: &Taint, holds: impl Fn(i64, i64) -> bool) -> bool {
    integer(&taint.value).zip(integer(&toleration.value)).is_some_and(|(there, bound)| holds(there, bound))
}

/// A decimal integer in its only spelling.
pub(crate) fn integer(text: &str) -> Option<i64> {
    text.parse::<i64>().ok().filter(|n| n.to_string() == text)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rstest::rstest;

    use super::*;
    use crate::input::{Capacity, Requests};

    fn taint(key: &str, value: &str, effect: TaintEffect) -> Taint {
        Taint { key: key.to_owned(), value: value.to_owned(), effect }
    }

    fn node(labels: &[(&str, &str)], taints: &[Taint]) -> Node {
        let labels: BTreeMap<_, _> = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Node { labels, taints: taints.iter().cloned().collect(), ..Node::default() }
    }

    fn expression(key: &str, operator: Operator, values: &[&str]) -> MatchExpression {
        MatchExpression { key: key.to_owned(), operator, values: values.iter().map(ToString::to_string).collect() }
    }

    fn affinity(expressions: &[MatchExpression], fields: &[MatchExpression]) -> Constraint {
        let term = NodeSelectorTerm {
            match_expressions: expressions.iter().cloned().collect(),
            match_fields: fields.iter().cloned().collect(),
        };
        Constraint { affinity: Some(vec![term]), ..Constraint::default() }
    }

    fn name() -> NodeName {
        NodeName::parse("node-1").unwrap()
    }

    #[rstest]
    #[case(Operator::In, &["a", "b"], Some("b"), true)]
    #[case(Operator::In, &["a", "b"], Some("c"), false)]
    #[case(Operator::In, &["a"], None, false)]
    #[case(Operator::In, &[], Some(""), false)]
    #[case(Operator::NotIn, &["a"], Some("b"), true)]
    #[case(Operator::NotIn, &["a"], Some("a"), false)]
    #[case(Operator::NotIn, &["a"], None, true)]
    #[case(Operator::NotIn, &[], None, false)]
    #[case(Operator::Exists, &[], Some(""), true)]
    #[case(Operator::Exists, &[], None, false)]
    #[case(Operator::DoesNotExist, &[], None, true)]
    #[case(Operator::DoesNotExist, &[], Some("x"), false)]
    #[case(Operator::Gt, &["5"], Some("6"), true)]
    #[case(Operator::Gt, &["5"], Some("5"), false)]
    #[case(Operator::Gt, &["5"], Some("many"), false)]
    #[case(Operator::Gt, &["5"], None, false)]
    #[case(Operator::Gt, &["5", "6"], Some("7"), false)]
    #[case(Operator::Lt, &["-5"], Some("-6"), true)]
    #[case(Operator::Lt, &["5"], Some("5"), false)]
    #[case(Operator::Lt, &["five"], Some("1"), false)]
    #[case(Operator::Unknown, &["a"], Some("a"), false)]
    fn an_expression_holds_as_the_scheduler_says(
        #[case] operator: Operator,
        #[case] values: &[&str],
        #[case] label: Option<&str>,
        #[case] eligible: bool,
    ) {
        let labels: Vec<(&str, &str)> = label.map(|v| ("key", v)).into_iter().collect();
        let constraint = affinity(&[expression("key", operator, values)], &[]);
        assert_eq!(is_eligible(&constraint, &name(), &node(&labels, &[])), eligible);
    }

    #[rstest]
    #[case("metadata.name", Operator::In, &["node-1"], true)]
    #[case("metadata.name", Operator::In, &["node-2"], false)]
    #[case("metadata.name", Operator::NotIn, &["node-2"], true)]
    #[case("metadata.name", Operator::NotIn, &["node-1"], false)]
    #[case("metadata.name", Operator::Exists, &[], false)]
    #[case("metadata.uid", Operator::In, &["node-1"], false)]
    fn a_field_is_the_name_or_nothing(
        #[case] key: &str,
        #[case] operator: Operator,
        #[case] values: &[&str],
        #[case] eligible: bool,
    ) {
        let constraint = affinity(&[], &[expression(key, operator, values)]);
        assert_eq!(is_eligible(&constraint, &name(), &node(&[], &[])), eligible);
    }

    #[test]
    fn any_term_is_enough_all_expressions_are_needed_and_empty_ones_match_nothing() {
        let there = node(&[("a", "1"), ("b", "2")], &[]);
        let both =
            |b: &str| affinity(&[expression("a", Operator::In, &["1"]), expression("b", Operator::In, &[b])], &[]);
        assert!(is_eligible(&both("2"), &name(), &there));
        assert!(!is_eligible(&both("3"), &name(), &there));
        let terms = [both("3"), both("2")].into_iter().flat_map(|c| c.affinity.unwrap()).collect();
        assert!(is_eligible(&Constraint { affinity: Some(terms), ..Constraint::default() }, &name(), &there));
        assert!(!is_eligible(&affinity(&[], &[]), &name(), &there));
        assert!(!is_eligible(&Constraint { affinity: Some(vec![]), ..Constraint::default() }, &name(), &there));
    }

    #[rstest]
    #[case(Some("gpu"), TolerationOperator::Exists, "", None, true)]
    #[case(Some("gpu"), TolerationOperator::Equal, "a100", None, true)]
    #[case(Some("gpu"), TolerationOperator::Equal, "t4", None, false)]
    #[case(Some("gpu"), TolerationOperator::Exists, "", Some(TaintEffect::NoSchedule), true)]
    #[case(Some("gpu"), TolerationOperator::Exists, "", Some(TaintEffect::NoExecute), false)]
    #[case(Some("other"), TolerationOperator::Exists, "", None, false)]
    #[case(None, TolerationOperator::Exists, "", None, true)]
    #[case(None, TolerationOperator::Exists, "", Some(TaintEffect::NoExecute), false)]
    #[case(None, TolerationOperator::Equal, "a100", None, false)]
    #[case(Some("gpu"), TolerationOperator::Unknown, "a100", None, false)]
    #[case(Some("gpu"), TolerationOperator::Gt, "5", None, false)]
    fn a_taint_must_be_tolerated(
        #[case] key: Option<&str>,
        #[case] operator: TolerationOperator,
        #[case] value: &str,
        #[case] effect: Option<TaintEffect>,
        #[case] eligible: bool,
    ) {
        let toleration = Toleration { key: key.map(ToOwned::to_owned), operator, value: value.to_owned(), effect };
        let constraint = Constraint { tolerations: [toleration].into(), ..Constraint::default() };
        let tainted = node(&[], &[taint("gpu", "a100", TaintEffect::NoSchedule)]);
        assert_eq!(is_eligible(&constraint, &name(), &tainted), eligible);
        assert!(!is_eligible(&Constraint::default(), &name(), &tainted));
    }

    #[rstest]
    #[case(TolerationOperator::Gt, "900", "950", true)]
    #[case(TolerationOperator::Gt, "950", "950", false)]
    #[case(TolerationOperator::Lt, "900", "899", true)]
    #[case(TolerationOperator::Lt, "-1", "-2", true)]
    #[case(TolerationOperator::Lt, "900", "900", false)]
    #[case(TolerationOperator::Gt, "0900", "950", false)]
    #[case(TolerationOperator::Gt, "900", "+950", false)]
    #[case(TolerationOperator::Lt, "many", "1", false)]
    fn a_number_of_a_taint_is_compared(
        #[case] operator: TolerationOperator,
        #[case] bound: &str,
        #[case] there: &str,
        #[case] tolerated: bool,
    ) {
        let toleration = Toleration { key: Some("sla".to_owned()), operator, value: bound.to_owned(), effect: None };
        assert_eq!(tolerates(&toleration, &taint("sla", there, TaintEffect::NoExecute)), tolerated);
        let of_any = Toleration { key: None, ..toleration };
        assert!(!tolerates(&of_any, &taint("sla", there, TaintEffect::NoExecute)), "only Exists goes without a key");
    }

    #[test]
    fn a_cordon_keeps_off_who_does_not_tolerate_it_where_it_counts() {
        let cordoned = Node { unschedulable: true, ..Node::default() };
        assert_eq!(obstacle(&Constraint::default(), &name(), &cordoned), Some(Obstacle::Cordoned));
        for key in [Some(CORDON_TAINT), None] {
            let toleration = Toleration {
                key: key.map(ToOwned::to_owned),
                operator: TolerationOperator::Exists,
                value: String::new(),
                effect: None,
            };
            let constraint = Constraint { tolerations: [toleration].into(), ..Constraint::default() };
            assert!(is_eligible(&constraint, &name(), &cordoned), "{key:?}");
        }
        let named = Constraint { node_name: Some("node-1".to_owned()), ..Constraint::default() };
        assert!(is_eligible(&named, &name(), &cordoned));
    }

    #[test]
    fn each_obstacle_is_said_in_words() {
        let gpus = [("nvidia.com/gpu".to_owned(), 2)].into();
        let requests = Requests { cpu_milli: 9_000, extended: gpus, ..Requests::default() };
        let constraint = Constraint { requests, ..Constraint::default() };
        let says = |node: &Node| obstacle(&constraint, &name(), node).map(|o| o.to_string()).unwrap_or_default();
        let of = |cores: u64, gpus: Option<u64>| Node {
            capacity: Capacity {
                cores: Some(cores),
                gib: None,
                extended: gpus.map(|n| ("nvidia.com/gpu".to_owned(), n)).into_iter().collect(),
            },
            ..Node::default()
        };
        assert_eq!(says(&of(4, Some(2))), "a pod asks for 8 of cpu, the whole node has no more than 4");
        assert_eq!(says(&of(8, None)), "a pod asks for 2 of nvidia.com/gpu, which the node has none of");
        assert_eq!(says(&of(8, Some(1))), "a pod asks for 2 of nvidia.com/gpu, the whole node has no more than 1");
        assert_eq!(says(&of(8, Some(2))), "");
        assert!(Obstacle::NotChosen(3).to_string().contains("limits it to 3 nodes"));
    }

    #[rstest]
    #[case("node.kubernetes.io/not-ready", TaintEffect::NoExecute, true)]
    #[case("node.kubernetes.io/disk-pressure", TaintEffect::NoSchedule, true)]
    #[case("node.kubernetes.io/unschedulable", TaintEffect::NoSchedule, true)]
    #[case("node.cloudprovider.kubernetes.io/uninitialized", TaintEffect::NoSchedule, false)]
    #[case("prefer", TaintEffect::PreferNoSchedule, true)]
    #[case("new", TaintEffect::Unknown, true)]
    #[case("ToBeDeletedByClusterAutoscaler", TaintEffect::NoSchedule, false)]
    #[case("karpenter.sh/disrupted", TaintEffect::NoSchedule, false)]
    #[case("virtual-kubelet.io/provider", TaintEffect::NoSchedule, false)]
    fn some_taints_do_not_count_and_some_always_do(
        #[case] key: &str,
        #[case] effect: TaintEffect,
        #[case] eligible: bool,
    ) {
        let tainted = node(&[], &[taint(key, "x", effect)]);
        assert_eq!(is_eligible(&Constraint::default(), &name(), &tainted), eligible);
        let everything =
            Toleration { key: None, operator: TolerationOperator::Exists, value: String::new(), effect: None };
        let constraint = Constraint { tolerations: [everything].into(), ..Constraint::default() };
        let never = DELETION_TAINTS.contains(&key) || key == VIRTUAL_TAINT;
        assert_eq!(is_eligible(&constraint, &name(), &tainted), !never);
    }

    #[test]
    fn a_named_node_is_taken_whatever_its_taints_unless_it_is_leaving() {
        let constraint = Constraint { node_name: Some("node-1".to_owned()), ..Constraint::default() };
        let tainted = node(&[], &[taint("gpu", "", TaintEffect::NoSchedule)]);
        assert!(is_eligible(&constraint, &name(), &tainted));
        assert!(!is_eligible(&constraint, &NodeName::parse("node-2").unwrap(), &tainted));
        assert!(!is_eligible(&constraint, &name(), &Node { deleting: true, ..tainted }));
        assert!(!is_eligible(&constraint, &name(), &node(&[("type", "virtual-kubelet")], &[])));
    }
}
