//! Why an image of a workload is wanted, or is not, in words.

use std::fmt;

use shared::label::{PRIORITY_ANNOTATION, WARM_ANNOTATION};

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

/// A list of rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum List {
    /// `select.include`.
    Include,
    /// `select.exclude`.
    Exclude,
    /// `select.priorities`.
    Priorities,
}

/// A rule. Printed as `select.exclude[0] "name"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RuleName<'a> {
    pub(super) list: List,
    pub(super) index: usize,
    pub(super) name: Option<&'a str>,
}

/// Why an image of a workload is wanted. Printed as a sentence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Inclusion<'a> {
    /// The glob that includes its namespace; empty where namespaces have no say.
    pub(super) pattern: &'a str,
    /// The rule that includes it, where there are any.
    pub(super) rule: Option<RuleName<'a>>,
    pub(super) opted_in: Option<Voice>,
    /// How much it is wanted.
    pub(crate) priority: u8,
    /// Who says so.
    pub(crate) priority_from: PriorityFrom<'a>,
}

/// Where a priority comes from. Printed as its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PriorityFrom<'a> {
    /// The annotation of the workload, or of its template.
    Annotation,
    /// The first rule that matches.
    Rule(RuleName<'a>),
    /// Nobody.
    Default,
}

/// Why an image of a workload is not wanted. Printed as a sentence.
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
    /// A rule excludes all images of the workload.
    Workload(RuleName<'a>),
    /// A rule excludes the image.
    Image(RuleName<'a>),
    /// There are rules that include, and none includes it.
    NoRule,
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

impl fmt::Display for RuleName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = match self.list {
            List::Include => "include",
            List::Exclude => "exclude",
            List::Priorities => "priorities",
        };
        write!(f, "select.{list}[{}]", self.index)?;
        self.name.map_or(Ok(()), |name| write!(f, " \"{name}\""))
    }
}

impl fmt::Display for Inclusion<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.pattern.is_empty() {
            return f.write_str("somebody named it by hand");
        }
        write!(f, "its namespace is included by `{}`", self.pattern)?;
        if let Some(rule) = self.rule {
            write!(f, ", the image by {rule}")?;
        }
        match self.opted_in {
            Some(voice) => write!(f, " and {voice} opts in ({WARM_ANNOTATION}: \"true\")"),
            None => f.write_str(" and nothing opts out"),
        }
    }
}

impl fmt::Display for PriorityFrom<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Annotation => write!(f, "annotation {PRIORITY_ANNOTATION}"),
            Self::Rule(rule) => rule.fmt(f),
            Self::Default => f.write_str("default"),
        }
    }
}

impl fmt::Display for Exclusion<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownNamespace => f.write_str("its namespace is not known yet"),
            Self::NotIncluded => f.write_str("its namespace is included by no pattern of select.namespaces.include"),
            Self::Excluded(pattern) => {
                write!(f, "its namespace is excluded by `{pattern}` of select.namespaces.exclude")
            }
            Self::OptedOut(voice) => write!(f, "{voice} opts out ({WARM_ANNOTATION}: \"false\")"),
            Self::NotOptedIn => write!(f, "select.mode is optIn and nothing opts in ({WARM_ANNOTATION}: \"true\")"),
            Self::Workload(rule) => write!(f, "the workload is excluded by {rule}"),
            Self::Image(rule) => write!(f, "the image is excluded by {rule}"),
            Self::NoRule => f.write_str("no rule of select.include matches it"),
        }
    }
}
