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
    Constraint { node_selector, affinity, tolerations: normalise_tolerations(&constraint.tolerations), node_name: None }
}

/// What matches no node.
fn nowhere() -> Constraint {
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
            (_, TolerationOperator::Unknown) | (None, TolerationOperator::Equal) => false,
            (Some(key), _) => !place::is_irrelevant_key(key),
            (None, TolerationOperator::Exists) => true,
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
    let value = wide.operator == TolerationOperator::Exists
        || (narrow.operator == TolerationOperator::Equal && wide.value == narrow.value);
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
    if let Some(name) = &normalised.node_name {
        object.insert("nodeName".to_owned(), json!(name));
    }
    if !normalised.node_selector.is_empty() {
        object.insert("nodeSelector".to_owned(), json!(normalised.node_selector));
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
