//! Pools: one normalised constraint each.
//!
//! Owns what makes two constraints the same, the text a pool's id is made of, and which constraint is a part of `all`.
//! Never looks at nodes: ids must not change when nodes join.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};
use shared::name::{NodeName, PoolId};

use crate::input::{
    Constraint, MatchExpression, NodeSelectorTerm, Operator, TaintEffect, Toleration, TolerationOperator,
};
use crate::place;

/// The same constraint without what cannot matter, in one form: sorted, without duplicates, tolerations only of taints
/// that count, equalities in `nodeSelector`. Admits the same nodes.
pub(crate) fn normalise(constraint: &Constraint) -> Constraint {
    if let Some(name) = constraint.node_name.as_deref().filter(|n| !n.is_empty()) {
        return match NodeName::parse(name) {
            Ok(_) => Constraint { node_name: Some(name.to_owned()), ..Constraint::default() },
            Err(_) => nowhere(),
        };
    }
    let mut node_selector = constraint.node_selector.clone();
    let affinity = match constraint.affinity.as_deref().map(normalise_terms) {
        None => None,
        Some(terms) if terms.is_empty() => return nowhere(),
        Some(mut terms) if terms.len() == 1 => {
            let mut term = terms.pop_first().unwrap_or_default();
            term.match_expressions.retain(|e| !is_moved_to(&mut node_selector, e));
            let is_empty = term.match_expressions.is_empty() && term.match_fields.is_empty();
            (!is_empty).then(|| vec![term])
        }
        Some(terms) => Some(terms.into_iter().collect()),
    };
    Constraint {
        node_selector,
        affinity,
        tolerations: normalise_tolerations(&constraint.tolerations),
        node_name: None,
        requests: constraint.requests.coarse(),
        limit: constraint.limit.clone(),
    }
}

/// What matches no node.
pub(crate) fn nowhere() -> Constraint {
    Constraint { affinity: Some(Vec::new()), ..Constraint::default() }
}

fn normalise_terms(terms: &[NodeSelectorTerm]) -> BTreeSet<NodeSelectorTerm> {
    let plain = |e: &MatchExpression| match e.operator {
        Operator::Exists | Operator::DoesNotExist => MatchExpression { values: BTreeSet::new(), ..e.clone() },
        _ => e.clone(),
    };
    terms
        .iter()
        .filter(|t| !place::is_dead(t))
        .map(|t| NodeSelectorTerm {
            match_expressions: t.match_expressions.iter().map(plain).collect(),
            match_fields: t.match_fields.clone(),
        })
        .collect()
}

/// `In` with one value says what `nodeSelector` says: there it stands, unless another value stands there.
fn is_moved_to(selector: &mut BTreeMap<String, String>, expression: &MatchExpression) -> bool {
    let value = match (expression.operator, expression.values.len()) {
        (Operator::In, 1) => expression.values.first(),
        _ => None,
    };
    value.is_some_and(|value| selector.entry(expression.key.clone()).or_insert_with(|| value.clone()) == value)
}

fn normalise_tolerations(tolerations: &BTreeSet<Toleration>) -> BTreeSet<Toleration> {
    let relevant: BTreeSet<Toleration> = tolerations
        .iter()
        .filter(|t| match (&t.key, t.operator) {
            (None, TolerationOperator::Exists) => true,
            (_, TolerationOperator::Unknown) | (None, _) => false,
            (Some(_), TolerationOperator::Gt | TolerationOperator::Lt) if place::integer(&t.value).is_none() => false,
            (Some(key), _) => !place::is_irrelevant_key(key),
        })
        .filter(|t| !matches!(t.effect, Some(TaintEffect::PreferNoSchedule | TaintEffect::Unknown)))
        .map(|t| match t.operator {
            TolerationOperator::Exists => Toleration { value: String::new(), ..t.clone() },
            _ => t.clone(),
        })
        .collect();
    relevant.iter().filter(|t| !relevant.iter().any(|other| *t != other && covers(other, t))).cloned().collect()
}

/// Whether `wide` tolerates all that `narrow` tolerates.
fn covers(wide: &Toleration, narrow: &Toleration) -> bool {
    let key = wide.key.is_none() || wide.key == narrow.key;
    let effect = wide.effect.is_none() || wide.effect == narrow.effect;
    let value =
        wide.operator == TolerationOperator::Exists || (narrow.operator == wide.operator && wide.value == narrow.value);
    key && effect && value
}

