//! Which images are wanted, and under which constraint.
//!
//! Owns namespaces by list, opt-outs, priorities, and what a malformed part of a workload does: it spoils only itself
//! and is named. Never looks at nodes.

use std::collections::BTreeMap;
use std::fmt;

use shared::image::{Digest, Reference};
use shared::message::intent::DEFAULT_PRIORITY;
use shared::name::{ImageKey, PoolId};
use wildmatch::WildMatch;

use crate::input::selection::{Mode, Namespaces};
use crate::input::{Constraint, Namespace, Selection, Workload, WorkloadKey};
use crate::known::Known;
use crate::pool;

const MAX_PRIORITY: u8 = 100;

/// What one version of a workload says, read once.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Reading {
    /// UID of the object.
    uid: String,
    /// Its images, each once.
    images: BTreeMap<ImageKey, ReadImage>,
    priority: u8,
    /// Normalised.
    constraint: Constraint,
    pool: PoolId,
    /// Its own annotation and that of its template.
    warm: [Option<String>; 2],
    /// What cannot be used, with its position.
    problems: Vec<String>,
}

impl Reading {
    /// Canonical reference of an image, if the workload names it.
    pub(crate) fn names(&self, id: &ImageKey) -> Option<&str> {
        self.images.get(id).map(|image| image.image.as_str())
    }

    /// UID of the object.
    pub(crate) fn uid(&self) -> &str {
        &self.uid
    }

    /// Normalised.
    pub(crate) fn constraint(&self) -> &Constraint {
        &self.constraint
    }

    /// The pool of its constraint, which no longer is one if all that is wanted there is wanted everywhere.
    pub(crate) fn pool(&self) -> &PoolId {
        &self.pool
    }

    /// Its images, with their canonical references.
    pub(crate) fn images(&self) -> impl Iterator<Item = (&ImageKey, &str)> {
        self.images.iter().map(|(id, image)| (id, image.image.as_str()))
    }
}

#[derive(Debug, Clone, PartialEq)]
struct ReadImage {
    image: String,
    unqualified: bool,
    digest: Option<Digest>,
}

/// Reads a workload.
pub(crate) fn read(workload: &Workload) -> Reading {
    let mut images: BTreeMap<ImageKey, ReadImage> = BTreeMap::new();
    let mut problems = Vec::new();
    for container in &workload.images {
        match Reference::parse(&container.image) {
            Ok(reference) => {
                let unqualified = Reference::is_unqualified(&container.image);
                images.entry(reference.key()).and_modify(|i| i.unqualified |= unqualified).or_insert_with(|| {
                    ReadImage { image: reference.canonical(), unqualified, digest: reference.digest().cloned() }
                });
            }
            Err(error) => problems.push(format!("{}: {error}", container.position)),
        }
    }
    let priority = workload.priority.as_deref().map_or(Ok(DEFAULT_PRIORITY), |text| {
        let number = text.parse::<u8>().ok().filter(|p| *p <= MAX_PRIORITY);
        number.ok_or_else(|| {
            let key = shared::label::PRIORITY_ANNOTATION;
            format!("annotation {key}: `{text}` is not a whole number from 0 to {MAX_PRIORITY}")
        })
    });
    let warm = [workload.warm.clone(), workload.template_warm.clone()];
    problems.extend(warm.iter().flatten().filter(|text| word(text).is_none()).map(|text| bad_word(text)));
    let constraint = pool::normalise(&workload.constraint);
    Reading {
        uid: workload.uid.clone(),
        images,
        priority: priority.unwrap_or_else(|problem| {
            problems.push(problem);
            DEFAULT_PRIORITY
        }),
        pool: pool::id_of(&constraint),
        constraint,
        warm,
        problems,
    }
}

