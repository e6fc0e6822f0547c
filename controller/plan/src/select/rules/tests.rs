//! Every condition of a rule, and which rule decides.

use std::collections::BTreeMap;

use proptest::prelude::*;
use rstest::rstest;
use serde_json::{Value, json};

use super::*;
use crate::fact::Change;
use crate::input::{ContainerImage, Workload, WorkloadKind};
use crate::select::read;

const IMAGE: &str = "quay.io/team/app:1.2";

fn selection(select: Value) -> Selection {
    serde_json::from_value(select).unwrap()
}

fn namespaces(labels: &[(&str, &str)]) -> Known<String, Namespace> {
    let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let mut known = Known::new();
    known.change(Change::Upsert("shop".to_owned(), Ok(Namespace { labels, ..Namespace::default() })));
    known
}

fn workload(images: &[&str]) -> Workload {
    let image = |text: &&str| ContainerImage { position: "containers[0]".to_owned(), image: (*text).to_owned() };
    Workload { images: images.iter().map(image).collect(), ..Workload::default() }
}

fn key() -> WorkloadKey {
    WorkloadKey { kind: WorkloadKind::Deployment, namespace: "shop".to_owned(), name: "web".to_owned() }
}

/// What is said of an image of a workload: that it is wanted and with which priority, or that it is not.
fn said(
    select: Value,
    namespaces: &Known<String, Namespace>,
    workload: &Workload,
    image: &str,
) -> Result<(String, u8), String> {
    let rules = Rules::of(selection(select));
    let mut reading = read(workload);
    rules.test(&key(), &mut reading);
    let of_namespace = rules.of_namespace(namespaces, "shop");
    let id = shared::image::Reference::parse(image).unwrap().key();
    match of_namespace.image(&reading, &id).unwrap() {
        Ok(inclusion) => Ok((format!("{inclusion}; {}", inclusion.priority_from), inclusion.priority)),
        Err(exclusion) => Err(exclusion.to_string()),
    }
}

fn is_excluded(rule: &Value, namespaces: &Known<String, Namespace>, workload: &Workload) -> bool {
    let excluded = said(json!({ "exclude": [rule] }), namespaces, workload, IMAGE).is_err();
    let included = said(json!({ "include": [rule] }), namespaces, workload, IMAGE).is_ok();
    let (_, priority) = said(json!({ "priorities": [{ "priority": 7 }] }), namespaces, workload, IMAGE).unwrap();
    assert_eq!(priority, 7, "a rule without conditions matches everything");
    assert_eq!(excluded, included, "a rule means the same in both lists: {rule}");
    excluded
}

#[rstest]
#[case::glob(json!({ "glob": "quay.io/*" }), true)]
#[case::glob_is_of_all(json!({ "glob": "quay.io/team" }), false)]
#[case::glob_crosses_slashes(json!({ "glob": "*:1.?" }), true)]
#[case::contains(json!({ "contains": "/team/" }), true)]
#[case::contains_not(json!({ "contains": "Team" }), false)]
#[case::regex(json!({ "regex": ":1\\.[0-9]+$" }), true)]
#[case::regex_anywhere(json!({ "regex": "team" }), true)]
#[case::regex_not(json!({ "regex": "^team" }), false)]
#[case::regex_ascii_classes(json!({ "regex": "^quay\\.io/\\w+/.*:\\d" }), true)]
#[case::registry(json!({ "registry": "quay.io" }), true)]
#[case::registry_glob(json!({ "registry": "*.io" }), true)]
#[case::registry_is_the_host_alone(json!({ "registry": "quay.io/team" }), false)]
#[case::all_that_is_given(json!({ "registry": "quay.io", "contains": ":1.2" }), true)]
#[case::not_one_of_two(json!({ "registry": "quay.io", "contains": ":1.3" }), false)]
fn an_image_is_matched_by(#[case] image: Value, #[case] expected: bool) {
    let rule = json!({ "images": [{ "glob": "nothing" }, image] });
    assert_eq!(is_excluded(&rule, &namespaces(&[]), &workload(&[IMAGE])), expected);
}

