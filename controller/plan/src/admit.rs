//! What Kubernetes adds to a pod before the scheduler sees it, and what people add for us.
//!
//! Owns `RuntimeClass` (an admission plugin merges it into Pods, so templates lack it), the tolerations that the
//! `DaemonSet` controller gives its Pods, cordons that do not count, and the limit of nodes. Never looks at nodes.

use shared::label::MAX_NODES_ANNOTATION;

use crate::input::workload::Limit;
use crate::input::{
    Constraint, RuntimeClass, TaintEffect, Toleration, TolerationOperator, Workload, WorkloadKey, WorkloadKind,
};
use crate::known::Known;
use crate::place::CORDON_TAINT;
use crate::pool;
use crate::settings::Cordoned;

/// Completes the constraint of a workload; gives what of it cannot be used.
pub(crate) fn complete(
    key: &WorkloadKey,
    workload: &mut Workload,
    classes: &Known<String, RuntimeClass>,
    cordoned: Cordoned,
) -> Vec<String> {
    let mut problems = Vec::new();
    let constraint = &mut workload.constraint;
    if key.kind == WorkloadKind::DaemonSet {
        constraint.tolerations.insert(cordon());
    }
    let is_placed = constraint.node_name.as_ref().is_some_and(|name| !name.is_empty());
    if let Some(name) = workload.runtime_class.as_ref().filter(|name| !name.is_empty() && !is_placed) {
        let class = classes.get(name).ok_or_else(|| "there is no such RuntimeClass".to_owned());
        if let Err(what) = class.and_then(|class| merge(constraint, class)) {
            problems.push(format!("runtimeClassName `{name}`: {what}; its pods are refused"));
            *constraint = pool::nowhere();
        }
    }
    if cordoned == Cordoned::Warm {
        // Every pool has its cordoned nodes: who tolerates them differs in nothing.
        constraint.tolerations.retain(|toleration| toleration.key.as_deref() != Some(CORDON_TAINT));
    }
    if let Some(text) = &workload.max_nodes {
        match text.parse::<u32>().ok().filter(|nodes| *nodes > 0) {
            Some(nodes) => constraint.limit = Some(Limit { nodes, owner: key.to_string() }),
            None => problems.push(format!(
                "annotation {MAX_NODES_ANNOTATION}: `{text}` is not a whole number from 1 on; there is no limit"
            )),
        }
    }
    problems
}

/// As the admission plugin `RuntimeClass` does.
fn merge(constraint: &mut Constraint, class: &RuntimeClass) -> Result<(), String> {
    for (key, value) in &class.node_selector {
        let there = constraint.node_selector.entry(key.clone()).or_insert_with(|| value.clone());
        if there != value {
            return Err(format!("it wants nodes with {key}={value}, and nodeSelector {key}={there}"));
        }
    }
    constraint.tolerations.extend(class.tolerations.iter().cloned());
    constraint.requests.add(&class.overhead);
    Ok(())
}

/// Of those that the `DaemonSet` controller adds the one that can count: all others are of conditions, through which
/// every node is warmed.
fn cordon() -> Toleration {
    Toleration {
        key: Some(CORDON_TAINT.to_owned()),
        operator: TolerationOperator::Exists,
        value: String::new(),
        effect: Some(TaintEffect::NoSchedule),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::fact::Change;
    use crate::input::Requests;

    fn key(kind: WorkloadKind) -> WorkloadKey {
        WorkloadKey { kind, namespace: "shop".to_owned(), name: "web".to_owned() }
    }

    fn selecting(value: &str) -> Constraint {
        Constraint { node_selector: [("runtime".to_owned(), value.to_owned())].into(), ..Constraint::default() }
    }

    fn classes() -> Known<String, RuntimeClass> {
        let mut known = Known::new();
        let class = RuntimeClass {
            node_selector: selecting("kata").node_selector,
            tolerations: [Toleration { key: Some("sandbox".to_owned()), ..cordon() }].into(),
            overhead: Requests { cpu_milli: 250, ..Requests::default() },
        };
        known.change(Change::Upsert("kata".to_owned(), Ok(class)));
        known
    }

    fn completed(workload: Workload, kind: WorkloadKind, cordoned: Cordoned) -> (Constraint, Vec<String>) {
        let mut workload = workload;
        let problems = complete(&key(kind), &mut workload, &classes(), cordoned);
        (workload.constraint, problems)
    }

    #[test]
    fn a_runtime_class_is_merged_as_admission_does() {
        let workload = Workload { runtime_class: Some("kata".to_owned()), ..Workload::default() };
        let (constraint, problems) = completed(workload.clone(), WorkloadKind::Deployment, Cordoned::Warm);
        assert!(problems.is_empty(), "{problems:?}");
        assert_eq!(constraint.node_selector, selecting("kata").node_selector);
        assert_eq!((constraint.tolerations.len(), constraint.requests.cpu_milli), (1, 250));
        let same = Workload { constraint: selecting("kata"), ..workload.clone() };
        assert_eq!(completed(same, WorkloadKind::Deployment, Cordoned::Warm).0, constraint);
        let named = Constraint { node_name: Some("n1".to_owned()), ..selecting("runc") };
        let placed = Workload { constraint: named.clone(), ..workload };
        assert_eq!(completed(placed, WorkloadKind::Pod, Cordoned::Warm), (named, vec![]), "it has been admitted");
    }

    #[rstest]
    #[case::a_conflict("kata", "runc", "it wants nodes with runtime=kata, and nodeSelector runtime=runc")]
    #[case::none("gvisor", "kata", "there is no such RuntimeClass")]
    fn a_runtime_class_that_cannot_be_used_lands_nowhere_and_it_is_said(
        #[case] class: &str,
        #[case] selector: &str,
        #[case] says: &str,
    ) {
        let runtime_class = Some(class.to_owned());
        let workload = Workload { runtime_class, constraint: selecting(selector), ..Workload::default() };
        let (constraint, problems) = completed(workload, WorkloadKind::Deployment, Cordoned::Warm);
        assert_eq!(constraint, pool::nowhere());
        assert!(problems.len() == 1 && problems[0].contains(says), "{problems:?}");
    }

    #[rstest]
    #[case(WorkloadKind::DaemonSet, Cordoned::Skip, 1)]
    #[case(WorkloadKind::DaemonSet, Cordoned::Warm, 0)]
    #[case(WorkloadKind::Deployment, Cordoned::Skip, 0)]
    fn pods_of_a_daemon_set_tolerate_a_cordon_where_it_counts(
        #[case] kind: WorkloadKind,
        #[case] cordoned: Cordoned,
        #[case] tolerations: usize,
    ) {
        assert_eq!(completed(Workload::default(), kind, cordoned).0.tolerations.len(), tolerations);
    }

    #[rstest]
    #[case("3", Some(3), 0)]
    #[case("0", None, 1)]
    #[case("-1", None, 1)]
    #[case("few", None, 1)]
    fn a_limit_is_a_number_from_one_on(#[case] text: &str, #[case] nodes: Option<u32>, #[case] said: usize) {
        let workload = Workload { max_nodes: Some(text.to_owned()), ..Workload::default() };
        let (constraint, problems) = completed(workload, WorkloadKind::Deployment, Cordoned::Warm);
        assert_eq!(constraint.limit.as_ref().map(|limit| limit.nodes), nodes);
        assert!(constraint.limit.is_none_or(|limit| limit.owner == "Deployment/shop/web"));
        assert_eq!(problems.len(), said, "{problems:?}");
    }
}
