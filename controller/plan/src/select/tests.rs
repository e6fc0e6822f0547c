//! What is wanted of which workloads.

use rstest::rstest;

use super::*;
use crate::demand::{Demand, demand};
use crate::fact::Change;
use crate::input::selection::{self, Mode};
use crate::input::{ContainerImage, Namespace, Selection, Workload, WorkloadKey, WorkloadKind};
use crate::known::Known;

fn workload(images: &[&str]) -> Workload {
    let image = |(at, text): (usize, &&str)| ContainerImage {
        position: format!("containers[{at}] \"app\""),
        image: (*text).to_owned(),
    };
    Workload { images: images.iter().enumerate().map(image).collect(), ..Workload::default() }
}

fn key(name: &str) -> WorkloadKey {
    WorkloadKey { kind: WorkloadKind::Deployment, namespace: "shop".to_owned(), name: name.to_owned() }
}

fn known<const N: usize>(workloads: [(&str, Workload); N]) -> Known<WorkloadKey, Reading> {
    let mut known = Known::new();
    for (name, workload) in workloads {
        known.change(Change::Upsert(key(name), Ok(read(&workload))));
    }
    known
}

fn demanded<'a>(
    selection: &Selection,
    namespaces: &Known<String, Namespace>,
    workloads: &'a Known<WorkloadKey, Reading>,
) -> Demand<'a> {
    demand(&Rules::of(selection.clone()), namespaces, workloads)
}

fn namespaces(name: &str, warm: Option<&str>) -> Known<String, Namespace> {
    let mut known = Known::new();
    let warm = warm.map(ToOwned::to_owned);
    known.change(Change::Upsert(name.to_owned(), Ok(Namespace { uid: "u".to_owned(), warm, ..Namespace::default() })));
    known
}

#[rstest]
#[case(Mode::OptOut, [None, None, None], true)]
#[case(Mode::OptOut, [Some("false"), None, None], false)]
#[case(Mode::OptOut, [None, Some("false"), None], false)]
#[case(Mode::OptOut, [None, None, Some("false")], false)]
#[case(Mode::OptOut, [Some("true"), None, Some("false")], false)]
#[case(Mode::OptOut, [Some("no"), None, None], true)]
#[case(Mode::OptIn, [None, None, None], false)]
#[case(Mode::OptIn, [Some("true"), None, None], true)]
#[case(Mode::OptIn, [None, Some("true"), None], true)]
#[case(Mode::OptIn, [None, None, Some("true")], true)]
#[case(Mode::OptIn, [Some("false"), None, Some("true")], false)]
#[case(Mode::OptIn, [Some("yes"), None, None], false)]
fn the_annotation_opts_out_or_in(#[case] mode: Mode, #[case] words: [Option<&str>; 3], #[case] wanted: bool) {
    let [warm, template_warm, of_namespace] = words.map(|w| w.map(ToOwned::to_owned));
    let workloads = known([("web", Workload { warm, template_warm, ..workload(&["nginx"]) })]);
    let selection = Selection { mode, ..Selection::default() };
    let demand = demanded(&selection, &namespaces("shop", of_namespace.as_deref()), &workloads);
    assert_eq!(demand.workloads == 1, wanted);
}

#[rstest]
#[case(&["*"], &[], true)]
#[case(&["shop"], &[], true)]
#[case(&["sh?p"], &[], true)]
#[case(&["*op"], &[], true)]
#[case(&["shop-*"], &[], false)]
#[case(&[], &[], false)]
#[case(&["*"], &["shop"], false)]
#[case(&["shop"], &["s*"], false)]
fn a_namespace_is_included_unless_it_is_excluded(
    #[case] include: &[&str],
    #[case] exclude: &[&str],
    #[case] wanted: bool,
) {
    let words = |list: &[&str]| list.iter().map(ToString::to_string).collect();
    let globs = selection::Namespaces { include: words(include), exclude: words(exclude) };
    let selection = Selection { namespaces: globs, ..Selection::default() };
    let workloads = known([("web", workload(&["nginx"]))]);
    assert_eq!(demanded(&selection, &namespaces("shop", None), &workloads).workloads == 1, wanted);
}

#[rstest]
#[case(None, None, 0)]
#[case(Some("0"), Some(0), 0)]
#[case(Some("100"), Some(100), 0)]
#[case(Some("101"), None, 1)]
#[case(Some("-1"), None, 1)]
#[case(Some("high"), None, 1)]
fn a_bad_priority_is_named_and_counts_for_none(
    #[case] text: Option<&str>,
    #[case] priority: Option<u8>,
    #[case] problems: usize,
) {
    let reading = read(&Workload { priority: text.map(ToOwned::to_owned), ..workload(&["nginx"]) });
    assert_eq!((reading.priority, reading.problems().len()), (priority, problems));
}

#[test]
fn a_malformed_reference_spoils_only_itself() {
    let reading = read(&workload(&["nginx", "Bad//Ref", "redis"]));
    assert_eq!(reading.images().count(), 2);
    assert!(reading.problems()[0].starts_with("containers[1] \"app\": "), "{:?}", reading.problems());
}