#[rstest]
#[case::namespace(json!({ "namespaces": ["other", "sh*"] }), true)]
#[case::other_namespace(json!({ "namespaces": ["other"] }), false)]
#[case::namespace_labels(json!({ "namespaceSelector": { "matchLabels": { "env": "test" } } }), true)]
#[case::other_namespace_labels(json!({ "namespaceSelector": { "matchLabels": { "env": "prod" } } }), false)]
#[case::kind(json!({ "kinds": ["Pod", "Deployment"] }), true)]
#[case::other_kind(json!({ "kinds": ["StatefulSet"] }), false)]
#[case::labels(json!({ "objectSelector": { "matchExpressions": [{ "key": "tier", "operator": "Exists" }] } }), true)]
#[case::other_labels(json!({ "objectSelector": { "matchLabels": { "tier": "back" } } }), false)]
#[case::expression(json!({ "expression": "yes" }), true)]
#[case::other_expression(json!({ "expression": "no" }), false)]
#[case::expression_that_fails(json!({ "expression": "bad" }), false)]
#[case::expression_without_result(json!({ "expression": "new" }), false)]
#[case::everything(json!({ "namespaces": ["shop"], "kinds": ["Deployment"], "expression": "yes",
    "namespaceSelector": {}, "objectSelector": { "matchLabels": { "tier": "front" } }, "images": [{ "contains": "app" }] }), true)]
#[case::everything_but_one(json!({ "namespaces": ["shop"], "kinds": ["Deployment"], "expression": "no",
    "images": [{ "contains": "app" }] }), false)]
fn a_workload_is_matched_by(#[case] rule: Value, #[case] expected: bool) {
    let mut workload = workload(&[IMAGE]);
    workload.labels = BTreeMap::from([("tier".to_owned(), "front".to_owned())]);
    workload.expressions =
        [("yes".into(), Ok(true)), ("no".into(), Ok(false)), ("bad".into(), Err("no such key".to_owned()))].into();
    assert_eq!(is_excluded(&rule, &namespaces(&[("env", "test")]), &workload), expected);
}

#[test]
fn only_the_image_that_is_meant_is_excluded() {
    let rule = json!({ "exclude": [{ "name": "no-debug", "images": [{ "contains": "debug" }] }] });
    let workload = workload(&[IMAGE, "quay.io/team/debug:1"]);
    let said = |image| said(rule.clone(), &namespaces(&[]), &workload, image);
    assert!(said(IMAGE).is_ok());
    let why = said("quay.io/team/debug:1").unwrap_err();
    assert_eq!(why, "the image is excluded by select.exclude[0] \"no-debug\"");
}

#[rstest]
#[case::no_rule(json!({ "include": [{ "kinds": ["Pod"] }] }), Err("no rule of select.include matches it"))]
#[case::any_rule(
    json!({ "include": [{ "kinds": ["Pod"] }, { "name": "apps", "images": [{ "contains": "app" }] }] }),
    Ok("its namespace is included by `*`, the image by select.include[1] \"apps\" and nothing opts out; default")
)]
#[case::exclude_wins(
    json!({ "include": [{ "kinds": ["Deployment"] }], "exclude": [{ "namespaces": ["shop"] }] }),
    Err("the workload is excluded by select.exclude[0]")
)]
#[case::first_priority(
    json!({ "priorities": [{ "kinds": ["Pod"], "priority": 1 }, { "images": [{ "contains": "app" }], "priority": 2 }, { "priority": 3 }] }),
    Ok("its namespace is included by `*` and nothing opts out; select.priorities[1]")
)]
fn the_deciding_rule_is_named(#[case] select: Value, #[case] expected: Result<&str, &str>) {
    let said = said(select, &namespaces(&[]), &workload(&[IMAGE]), IMAGE);
    assert_eq!(said.map(|(text, _)| text), expected.map(ToOwned::to_owned).map_err(ToOwned::to_owned));
}

#[test]
fn the_annotation_wins_over_the_rules_for_priority() {
    let select = json!({ "priorities": [{ "priority": 90 }] });
    let of = |annotation: Option<&str>| {
        let workload = Workload { priority: annotation.map(ToOwned::to_owned), ..workload(&[IMAGE]) };
        let (text, priority) = said(select.clone(), &namespaces(&[]), &workload, IMAGE).unwrap();
        (text.rsplit("; ").next().unwrap().to_owned(), priority)
    };
    assert_eq!(of(Some("10")), ("annotation warm-images.dev/priority".to_owned(), 10));
    assert_eq!(of(Some("high")), ("select.priorities[0]".to_owned(), 90));
    assert_eq!(of(None), ("select.priorities[0]".to_owned(), 90));
}

#[rstest]
#[case::matters(json!({ "expression": "bad" }), 1)]
#[case::another_kind(json!({ "kinds": ["Pod"], "expression": "bad" }), 0)]
#[case::another_namespace(json!({ "namespaces": ["other"], "expression": "bad" }), 0)]
fn an_expression_that_fails_is_told_where_it_matters(#[case] rule: Value, #[case] problems: usize) {
    let mut workload = workload(&[IMAGE]);
    workload.expressions = [("bad".into(), Err("no such key: x".to_owned()))].into();
    let rules = Rules::of(selection(json!({ "exclude": [{ "kinds": ["StatefulSet"] }, rule] })));
    let mut reading = read(&workload);
    rules.test(&key(), &mut reading);
    let namespaces = namespaces(&[]);
    let of_namespace = rules.of_namespace(&namespaces, "shop");
    let failures = of_namespace.claim(&reading).problems;
    assert_eq!(failures.len(), problems);
    assert!(failures.iter().all(|text| text == "select.exclude[1]: expression: no such key: x"), "{failures:?}");
    assert!(of_namespace.workload(&reading).is_ok(), "one that fails does not match");
}

