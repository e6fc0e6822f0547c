//! Owners and what they own, and which of them count.

use rstest::rstest;

use super::*;
use crate::input::{Constraint, Owner, Part};
use crate::known::Known;

const NOW: Moment = Moment(0);

fn key(kind: &str, name: &str) -> WorkloadKey {
    WorkloadKey { kind: kind.into(), namespace: "shop".to_owned(), name: name.to_owned() }
}

fn image(text: &str) -> ContainerImage {
    ContainerImage { position: "containers[0] \"app\"".to_owned(), image: text.to_owned() }
}

fn workload(uid: &str, owner: Option<(&str, &str, &str)>, images: &[&str]) -> Workload {
    let owner = owner.map(|(kind, name, uid)| Owner { kind: kind.into(), name: name.to_owned(), uid: uid.to_owned() });
    Workload {
        uid: uid.to_owned(),
        owner,
        images: images.iter().map(|text| image(text)).collect(),
        ..Workload::default()
    }
}

/// A family, and what comes of all it has said.
struct Stage {
    family: Family,
    known: Known<WorkloadKey, Workload>,
    now: Moment,
}

impl Stage {
    fn new(kinds: &[&str]) -> Self {
        let kinds = kinds.iter().map(|kind| WorkloadKind::from(*kind)).collect();
        Self { family: Family::new(kinds, Duration::from_mins(10)), known: Known::new(), now: NOW }
    }

    /// One whose sources are complete, and empty.
    fn complete(kinds: &[&str]) -> Self {
        let mut stage = Self::new(kinds);
        stage.look();
        stage
    }

    fn take(&mut self, changes: Changes) {
        for change in changes {
            self.known.change(change);
        }
    }

    fn set(&mut self, kind: &str, name: &str, workload: Workload) {
        let changes = self.family.change(Change::Upsert(key(kind, name), Ok(workload)), self.now);
        self.take(changes);
    }

    fn remove(&mut self, kind: &str, name: &str) {
        let changes = self.family.change(Change::Remove(key(kind, name)), self.now);
        self.take(changes);
    }

    fn pods(&mut self, kind: &str, name: &str, uid: &str, replicas: &[(&str, &[&str])]) {
        let of = Controller { key: key(kind, name), uid: uid.to_owned() };
        let replica =
            |(pod, images): &(&str, &[&str])| Replica { pod: (*pod).to_owned(), view: workload("", None, images) };
        let replicas: Vec<Replica> = replicas.iter().map(replica).collect();
        let change = if replicas.is_empty() { Change::Remove(of) } else { Change::Upsert(of, Ok(replicas)) };
        let changes = self.family.replicas(change, self.now);
        self.take(changes);
    }

    fn look(&mut self) {
        let changes = self.family.look(self.now);
        self.take(changes);
    }

    fn pass(&mut self, time: Duration) {
        self.look();
        self.now = self.now + time;
        self.look();
    }

    /// Who counts, with its images.
    fn counting(&self) -> Vec<String> {
        let images = |w: &Workload| w.images.iter().map(|i| i.image.clone()).collect::<Vec<_>>().join(" ");
        self.known.good().map(|(key, w)| format!("{}/{}: {}", key.kind, key.name, images(w))).collect()
    }
}

#[test]
fn the_top_controller_counts_and_what_it_controls_does_not() {
    let mut stage = Stage::complete(&[]);
    stage.set("Deployment", "web", workload("d", None, &["web:2"]));
    stage.set("ReplicaSet", "web-1", workload("r1", Some(("Deployment", "web", "d")), &["web:1"]));
    stage.set("ReplicaSet", "web-2", workload("r2", Some(("Deployment", "web", "d")), &["web:2"]));
    stage.pods("ReplicaSet", "web-2", "r2", &[("web-2-x", &["web:2"])]);
    stage.set("CronJob", "backup", workload("c", None, &["backup:1"]));
    stage.set("Job", "backup-7", workload("j", Some(("CronJob", "backup", "c")), &["backup:1"]));
    stage.pods("Job", "backup-7", "j", &[("backup-7-x", &["backup:1"])]);
    stage.pass(Duration::from_hours(1));
    assert_eq!(stage.counting(), ["Deployment/web: web:2", "CronJob/backup: backup:1"]);
}

#[rstest]
#[case::of_a_kind_nobody_watches(Some(("Rollout.argoproj.io", "web", "d")), true)]
#[case::of_a_kind_that_is_configured(Some(("CloneSet.apps.kruise.io", "web", "d")), false)]
#[case::of_nobody(None, true)]
fn a_child_counts_where_nobody_above_it_does(#[case] owner: Option<(&str, &str, &str)>, #[case] counts: bool) {
    let mut stage = Stage::complete(&["CloneSet.apps.kruise.io"]);
    stage.set("CloneSet.apps.kruise.io", "web", workload("d", None, &["web:1"]));
    stage.set("ReplicaSet", "web-1", workload("r", owner, &["web:1"]));
    assert_eq!(stage.counting().contains(&"ReplicaSet/web-1: web:1".to_owned()), counts);
}

