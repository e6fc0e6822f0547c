//! By which selection workloads are judged.
//!
//! Owns when a new one is taken into use: once every workload has been evaluated by its expressions. Judged before, a
//! workload could be let go of for a moment. What a selection means is [`crate::select`]'s.

use super::World;
use crate::input::{Selection, Workload, WorkloadKey};
use crate::select::{self, Reading, Rules};

impl World {
    /// Reads a workload and asks the rules what depends on nothing else.
    pub(super) fn read(&self, key: &WorkloadKey, workload: &Workload) -> Reading {
        let mut reading = select::read(workload);
        if let Some(rules) = &self.rules {
            rules.test(key, &mut reading);
        }
        reading
    }

    /// Takes the newest selection into use if it waits for nothing more; says whether another is in use then.
    pub(super) fn take_selection(&mut self) -> bool {
        if self.unevaluated() > 0 {
            return false;
        }
        let Some(selection) = self.next_selection.take() else { return false };
        if self.rules.as_ref().is_some_and(|rules| *rules.selection() == selection) {
            return false;
        }
        let rules = Rules::of(selection);
        for (key, reading) in self.workloads.good_mut() {
            rules.test(key, reading);
        }
        self.rules = Some(rules);
        self.stale.everything = true;
        true
    }

    /// How many workloads the newest selection still waits for. One whose newest content cannot be used will not be
    /// evaluated, and is not waited for.
    pub(super) fn unevaluated(&self) -> usize {
        let Some(next) = &self.next_selection else { return 0 };
        let expressions = next.expressions();
        if expressions.is_empty() {
            return 0;
        }
        self.workloads.valid().filter(|(_, reading)| !reading.is_named && !reading.knows(&expressions)).count()
    }