/// The pool of a normalised constraint. That of one named node is the node's private pool, which counts against no
/// limit: a cluster has as many of them as nodes with bare pods.
pub(crate) fn id_of(normalised: &Constraint) -> PoolId {
    match normalised.node_name.as_deref().map(NodeName::parse) {
        Some(Ok(node)) => PoolId::private(&node),
        _ if *normalised == Constraint::default() => PoolId::all(),
        _ => PoolId::auto(&canonical(normalised).to_string()),
    }
}

/// Whether every node of the constraint is also one of the empty constraint, whatever nodes there are: it asks for
/// more and tolerates nothing more. Such a constraint adds nothing for an image that is wanted in `all`.
pub(crate) fn is_part_of_all(normalised: &Constraint) -> bool {
    normalised.tolerations.is_empty() && normalised.node_name.is_none()
}

/// The constraint as JSON, empty parts left out, keys in the order of the alphabet. Pool ids are made of this text:
/// it must never change for a constraint that exists.
pub(crate) fn canonical(normalised: &Constraint) -> Value {
    let mut object = Map::new();
    if let Some(terms) = &normalised.affinity {
        object.insert("affinity".to_owned(), terms.iter().map(canonical_term).collect());
    }
    if let Some(limit) = &normalised.limit {
        object.insert("maxNodes".to_owned(), json!({ "nodes": limit.nodes, "owner": limit.owner }));
    }
    if let Some(name) = &normalised.node_name {
        object.insert("nodeName".to_owned(), json!(name));
    }
    if !normalised.node_selector.is_empty() {
        object.insert("nodeSelector".to_owned(), json!(normalised.node_selector));
    }
    if !normalised.requests.is_empty() {
        object.insert("requests".to_owned(), json!(normalised.requests.named()));
    }
    if !normalised.tolerations.is_empty() {
        object.insert("tolerations".to_owned(), normalised.tolerations.iter().map(canonical_toleration).collect());
    }
    Value::Object(object)
}

fn canonical_term(term: &NodeSelectorTerm) -> Value {
    let list = |expressions: &BTreeSet<MatchExpression>| -> Value {
        let one = |e: &MatchExpression| json!({ "key": e.key, "operator": e.operator, "values": e.values });
        expressions.iter().map(one).collect()
    };
    json!({ "matchExpressions": list(&term.match_expressions), "matchFields": list(&term.match_fields) })
}

fn canonical_toleration(toleration: &Toleration) -> Value {
    json!({
        "effect": toleration.effect,
        "key": toleration.key,
        "operator": toleration.operator,
        "value": toleration.value,
    })
}