#[test]
fn a_child_whose_owner_is_gone_counts_itself_after_a_while_unless_it_is_going_too() {
    let mut stage = Stage::complete(&[]);
    stage.set("Deployment", "web", workload("d", None, &["web:1"]));
    stage.set("ReplicaSet", "web-1", workload("r", Some(("Deployment", "web", "d")), &["web:1"]));
    stage.remove("Deployment", "web");
    assert_eq!(stage.counting(), Vec::<String>::new());
    stage.pass(Duration::from_secs(4));
    assert_eq!(stage.counting(), Vec::<String>::new(), "Kubernetes may be collecting it");
    assert!(stage.family.due().is_some());
    stage.pass(Duration::from_secs(1));
    assert_eq!(stage.counting(), ["ReplicaSet/web-1: web:1"]);
    assert_eq!(stage.family.due(), None);

    let going = Workload { deleting: true, ..workload("r", Some(("Deployment", "web", "d")), &["web:1"]) };
    stage.set("ReplicaSet", "web-1", going);
    assert_eq!(stage.counting(), Vec::<String>::new());
    // Another object of the same name is not its owner.
    stage.set("ReplicaSet", "web-1", workload("r", Some(("Deployment", "web", "d")), &["web:1"]));
    stage.set("Deployment", "web", workload("d2", None, &["web:9"]));
    stage.pass(Duration::from_secs(5));
    assert_eq!(stage.counting(), ["Deployment/web: web:9", "ReplicaSet/web-1: web:1"]);
    stage.set("Deployment", "web", workload("d", None, &["web:9"]));
    assert_eq!(stage.counting(), ["Deployment/web: web:9"], "it was only late");
}

#[test]
fn nothing_is_taken_for_orphaned_before_every_source_is_complete_and_then_at_once() {
    let mut stage = Stage::new(&[]);
    stage.set("ReplicaSet", "web-1", workload("r", Some(("Deployment", "web", "d")), &["web:1"]));
    stage.pods("Job", "gone", "j", &[("gone-x", &["job:1"])]);
    assert_eq!(stage.counting(), Vec::<String>::new());
    stage.look();
    assert_eq!(stage.counting(), ["ReplicaSet/web-1: web:1", "Pod/gone-x: job:1"]);
    stage.pods("Job", "gone", "j", &[]);
    assert_eq!(stage.counting(), ["ReplicaSet/web-1: web:1"]);
}

#[test]
fn an_orphan_counts_itself_as_soon_as_it_has_no_owner() {
    let mut stage = Stage::complete(&[]);
    stage.set("Deployment", "web", workload("d", None, &["web:1"]));
    stage.set("ReplicaSet", "web-1", workload("r", Some(("Deployment", "web", "d")), &["web:1"]));
    stage.set("ReplicaSet", "web-1", workload("r", None, &["web:1"]));
    stage.remove("Deployment", "web");
    assert_eq!(stage.counting(), ["ReplicaSet/web-1: web:1"]);
}

#[test]
fn what_has_ended_counts_no_more_and_its_children_are_still_its_own() {
    let mut stage = Stage::complete(&[]);
    stage.set("Job", "once", workload("j", None, &["once:1"]));
    assert_eq!(stage.counting(), ["Job/once: once:1"]);
    stage.pods("Job", "once", "j", &[("once-x", &["once:1"])]);
    stage.set("Job", "once", Workload { ended: true, ..workload("j", None, &["once:1"]) });
    stage.pass(Duration::from_secs(9));
    assert_eq!(stage.counting(), Vec::<String>::new());
}

#[test]
fn an_injected_image_is_its_top_workloads_until_a_while_after_the_last_pod_that_shows_it() {
    let mut stage = Stage::complete(&[]);
    stage.set("Deployment", "web", workload("d", None, &["web:2"]));
    stage.set("ReplicaSet", "web-1", workload("r1", Some(("Deployment", "web", "d")), &["web:1"]));
    stage.set("ReplicaSet", "web-2", workload("r2", Some(("Deployment", "web", "d")), &["web:2"]));
    stage.pods("ReplicaSet", "web-1", "r1", &[("web-1-x", &["web:1", "istio:1"])]);
    let with = ["Deployment/web: web:2 istio:1"];
    assert_eq!(stage.counting(), with, "and what an older template names is not injected");
    let id = Reference::parse("istio:1").unwrap().key();
    let position = stage.family.position(&key("Deployment", "web"), &id);
    assert_eq!(position, Some("pod web-1-x containers[0] \"app\""));

    // A rollout that stops all Pods before it starts others.
    stage.pods("ReplicaSet", "web-1", "r1", &[]);
    stage.pass(Duration::from_mins(1));
    assert_eq!(stage.counting(), with);
    stage.pods("ReplicaSet", "web-2", "r2", &[("web-2-x", &["web:2", "istio:1"])]);
    stage.pass(Duration::from_mins(30));
    assert_eq!(stage.counting(), with);
    stage.pods("ReplicaSet", "web-2", "r2", &[("web-2-x", &["web:2", "istio:2"])]);
    stage.pass(Duration::from_mins(9));
    assert_eq!(stage.counting(), ["Deployment/web: web:2 istio:1 istio:2"]);
    assert!(stage.family.due().is_some());
    stage.pass(Duration::from_mins(1));
    assert_eq!(stage.counting(), ["Deployment/web: web:2 istio:2"]);
    stage.remove("Deployment", "web");
    assert_eq!(stage.counting(), Vec::<String>::new());
}