fn word(text: &str) -> Option<bool> {
    match text {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

/// What is said of an annotation that is neither of the two words, and therefore ignored.
pub(crate) fn bad_word(text: &str) -> String {
    format!("annotation {}: `{text}` is neither `true` nor `false`; it is ignored", shared::label::WARM_ANNOTATION)
}

/// Whether a namespace's annotation is one of the two words, if it is there.
pub(crate) fn bad_namespace(namespace: &Namespace) -> Option<String> {
    namespace.warm.as_deref().filter(|text| word(text).is_none()).map(bad_word)
}

/// All that is wanted.
#[derive(Debug, Default)]
pub(crate) struct Demand<'a> {
    /// By pool.
    pub(crate) pools: BTreeMap<PoolId, DemandPool<'a>>,
    /// How many workloads are wanted.
    pub(crate) workloads: usize,
    /// What cannot be used of those.
    pub(crate) problems: BTreeMap<WorkloadKey, Vec<String>>,
}

/// What is wanted under one constraint.
#[derive(Debug)]
pub(crate) struct DemandPool<'a> {
    /// Normalised.
    pub(crate) constraint: &'a Constraint,
    /// How many workloads have it: the rarest are the first beyond a limit.
    pub(crate) workloads: usize,
    /// The images.
    pub(crate) wants: BTreeMap<ImageKey, Want<'a>>,
}

/// One wanted image.
#[derive(Debug, Clone)]
pub(crate) struct Want<'a> {
    image: &'a ReadImage,
    /// The highest of its owners.
    pub(crate) priority: u8,
    /// Whether any owner wrote it without a registry host.
    pub(crate) unqualified: bool,
    /// Who wants it.
    pub(crate) owners: Vec<&'a WorkloadKey>,
}

impl<'a> Want<'a> {
    /// Canonical pull reference.
    pub(crate) fn image(&self) -> &'a str {
        &self.image.image
    }

    /// The digest that the reference names.
    pub(crate) fn digest(&self) -> Option<&'a Digest> {
        self.image.digest.as_ref()
    }

    /// Takes the owners of the same image from another constraint.
    pub(crate) fn join(&mut self, other: &Self) {
        self.priority = self.priority.max(other.priority);
        self.unqualified |= other.unqualified;
        self.owners.extend(&other.owners);
    }
}

/// Adds wants to others.
pub(crate) fn join<'a>(into: &mut BTreeMap<ImageKey, Want<'a>>, wants: &BTreeMap<ImageKey, Want<'a>>) {
    for (id, want) in wants {
        into.entry(id.clone()).and_modify(|w| w.join(want)).or_insert_with(|| want.clone());
    }
}

/// Whose annotation it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Voice {
    /// The workload's.
    Workload,
    /// That of its pod template.
    Template,
    /// The namespace's.
    Namespace,
}

/// Why the images of a workload are wanted. Printed as a sentence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Inclusion<'a> {
    pattern: &'a str,
    opted_in: Option<Voice>,
}

/// Why the images of a workload are not wanted. Printed as a sentence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exclusion<'a> {
    /// Its namespace is not known yet, and may opt out.
    UnknownNamespace,
    /// No pattern includes its namespace.
    NotIncluded,
    /// This pattern excludes its namespace.
    Excluded(&'a str),
    /// An annotation says no.
    OptedOut(Voice),
    /// No annotation says yes, and one must.
    NotOptedIn,
}

impl fmt::Display for Voice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Workload => "the workload",
            Self::Template => "its pod template",
            Self::Namespace => "its namespace",
        })
    }
}

impl fmt::Display for Inclusion<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "its namespace is included by `{}`", self.pattern)?;
        match self.opted_in {
            Some(voice) => write!(f, " and {voice} opts in ({}: \"true\")", shared::label::WARM_ANNOTATION),
            None => f.write_str(" and nothing opts out"),
        }
    }
}

impl fmt::Display for Exclusion<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let annotation = shared::label::WARM_ANNOTATION;
        match self {
            Self::UnknownNamespace => f.write_str("its namespace is not known yet"),
            Self::NotIncluded => f.write_str("its namespace is included by no pattern of select.namespaces.include"),
            Self::Excluded(pattern) => {
                write!(f, "its namespace is excluded by `{pattern}` of select.namespaces.exclude")
            }
            Self::OptedOut(voice) => write!(f, "{voice} opts out ({annotation}: \"false\")"),
            Self::NotOptedIn => write!(f, "select.mode is optIn and nothing opts in ({annotation}: \"true\")"),
        }
    }
}

/// What a namespace says of the workloads in it: the pattern that includes it, and its annotation.
type OfNamespace<'a> = Result<(&'a str, Option<bool>), Exclusion<'a>>;