fn rule() -> impl Strategy<Value = Rule> {
    let image = prop_oneof![
        Just(ImageMatch { contains: Some("app".to_owned()), ..ImageMatch::default() }),
        Just(ImageMatch { registry: Some("docker.io".to_owned()), ..ImageMatch::default() }),
        Just(ImageMatch { glob: Some("*:1".to_owned()), ..ImageMatch::default() }),
    ];
    let words = |words: &'static [&'static str]| {
        prop::collection::vec(prop::sample::select(words).prop_map(ToOwned::to_owned), 0..2)
    };
    let expression =
        prop::option::weighted(0.3, prop::sample::select(&["yes", "no", "bad"][..]).prop_map(ToOwned::to_owned));
    (
        words(&["shop", "ot*"]),
        words(&["Pod", "Deployment"]),
        prop::collection::vec(image, 0..2),
        expression,
        any::<u8>(),
    )
        .prop_map(|(namespaces, kinds, images, expression, priority)| Rule {
            namespaces,
            kinds,
            images,
            expression,
            priority: Some(priority % 101),
            ..Rule::default()
        })
}

fn a_workload() -> impl Strategy<Value = Workload> {
    let images = prop::sample::subsequence(&["app:1", "quay.io/app:2", "db:1"][..], 0..=3);
    (images, any::<bool>()).prop_map(|(images, fails)| {
        let mut workload = workload(&images);
        let bad = if fails { Err("fails".to_owned()) } else { Ok(true) };
        workload.expressions = [("yes".into(), Ok(true)), ("no".into(), Ok(false)), ("bad".into(), bad)].into();
        workload
    })
}

/// What is wanted, and with which priority.
fn wanted(selection: Selection, workload: &Workload) -> BTreeMap<String, u8> {
    let rules = Rules::of(selection);
    let mut reading = read(workload);
    rules.test(&key(), &mut reading);
    let namespaces = namespaces(&[]);
    let of_namespace = rules.of_namespace(&namespaces, "shop");
    let of = |(id, image): (&ImageKey, &ReadImage)| {
        let inclusion = of_namespace.image(&reading, id)?.ok()?;
        Some((image.image.clone(), inclusion.priority))
    };
    reading.images().filter_map(of).collect()
}

proptest! {
    #[test]
    fn exclude_always_wins(
        include in prop::collection::vec(rule(), 0..3), exclude in prop::collection::vec(rule(), 0..3), workload in a_workload()
    ) {
        let with = |include: &[Rule], exclude: &[Rule]| {
            wanted(Selection { include: include.to_vec(), exclude: exclude.to_vec(), ..Selection::default() }, &workload)
        };
        let without_include = with(&[], &exclude);
        for image in with(&include, &exclude).keys() {
            prop_assert!(without_include.contains_key(image), "what is excluded is brought back by nothing");
        }
        // Whatever a list of rules includes, the same list excludes.
        if !include.is_empty() {
            let (included, left) = (with(&include, &[]), with(&[], &include));
            prop_assert!(included.keys().all(|image| !left.contains_key(image)));
            prop_assert_eq!(included.len() + left.len(), with(&[], &[]).len());
        }
    }

    #[test]
    fn the_order_of_what_includes_and_excludes_does_not_matter(
        include in prop::collection::vec(rule(), 0..3), exclude in prop::collection::vec(rule(), 0..3), workload in a_workload()
    ) {
        let selection = Selection { include, exclude, ..Selection::default() };
        let mut turned = selection.clone();
        turned.include.reverse();
        turned.exclude.reverse();
        prop_assert_eq!(wanted(selection, &workload), wanted(turned, &workload));
    }

    #[test]
    fn the_first_rule_that_matches_gives_the_priority(priorities in prop::collection::vec(rule(), 0..4), workload in a_workload()) {
        let found = wanted(Selection { priorities: priorities.clone(), ..Selection::default() }, &workload);
        for (image, priority) in found {
            let alone = |rule: &Rule| {
                let only = Selection { include: vec![rule.clone()], ..Selection::default() };
                wanted(only, &workload).contains_key(&image)
            };
            let first = priorities.iter().find(|rule| alone(rule)).and_then(|rule| rule.priority);
            prop_assert_eq!(priority, first.unwrap_or(DEFAULT_PRIORITY));
        }
    }
}