#[test]
fn what_the_controller_of_a_configured_kind_adds_to_its_pods_counts_while_there_are_none() {
    let mut stage = Stage::complete(&["Service.serving.knative.dev", "Revision.serving.knative.dev"]);
    stage.set("Service.serving.knative.dev", "fn", workload("s", None, &["fn:1"]));
    stage.set(
        "Revision.serving.knative.dev",
        "fn-1",
        workload("r", Some(("Service.serving.knative.dev", "fn", "s")), &["fn:1"]),
    );
    let made = |text: &[&str]| workload("d", Some(("Revision.serving.knative.dev", "fn-1", "r")), text);
    stage.set("Deployment", "fn-1-deployment", made(&["fn@sha256:aa", "queue:1"]));
    // What an earlier revision of that Deployment named is over.
    stage.set(
        "ReplicaSet",
        "fn-1-a",
        workload("rs", Some(("Deployment", "fn-1-deployment", "d")), &["fn:0", "queue:0"]),
    );
    assert_eq!(stage.counting(), ["Service.serving.knative.dev/fn: fn:1 fn@sha256:aa queue:1"]);
    let id = Reference::parse("queue:1").unwrap().key();
    let position = stage.family.position(&key("Service.serving.knative.dev", "fn"), &id);
    assert_eq!(position, Some("Deployment fn-1-deployment containers[0] \"app\""));
    stage.set("Deployment", "fn-1-deployment", made(&["fn@sha256:aa", "queue:2"]));
    stage.pass(Duration::from_mins(10));
    assert_eq!(stage.counting(), ["Service.serving.knative.dev/fn: fn:1 fn@sha256:aa queue:2"]);
    stage.remove("ReplicaSet", "fn-1-a");
    stage.remove("Deployment", "fn-1-deployment");
    stage.pass(Duration::from_mins(10));
    assert_eq!(stage.counting(), ["Service.serving.knative.dev/fn: fn:1"]);
}

#[test]
fn several_templates_are_as_many_workloads_as_they_have_constraints() {
    let ssd = Constraint { node_name: Some("ssd".to_owned()), ..Constraint::default() };
    let part = |at: &str, constraint: &Constraint, text: &str| Part {
        at: at.to_owned(),
        images: vec![image(text)],
        constraint: constraint.clone(),
        template_warm: None,
        runtime_class: None,
    };
    let mut stage = Stage::complete(&["RayCluster.ray.io"]);
    let more = vec![part("a", &Constraint::default(), "a:1"), part("b", &ssd, "b:1"), part("c", &ssd, "c:1")];
    stage.set("RayCluster.ray.io", "ray", Workload { more, ..workload("u", None, &["head:1"]) });
    assert_eq!(stage.counting(), ["RayCluster.ray.io/ray: head:1 a:1", "RayCluster.ray.io/ray#b: b:1 c:1"]);
    assert_eq!(key("RayCluster.ray.io", "ray#b").object_name(), "ray");
    stage.set("RayCluster.ray.io", "ray", workload("u", None, &["head:1"]));
    assert_eq!(stage.counting(), ["RayCluster.ray.io/ray: head:1"]);
}

#[test]
fn whoever_refers_to_a_template_follows_it() {
    let mut stage = Stage::complete(&["Rollout.argoproj.io"]);
    let rollout = Workload { template_of: Some(key("Deployment", "web")), ..workload("u", None, &[]) };
    stage.set("Rollout.argoproj.io", "web", rollout);
    assert_eq!(stage.counting(), ["Rollout.argoproj.io/web: "]);
    stage.set("Deployment", "web", workload("d", None, &["web:1"]));
    stage.set("Deployment", "web", workload("d", None, &["web:2"]));
    assert_eq!(stage.counting(), ["Deployment/web: web:2", "Rollout.argoproj.io/web: web:2"]);
    stage.remove("Deployment", "web");
    assert_eq!(stage.counting(), ["Rollout.argoproj.io/web: "]);
}

#[test]
fn an_object_that_cannot_be_read_keeps_what_it_was_and_says_what_is_wrong() {
    let mut stage = Stage::complete(&[]);
    stage.set("Deployment", "web", workload("d", None, &["web:1"]));
    let broken = Change::Upsert(key("Deployment", "web"), Err("broken".to_owned()));
    let changes = stage.family.change(broken, NOW);
    stage.take(changes);
    assert_eq!(stage.counting(), ["Deployment/web: web:1"]);
    assert_eq!(stage.known.invalid().next(), Some((&key("Deployment", "web"), "broken")));
    stage.set("Deployment", "web", workload("d", None, &["web:2"]));
    assert_eq!((stage.counting(), stage.known.invalid().next()), (vec!["Deployment/web: web:2".to_owned()], None));
}