/// The configuration, ready to judge.
pub(crate) struct Rules<'a> {
    include: Vec<(WildMatch, &'a str)>,
    exclude: Vec<(WildMatch, &'a str)>,
    mode: Mode,
}

impl<'a> Rules<'a> {
    pub(crate) fn of(selection: &'a Selection) -> Self {
        let globs = |list: &'a [String]| list.iter().map(|g| (WildMatch::new(g), g.as_str())).collect();
        let Namespaces { include, exclude } = &selection.namespaces;
        Self { include: globs(include), exclude: globs(exclude), mode: selection.mode }
    }

    fn namespace(&self, name: &str, namespace: &Namespace) -> OfNamespace<'a> {
        let find = |globs: &[(WildMatch, &'a str)]| globs.iter().find(|(g, _)| g.matches(name)).map(|(_, text)| *text);
        if let Some(pattern) = find(&self.exclude) {
            return Err(Exclusion::Excluded(pattern));
        }
        let pattern = find(&self.include).ok_or(Exclusion::NotIncluded)?;
        Ok((pattern, namespace.warm.as_deref().and_then(word)))
    }

    /// Whoever says no wins over whoever says yes.
    fn workload(&self, of_namespace: OfNamespace<'a>, reading: &Reading) -> Result<Inclusion<'a>, Exclusion<'a>> {
        let (pattern, of_namespace) = of_namespace?;
        let [of_workload, of_template] = &reading.warm;
        let of = |text: &Option<String>| text.as_deref().and_then(word);
        let voices =
            [(Voice::Workload, of(of_workload)), (Voice::Template, of(of_template)), (Voice::Namespace, of_namespace)];
        let says = |what: bool| voices.iter().find(|(_, said)| *said == Some(what)).map(|(voice, _)| *voice);
        if let Some(voice) = says(false) {
            return Err(Exclusion::OptedOut(voice));
        }
        let opted_in = says(true);
        if self.mode == Mode::OptIn && opted_in.is_none() {
            return Err(Exclusion::NotOptedIn);
        }
        Ok(Inclusion { pattern, opted_in })
    }

    /// Why the images of one workload are wanted, or why not.
    pub(crate) fn judge(
        &self,
        namespaces: &Known<String, Namespace>,
        key: &WorkloadKey,
        reading: &Reading,
    ) -> Result<Inclusion<'a>, Exclusion<'a>> {
        let namespace = namespaces.get(&key.namespace).ok_or(Exclusion::UnknownNamespace)?;
        self.workload(self.namespace(&key.namespace, namespace), reading)
    }
}

/// What is wanted by all workloads. A workload whose namespace is not known yet waits for it, because the namespace
/// may opt out.
pub(crate) fn demand<'a>(
    selection: &Selection,
    namespaces: &Known<String, Namespace>,
    workloads: &'a Known<WorkloadKey, Reading>,
) -> Demand<'a> {
    let rules = Rules::of(selection);
    let judged: BTreeMap<&str, OfNamespace<'_>> =
        namespaces.good().map(|(name, namespace)| (name.as_str(), rules.namespace(name, namespace))).collect();
    let mut demand = Demand::default();
    for (key, reading) in workloads.good() {
        let of_namespace = judged.get(key.namespace.as_str()).copied().unwrap_or(Err(Exclusion::UnknownNamespace));
        if rules.workload(of_namespace, reading).is_err() {
            continue;
        }
        demand.workloads += 1;
        if !reading.problems.is_empty() {
            demand.problems.insert(key.clone(), reading.problems.clone());
        }
        if !reading.images.is_empty() {
            add(&mut demand.pools, key, reading);
        }
    }
    subsume(&mut demand.pools);
    demand
}

fn add<'a>(pools: &mut BTreeMap<PoolId, DemandPool<'a>>, key: &'a WorkloadKey, reading: &'a Reading) {
    if !pools.contains_key(&reading.pool) {
        let empty = DemandPool { constraint: &reading.constraint, workloads: 0, wants: BTreeMap::new() };
        pools.insert(reading.pool.clone(), empty);
    }
    let Some(pool) = pools.get_mut(&reading.pool) else {
        return;
    };
    pool.workloads += 1;
    for (id, image) in &reading.images {
        if let Some(want) = pool.wants.get_mut(id) {
            want.priority = want.priority.max(reading.priority);
            want.unqualified |= image.unqualified;
            want.owners.push(key);
        } else {
            let (priority, unqualified) = (reading.priority, image.unqualified);
            pool.wants.insert(id.clone(), Want { image, priority, unqualified, owners: vec![key] });
        }
    }
}