    /// By what is judged; nothing before the first selection. A newer one waits until every workload has been evaluated by
    /// its expressions.
    pub fn selection(&self) -> Option<&Selection> {
        self.rules.as_ref().map(Rules::selection)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;
    use shared::machine::{Moment, Now};

    use super::*;
    use crate::Settings;
    use crate::fact::{Change, Fact};
    use crate::input::{ContainerImage, Namespace, WorkloadKind};

    fn world() -> World {
        let now = Now { mono: Moment(0), wall: jiff::Timestamp::UNIX_EPOCH };
        let mut world = World::new(Settings::default(), "e".to_owned(), 1, now);
        for (name, team) in [("shop", "a"), ("lab", "b")] {
            let labels = [("team".to_owned(), team.to_owned())].into();
            let namespace = Namespace { labels, ..Namespace::default() };
            world.learn(Fact::Namespace(Change::Upsert(name.to_owned(), Ok(namespace))), Moment(0));
        }
        world
    }

    fn select(world: &mut World, select: serde_json::Value) -> bool {
        world.learn(Fact::Selection(serde_json::from_value(select).unwrap()), Moment(0))
    }

    fn key(name: &str) -> WorkloadKey {
        WorkloadKey { kind: WorkloadKind::Deployment, namespace: "shop".to_owned(), name: name.to_owned() }
    }

    fn workload(expressions: &[(&str, bool)]) -> Workload {
        let image = ContainerImage { position: "containers[0]".to_owned(), image: "nginx".to_owned() };
        let expressions = expressions.iter().map(|(text, said)| ((*text).to_owned(), Ok(*said))).collect();
        Workload { images: vec![image], expressions, ..Workload::default() }
    }

    fn learn(world: &mut World, name: &str, workload: Result<Workload, String>) {
        world.learn(Fact::Workload(Change::Upsert(key(name), workload)), Moment(0));
        // As each step does.
        world.take_selection();
        world.replan();
    }

    #[test]
    fn a_selection_waits_until_every_workload_has_been_evaluated_by_it() {
        let mut world = world();
        select(&mut world, json!({ "exclude": [{ "expression": "old" }] }));
        learn(&mut world, "web", Ok(workload(&[("old", false)])));
        learn(&mut world, "api", Ok(workload(&[("old", true)])));
        assert_eq!(world.plan.workloads, 1);
        assert!(!select(&mut world, json!({ "include": [{ "expression": "new" }] })));
        assert_eq!((world.unevaluated(), world.plan.workloads), (2, 1), "judged as before");
        learn(&mut world, "web", Ok(workload(&[("old", false), ("new", true)])));
        assert_eq!((world.unevaluated(), world.plan.workloads), (1, 1));
        learn(&mut world, "late", Ok(workload(&[("old", true), ("new", true)])));
        assert_eq!(world.plan.workloads, 1, "what appears meanwhile is judged as before");
        learn(&mut world, "api", Ok(workload(&[("old", true), ("new", true)])));
        assert_eq!((world.unevaluated(), world.plan.workloads), (0, 3));
        assert!(world.selection().is_some_and(|selection| selection.exclude.is_empty()));
    }

    #[test]
    fn one_that_cannot_be_read_is_not_waited_for_and_its_expression_fails() {
        let mut world = world();
        select(&mut world, json!({}));
        learn(&mut world, "web", Ok(workload(&[])));
        learn(&mut world, "web", Err("spec is missing".to_owned()));
        assert!(select(&mut world, json!({ "exclude": [{ "expression": "new" }] })));
        world.replan();
        assert_eq!(world.plan.workloads, 1, "it keeps its last good content, and nothing excludes it");
        let problems = world.plan.problems.get(&key("web")).cloned().unwrap_or_default();
        let said = "select.exclude[0]: expression: it was not evaluated, because the object cannot be read";
        assert_eq!(problems, [said]);
    }

    #[test]
    fn labels_of_a_namespace_count_at_once() {
        let mut world = world();
        select(&mut world, json!({ "include": [{ "namespaceSelector": { "matchLabels": { "team": "a" } } }] }));
        learn(&mut world, "web", Ok(workload(&[])));
        assert_eq!(world.plan.workloads, 1);
        world.learn(Fact::Namespace(Change::Upsert("shop".to_owned(), Ok(Namespace::default()))), Moment(0));
        world.replan();
        assert_eq!(world.plan.workloads, 0);
    }

    fn a_selection() -> impl Strategy<Value = serde_json::Value> {
        prop::sample::select(vec![
            json!({}),
            json!({ "mode": "optIn" }),
            json!({ "namespaces": { "include": ["shop"] } }),
            json!({ "include": [{ "namespaceSelector": { "matchLabels": { "team": "b" } } }] }),
            json!({ "exclude": [{ "objectSelector": { "matchLabels": { "n": "1" } } }] }),
            json!({ "exclude": [{ "images": [{ "contains": "a:1" }] }], "priorities": [{ "kinds": ["Pod"], "priority": 9 }] }),
            json!({ "include": [{ "expression": "yes" }], "priorities": [{ "expression": "no", "priority": 7 }, { "priority": 8 }] }),
        ])
    }

    fn a_workload() -> impl Strategy<Value = (WorkloadKey, Workload)> {
        (0_u8..4, any::<bool>(), any::<bool>(), prop::collection::vec(0_u8..3, 0..3)).prop_map(
            |(n, lab, yes, images)| {
                let image =
                    |n: u8| ContainerImage { position: "p".to_owned(), image: format!("registry.example/a:{n}") };
                let namespace = if lab { "lab" } else { "shop" }.to_owned();
                let workload = Workload {
                    images: images.into_iter().map(image).collect(),
                    labels: [("n".to_owned(), n.to_string())].into(),
                    ..workload(&[("yes", yes), ("no", !yes)])
                };
                (WorkloadKey { namespace, ..key(&format!("w{n}")) }, workload)
            },
        )
    }

    proptest! {
        #[test]
        fn a_reload_equals_a_fresh_start(
            before in a_selection(), after in a_selection(), workloads in prop::collection::vec(a_workload(), 0..8), at in 0_usize..8
        ) {
            let (mut reloaded, mut fresh) = (world(), world());
            select(&mut reloaded, before);
            select(&mut fresh, after.clone());
            for (number, (key, workload)) in workloads.into_iter().enumerate() {
                if number == at {
                    select(&mut reloaded, after.clone());
                }
                for world in [&mut reloaded, &mut fresh] {
                    world.learn(Fact::Workload(Change::Upsert(key.clone(), Ok(workload.clone()))), Moment(0));
                    world.replan();
                }
            }
            select(&mut reloaded, after);
            for world in [&mut reloaded, &mut fresh] {
                world.take_selection();
                world.replan();
            }
            prop_assert_eq!(&reloaded.plan, &fresh.plan);
        }
    }
}
