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

    /// What cannot be used of it, with its position.
    pub(crate) fn problems(&self) -> &[String] {
        &self.problems
    }

    /// Its images, with their canonical references.
    pub(crate) fn images(&self) -> impl Iterator<Item = (&ImageKey, &str)> {
        self.images.iter().map(|(id, image)| (id, image.image.as_str()))
    }
}

/// An image as a workload names it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ReadImage {
    /// Canonical pull reference.
    pub(crate) image: String,
    /// Written without a registry host.
    pub(crate) unqualified: bool,
    /// The digest that the reference names.
    pub(crate) digest: Option<Digest>,
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

/// What a wanted workload asks for.
#[derive(Debug)]
pub(crate) struct Claim<'a> {
    /// How urgent its images are.
    pub(crate) priority: u8,
    /// Its images that are wanted, each once.
    pub(crate) images: Vec<(&'a ImageKey, &'a ReadImage)>,
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
pub(crate) type OfNamespace<'a> = Result<(&'a str, Option<bool>), Exclusion<'a>>;

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

    /// What one workload asks for, in a namespace that says this; `None` if nothing of it is wanted.
    pub(crate) fn claim<'r>(&self, of_namespace: OfNamespace<'a>, reading: &'r Reading) -> Option<Claim<'r>> {
        self.workload(of_namespace, reading).ok()?;
        Some(Claim { priority: reading.priority, images: reading.images.iter().collect() })
    }

    /// What its namespace says of the workloads in it; one that is not known yet may opt out.
    pub(crate) fn of_namespace(&self, namespaces: &Known<String, Namespace>, name: &str) -> OfNamespace<'a> {
        let namespace = namespaces.get(name).ok_or(Exclusion::UnknownNamespace)?;
        self.namespace(name, namespace)
    }

    /// Why the images of one workload are wanted, or why not.
    pub(crate) fn judge(
        &self,
        namespaces: &Known<String, Namespace>,
        key: &WorkloadKey,
        reading: &Reading,
    ) -> Result<Inclusion<'a>, Exclusion<'a>> {
        self.workload(self.of_namespace(namespaces, &key.namespace), reading)
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::demand::demand;
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
    fn a_malformed_reference_spoils_only_itself() {
        let reading = read(&workload(&["nginx", "Bad//Ref", "redis"]));
        assert_eq!(reading.images.len(), 2);
        assert!(reading.problems[0].starts_with("containers[1] \"app\": "), "{:?}", reading.problems);
    }
}