/// An image that is wanted in `all` is not asked for again in a pool whose nodes all belong to `all`.
fn subsume(pools: &mut BTreeMap<PoolId, DemandPool<'_>>) {
    let Some(mut all) = pools.remove(&PoolId::all()) else {
        return;
    };
    pools.retain(|_, pool| {
        if !pool::is_part_of_all(pool.constraint) {
            return true;
        }
        pool.wants.retain(|id, want| match all.wants.get_mut(id) {
            Some(in_all) => {
                in_all.join(want);
                false
            }
            None => true,
        });
        !pool.wants.is_empty()
    });
    pools.insert(PoolId::all(), all);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rstest::rstest;

    use super::*;
    use crate::fact::Change;
    use crate::input::{ContainerImage, WorkloadKind, selection};

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

    fn namespaces(name: &str, warm: Option<&str>) -> Known<String, Namespace> {
        let mut known = Known::new();
        let warm = warm.map(ToOwned::to_owned);
        known.change(Change::Upsert(name.to_owned(), Ok(Namespace { uid: "u".to_owned(), warm })));
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
        let demand = demand(&selection, &namespaces("shop", of_namespace.as_deref()), &workloads);
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
        assert_eq!(demand(&selection, &namespaces("shop", None), &workloads).workloads == 1, wanted);
    }

    #[rstest]
    #[case(None, 50, 0)]
    #[case(Some("0"), 0, 0)]
    #[case(Some("100"), 100, 0)]
    #[case(Some("101"), 50, 1)]
    #[case(Some("-1"), 50, 1)]
    #[case(Some("high"), 50, 1)]
    fn a_bad_priority_is_named_and_the_default_holds(
        #[case] text: Option<&str>,
        #[case] priority: u8,
        #[case] problems: usize,
    ) {
        let reading = read(&Workload { priority: text.map(ToOwned::to_owned), ..workload(&["nginx"]) });
        assert_eq!((reading.priority, reading.problems.len()), (priority, problems));
    }

    #[test]
    fn one_image_in_many_spellings_is_one_intent_that_is_unqualified_if_any_is() {
        let workloads = known([
            ("a", Workload { priority: Some("10".to_owned()), ..workload(&["docker.io/library/nginx:latest"]) }),
            ("b", Workload { priority: Some("70".to_owned()), ..workload(&["nginx", "docker.io/nginx"]) }),
        ]);
        let demand = demand(&Selection::default(), &namespaces("shop", None), &workloads);
        let wants = &demand.pools[&PoolId::all()].wants;
        let want = wants.values().next().unwrap();
        assert_eq!((wants.len(), want.priority, want.unqualified, want.owners.len()), (1, 70, true, 2));
        assert_eq!(want.image(), "docker.io/library/nginx:latest");
    }

    #[test]
    fn a_malformed_reference_spoils_only_itself() {
        let reading = read(&workload(&["nginx", "Bad//Ref", "redis"]));
        assert_eq!(reading.images.len(), 2);
        assert!(reading.problems[0].starts_with("containers[1] \"app\": "), "{:?}", reading.problems);
    }

    #[test]
    fn in_all_means_only_in_all_where_that_is_sound() {
        let selecting = Constraint {
            node_selector: BTreeMap::from([("disk".to_owned(), "ssd".to_owned())]),
            ..Constraint::default()
        };
        let named = Constraint { node_name: Some("n1".to_owned()), ..Constraint::default() };
        let workloads = known([
            ("all", workload(&["nginx"])),
            ("ssd", Workload { constraint: selecting, ..workload(&["nginx", "redis"]) }),
            ("pod", Workload { constraint: named, ..workload(&["nginx"]) }),
        ]);
        let demand = demand(&Selection::default(), &namespaces("shop", None), &workloads);
        let sizes: Vec<usize> = demand.pools.values().map(|p| p.wants.len()).collect();
        assert_eq!(sizes, [1, 1, 1], "{:?}", demand.pools.keys());
        let want = demand.pools[&PoolId::all()].wants.values().next().unwrap();
        assert_eq!(want.owners.len(), 2);
    }
}