/// The document `<pool>.def`, for people.
pub(crate) fn definition(pool: &PoolId, normalised: &Constraint) -> Value {
    json!({ "constraint": canonical(normalised), "pool": pool, "v": 1 })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::input::{Capacity, Limit, Node, Requests, Taint};

    fn toleration(
        key: Option<&str>,
        operator: TolerationOperator,
        value: &str,
        effect: Option<TaintEffect>,
    ) -> Toleration {
        Toleration { key: key.map(ToOwned::to_owned), operator, value: value.to_owned(), effect }
    }

    fn tolerating(tolerations: &[Toleration]) -> Constraint {
        Constraint { tolerations: tolerations.iter().cloned().collect(), ..Constraint::default() }
    }

    fn term(expressions: &[(&str, Operator, &[&str])]) -> NodeSelectorTerm {
        let expression = |(key, operator, values): &(&str, Operator, &[&str])| MatchExpression {
            key: (*key).to_owned(),
            operator: *operator,
            values: values.iter().map(ToString::to_string).collect(),
        };
        NodeSelectorTerm {
            match_expressions: expressions.iter().map(expression).collect(),
            match_fields: BTreeSet::new(),
        }
    }

    #[test]
    fn ids_are_pinned_for_ever() {
        assert_eq!(id_of(&Constraint::default()).as_str(), "all");
        let selecting =
            Constraint { node_selector: [("disk".to_owned(), "ssd".to_owned())].into(), ..Constraint::default() };
        assert_eq!(canonical(&selecting).to_string(), r#"{"nodeSelector":{"disk":"ssd"}}"#);
        let full = Constraint {
            affinity: Some(vec![
                term(&[("b", Operator::Gt, &["1"]), ("a", Operator::Exists, &["junk"])]),
                term(&[("z", Operator::In, &["2", "1"])]),
            ]),
            tolerations: [toleration(Some("gpu"), TolerationOperator::Exists, "junk", None)].into(),
            ..selecting
        };
        let text = concat!(
            r#"{"affinity":[{"matchExpressions":[{"key":"a","operator":"Exists","values":[]},"#,
            r#"{"key":"b","operator":"Gt","values":["1"]}],"matchFields":[]},"#,
            r#"{"matchExpressions":[{"key":"z","operator":"In","values":["1","2"]}],"matchFields":[]}],"#,
            r#""nodeSelector":{"disk":"ssd"},"#,
            r#""tolerations":[{"effect":null,"key":"gpu","operator":"Exists","value":""}]}"#,
        );
        assert_eq!(canonical(&normalise(&full)).to_string(), text);
        assert_eq!(id_of(&normalise(&full)), PoolId::auto(text));
        let requests = Requests { cpu_milli: 9_000, memory: 70 << 30, extended: [("gpu".to_owned(), 2)].into() };
        let large = Constraint { requests, ..Constraint::default() };
        let text = r#"{"requests":{"cpu":"8","gpu":"2","memory":"64Gi"}}"#;
        assert_eq!(canonical(&normalise(&large)).to_string(), text);
        let limit = Some(Limit { nodes: 3, owner: "Deployment/shop/web".to_owned() });
        let limited = Constraint { limit, ..Constraint::default() };
        let text = r#"{"maxNodes":{"nodes":3,"owner":"Deployment/shop/web"}}"#;
        assert_eq!(canonical(&normalise(&limited)).to_string(), text);
        assert_eq!(id_of(&normalise(&limited)), PoolId::auto(text));
        let named = Constraint { node_name: Some("n1".to_owned()), ..full };
        assert_eq!(id_of(&normalise(&named)), PoolId::private(&NodeName::parse("n1").unwrap()));
    }

    #[test]
    fn what_says_the_same_is_the_same_pool() {
        let selector =
            Constraint { node_selector: [("disk".to_owned(), "ssd".to_owned())].into(), ..Constraint::default() };
        let ssd = term(&[("disk", Operator::In, &["ssd"])]);
        for same in [
            Constraint { affinity: Some(vec![ssd.clone()]), ..Constraint::default() },
            Constraint { affinity: Some(vec![ssd.clone(), ssd.clone(), term(&[])]), ..selector.clone() },
        ] {
            assert_eq!(normalise(&same), selector);
        }
        let conflict = Constraint { affinity: Some(vec![term(&[("disk", Operator::In, &["hdd"])])]), ..selector };
        assert_eq!(normalise(&conflict), conflict);
    }

    #[test]
    fn tolerations_that_cannot_matter_leave_the_constraint_empty() {
        use TolerationOperator::{Equal, Exists, Unknown};
        let irrelevant = [
            toleration(Some("node.kubernetes.io/not-ready"), Exists, "", Some(TaintEffect::NoExecute)),
            toleration(Some("x"), TolerationOperator::Gt, "many", None),
            toleration(Some("karpenter.sh/disrupted"), Exists, "", None),
            toleration(Some("x"), Exists, "", Some(TaintEffect::PreferNoSchedule)),
            toleration(Some("x"), Unknown, "", None),
            toleration(None, Equal, "x", None),
        ];
        assert_eq!(id_of(&normalise(&tolerating(&irrelevant))), PoolId::all());
    }

    #[test]
    fn a_toleration_within_another_is_dropped() {
        use TolerationOperator::{Equal, Exists};
        let wide = toleration(Some("x"), Exists, "", None);
        let narrow = [
            wide.clone(),
            toleration(Some("x"), Equal, "1", None),
            toleration(Some("x"), Exists, "", Some(TaintEffect::NoExecute)),
        ];
        assert_eq!(normalise(&tolerating(&narrow)), tolerating(std::slice::from_ref(&wide)));
        let everything = toleration(None, Exists, "", None);
        assert_eq!(normalise(&tolerating(&[everything.clone(), wide])), tolerating(&[everything]));
    }

    #[test]
    fn what_matches_nothing_is_one_pool_and_part_of_all() {
        let dead = Constraint { affinity: Some(vec![term(&[])]), ..Constraint::default() };
        assert_eq!(normalise(&dead), nowhere());
        let bad_name = Constraint { node_name: Some("No Node".to_owned()), ..Constraint::default() };
        assert_eq!(normalise(&bad_name), nowhere());
        assert!(
            is_part_of_all(&nowhere())
                && !is_part_of_all(&tolerating(&[toleration(Some("x"), TolerationOperator::Exists, "", None)]))
        );
    }

    fn word() -> impl Strategy<Value = String> + Clone {
        prop::sample::select(&["a", "b", "1", "2", "node.kubernetes.io/not-ready", place::CORDON_TAINT][..])
            .prop_map(ToOwned::to_owned)
    }

    fn constraints() -> impl Strategy<Value = Constraint> {
        use Operator::{DoesNotExist, Exists, Gt, In, Lt, NotIn, Unknown};
        let operator = prop::sample::select(&[In, In, NotIn, Exists, DoesNotExist, Gt, Lt, Unknown][..]);
        let expression = (word(), operator, prop::collection::btree_set(word(), 0..3))
            .prop_map(|(key, operator, values)| MatchExpression { key, operator, values });
        let field = (any::<bool>(), prop::sample::select(&["n1", "n2"][..])).prop_map(|(not, name)| MatchExpression {
            key: "metadata.name".to_owned(),
            operator: if not { NotIn } else { In },
            values: [name.to_owned()].into(),
        });
        let term = (prop::collection::btree_set(expression, 0..3), prop::collection::btree_set(field, 0..2))
            .prop_map(|(match_expressions, match_fields)| NodeSelectorTerm { match_expressions, match_fields });
        let tolerations = (
            prop::option::of(word()),
            prop::sample::select(
                &[
                    TolerationOperator::Equal,
                    TolerationOperator::Exists,
                    TolerationOperator::Gt,
                    TolerationOperator::Lt,
                    TolerationOperator::Unknown,
                ][..],
            ),
            word(),
            prop::option::of(effects()),
        )
            .prop_map(|(key, operator, value, effect)| Toleration { key, operator, value, effect });
        (
            prop::collection::btree_map(word(), word(), 0..2),
            prop::option::of(prop::collection::vec(term, 0..3)),
            prop::collection::btree_set(tolerations, 0..4),
            prop::option::weighted(0.1, Just("n1".to_owned())),
            requests(),
        )
            .prop_map(|(node_selector, affinity, tolerations, node_name, requests)| Constraint {
                node_selector,
                affinity,
                tolerations,
                node_name,
                requests,
                limit: None,
            })
    }

    fn requests() -> impl Strategy<Value = Requests> {
        let gpus = prop::collection::btree_map(prop::sample::select(&["gpu", "nic"][..]), 0_u64..3, 0..2);
        (0_u64..40_000, 0_u64..(80 << 30), gpus).prop_map(|(cpu_milli, memory, gpus)| Requests {
            cpu_milli,
            memory,
            extended: gpus.into_iter().map(|(name, n)| (name.to_owned(), n)).collect(),
        })
    }

    fn effects() -> impl Strategy<Value = TaintEffect> + Clone {
        use TaintEffect::{NoExecute, NoSchedule, PreferNoSchedule, Unknown};
        prop::sample::select(&[NoSchedule, NoSchedule, NoExecute, PreferNoSchedule, Unknown][..])
    }

    fn nodes() -> impl Strategy<Value = Node> {
        let taint = (word(), word(), effects()).prop_map(|(key, value, effect)| Taint { key, value, effect });
        let labels = prop::collection::btree_map(word(), word(), 0..4);
        let capacity =
            requests().prop_map(|there| Capacity::of(Some(there.cpu_milli), Some(there.memory), there.extended));
        (labels, prop::collection::btree_set(taint, 0..3), any::<bool>(), capacity).prop_map(
            |(labels, taints, unschedulable, capacity)| Node {
                labels,
                taints,
                unschedulable,
                capacity,
                ..Node::default()
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

        #[test]
        fn normalising_changes_no_node(constraint in constraints(), node in nodes(), first in any::<bool>()) {
            let name = NodeName::parse(if first { "n1" } else { "n2" }).unwrap();
            let normal = normalise(&constraint);
            prop_assert_eq!(
                place::is_eligible(&normal, &name, &node),
                place::is_eligible(&constraint, &name, &node),
                "{:?}", normal
            );
            prop_assert_eq!(normalise(&normal), normal.clone());
            if is_part_of_all(&normal) && place::is_eligible(&normal, &name, &node) {
                prop_assert!(place::is_eligible(&Constraint::default(), &name, &node));
            }
        }
    }
}
