//! One version of a workload, read once.
//!
//! Owns what of it cannot be used, and which position that stands in.

use std::collections::BTreeMap;
use std::time::Duration;

use shared::image::{Digest, Reference};
use shared::message::intent::DEFAULT_PRIORITY;
use shared::name::{ImageKey, PoolId};

use crate::input::{Constraint, Namespace, Workload};
use crate::pool;

const MAX_PRIORITY: u8 = 100;
/// As the definition of sets has it: each refresh is a request to the registry from every node.
const LEAST_REFRESH: Duration = Duration::from_mins(1);

/// What one version of a workload says.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Reading {
    /// UID of the object.
    uid: String,
    /// Its images, each once.
    images: BTreeMap<ImageKey, ReadImage>,
    /// That of its annotation, if it is one.
    pub(super) priority: Option<u8>,
    /// Normalised.
    constraint: Constraint,
    pool: PoolId,
    /// Its own annotation and that of its template.
    pub(super) warm: [Option<bool>; 2],
    /// Its own labels.
    pub(super) labels: BTreeMap<String, String>,
    /// What CEL expressions say of the object.
    /// Names of secrets with credentials.
    secrets: Vec<String>,
    /// After so many seconds whoever holds one of its images is to pull it again.
    refresh_sec: Option<u64>,
    /// Nothing is to be pulled for it.
    is_suspended: bool,
    /// Somebody named the images by hand.
    pub(crate) is_named: bool,
    pub(super) expressions: BTreeMap<String, Result<bool, String>>,
    /// What cannot be used, with its position.
    problems: Vec<String>,
    /// What the rules say of it, its namespace and its images apart.
    pub(super) tested: Tested,
}

/// The rules, by their numbers, of which everything holds that is asked of the workload alone.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Tested {
    /// Sorted.
    pub(super) holds: Vec<usize>,
    /// Those that would have to be known but whose expression fails, with what is wrong.
    pub(super) failed: Vec<(usize, String)>,
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
    /// The rules, by their numbers, whose images it is one of. Sorted.
    pub(super) rules: Vec<usize>,
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

    /// What cannot be used of it, with the position.
    pub(crate) fn problems(&self) -> &[String] {
        &self.problems
    }

    /// More of it cannot be used.
    pub(crate) fn add_problems(&mut self, problems: Vec<String>) {
        self.problems.extend(problems);
    }

    /// How much its images are wanted, where it says so itself.
    pub(crate) fn priority(&self) -> u8 {
        self.priority.unwrap_or(DEFAULT_PRIORITY)
    }

    /// Secrets with credentials for its images, as `namespace/name`.
    pub(crate) fn secrets(&self) -> &[String] {
        &self.secrets
    }

    /// After how many seconds its images are to be pulled again: while nothing is to be pulled for it, never.
    pub(crate) fn refresh_sec(&self) -> Option<u64> {
        self.refresh_sec.filter(|_| !self.is_suspended)
    }

    /// Whether nothing is to be pulled for it.
    pub(crate) fn is_suspended(&self) -> bool {
        self.is_suspended
    }

    /// Its images.
    pub(crate) fn images(&self) -> impl Iterator<Item = (&ImageKey, &ReadImage)> {
        self.images.iter()
    }

    /// One of its images.
    pub(crate) fn image(&self, id: &ImageKey) -> Option<&ReadImage> {
        self.images.get(id)
    }

    pub(super) fn images_mut(&mut self) -> impl Iterator<Item = &mut ReadImage> {
        self.images.values_mut()
    }

    /// Whether it says what every one of these expressions gives.
    pub(crate) fn knows(&self, expressions: &[&str]) -> bool {
        expressions.iter().all(|expression| self.expressions.contains_key(*expression))
    }
}

/// Reads a workload.
pub(crate) fn read(workload: &Workload) -> Reading {
    let mut images: BTreeMap<ImageKey, ReadImage> = BTreeMap::new();
    let mut problems = workload.problems.clone();
    for container in &workload.images {
        match Reference::parse(&container.image) {
            Ok(reference) => {
                let unqualified = Reference::is_unqualified(&container.image);
                images.entry(reference.key()).and_modify(|i| i.unqualified |= unqualified).or_insert_with(|| {
                    let digest = reference.digest().cloned();
                    ReadImage { image: reference.canonical(), unqualified, digest, rules: Vec::new() }
                });
            }
            Err(error) => problems.push(format!("{}: {error}", container.position)),
        }
    }
    let words = [&workload.warm, &workload.template_warm];
    problems.extend(words.iter().filter_map(|text| bad_word(text.as_deref()?)));
    let priority = workload.priority.as_deref().and_then(|text| {
        let number = text.parse::<u8>().ok().filter(|p| *p <= MAX_PRIORITY);
        if number.is_none() {
            let key = shared::label::PRIORITY_ANNOTATION;
            problems.push(format!("annotation {key}: `{text}` is not a whole number from 0 to {MAX_PRIORITY}"));
        }
        number
    });
    let refresh_sec = workload.refresh.as_deref().and_then(|text| match refresh(text) {
        Ok(seconds) => Some(seconds),
        Err(problem) => {
            problems.push(format!("spec.refresh: {problem}; tags are not looked up again"));
            None
        }
    });
    let constraint = pool::normalise(&workload.constraint);
    Reading {
        uid: workload.uid.clone(),
        images,
        priority,
        pool: pool::id_of(&constraint),
        constraint,
        warm: words.map(|text| word(text.as_deref()?)),
        labels: workload.labels.clone(),
        expressions: workload.expressions.clone(),
        secrets: workload.secrets.clone(),
        refresh_sec,
        is_suspended: workload.is_suspended,
        is_named: workload.is_named,
        problems,
        tested: Tested::default(),
    }
}

/// How many seconds a duration is. The API server lets none pass that is no duration or below a minute.
fn refresh(text: &str) -> Result<u64, String> {
    let every = shared::duration::parse(text)?;
    if every < LEAST_REFRESH {
        return Err(format!("`{text}` is less than a minute"));
    }
    Ok(every.as_secs())
}

/// What the annotation says, if it is one of the two words.
pub(super) fn word(text: &str) -> Option<bool> {
    match text {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

/// What is said of an annotation that is neither of the two words, and therefore ignored.
fn bad_word(text: &str) -> Option<String> {
    let key = shared::label::WARM_ANNOTATION;
    word(text).is_none().then(|| format!("annotation {key}: `{text}` is neither `true` nor `false`; it is ignored"))
}

/// What is wrong with a namespace's annotation, if it is there and is neither of the two words.
pub(crate) fn bad_namespace(namespace: &Namespace) -> Option<String> {
    bad_word(namespace.warm.as_deref()?)
}
