//! The configuration, ready to judge.
//!
//! Owns the order in which it is asked: namespaces, rules that exclude, annotations, rules that include; who says no
//! wins. What is asked of a workload alone is tested once for each version of it, what is asked of a namespace once for
//! each look at all workloads.

use shared::message::intent::DEFAULT_PRIORITY;
use shared::name::ImageKey;
use wildmatch::WildMatch;

use super::reading::{ReadImage, Reading, Tested, word};
use super::verdict::{Exclusion, Inclusion, List, PriorityFrom, RuleName, Voice};
use crate::input::selection::{ImageMatch, LabelSelector, Mode, Namespaces, Rule};
use crate::input::{Namespace, Selection, WorkloadKey};
use crate::known::Known;

/// A selection with its patterns compiled.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    selection: Selection,
    include: Vec<WildMatch>,
    exclude: Vec<WildMatch>,
    /// Of all lists, one after the other. Its place here is the number of a rule.
    compiled: Vec<Compiled>,
}

#[derive(Debug, Clone)]
struct Compiled {
    list: List,
    /// Its place in that list.
    index: usize,
    rule: Rule,
    namespaces: Vec<WildMatch>,
    images: Vec<ImageTest>,
}

/// Everything that is asked of an image.
#[derive(Debug, Clone)]
struct ImageTest {
    glob: Option<WildMatch>,
    contains: Option<String>,
    regex: Option<regex::bytes::Regex>,
    /// One that cannot be used matches nothing: the process takes in no such configuration.
    is_broken: bool,
    registry: Option<WildMatch>,
}

/// A regular expression over references, which are ASCII.
pub(crate) fn regex(text: &str) -> Result<regex::bytes::Regex, regex::Error> {
    regex::bytes::RegexBuilder::new(text).unicode(false).build()
}

impl ImageTest {
    fn of(image: &ImageMatch) -> Self {
        let glob = |text: &Option<String>| text.as_deref().map(WildMatch::new);
        Self {
            glob: glob(&image.glob),
            contains: image.contains.clone(),
            regex: image.regex.as_deref().and_then(|text| regex(text).ok()),
            is_broken: image.bad_regex().is_some(),
            registry: glob(&image.registry),
        }
    }

    fn matches(&self, image: &str) -> bool {
        let host = image.split_once('/').map_or("", |(host, _)| host);
        !self.is_broken
            && self.glob.as_ref().is_none_or(|glob| glob.matches(image))
            && self.contains.as_ref().is_none_or(|text| image.contains(text))
            && self.regex.as_ref().is_none_or(|regex| regex.is_match(image.as_bytes()))
            && self.registry.as_ref().is_none_or(|glob| glob.matches(host))
    }
}

impl Compiled {
    fn of(list: List, (index, rule): (usize, &Rule)) -> Self {
        let namespaces = rule.namespaces.iter().map(|glob| WildMatch::new(glob)).collect();
        Self { list, index, namespaces, images: rule.images.iter().map(ImageTest::of).collect(), rule: rule.clone() }
    }

    fn name(&self) -> RuleName<'_> {
        RuleName { list: self.list, index: self.index, name: self.rule.name.as_deref() }
    }

    fn asks_for_images(&self) -> bool {
        !self.images.is_empty()
    }

    /// Of a namespace that is not known only the name is: images that people named are judged there all the same.
    fn is_in(&self, name: &str, namespace: Option<&Namespace>) -> bool {
        let selects = |selector: &LabelSelector| namespace.is_some_and(|namespace| selector.matches(&namespace.labels));
        (self.namespaces.is_empty() || self.namespaces.iter().any(|glob| glob.matches(name)))
            && self.rule.namespace_selector.as_ref().is_none_or(selects)
    }

    /// Whether it holds of the workload alone, or why that cannot be told. The expression is asked last, so that its
    /// failure is told only where it matters.
    fn holds(&self, key: &WorkloadKey, reading: &Reading) -> Result<bool, String> {
        let Rule { kinds, object_selector, expression, .. } = &self.rule;
        let is_concerned = (kinds.is_empty() || kinds.iter().any(|kind| *kind == key.kind.as_str()))
            && object_selector.as_ref().is_none_or(|selector| selector.matches(&reading.labels));
        match expression.as_deref().filter(|_| is_concerned) {
            None => Ok(is_concerned),
            Some(text) => match reading.expressions.get(text) {
                Some(result) => result.clone(),
                None => Err("it was not evaluated, because the object cannot be read".to_owned()),
            },
        }
    }
}

impl Rules {
    pub(crate) fn of(selection: Selection) -> Self {
        let globs = |list: &[String]| list.iter().map(|glob| WildMatch::new(glob)).collect();
        let Namespaces { include, exclude } = &selection.namespaces;
        let (include, exclude) = (globs(include), globs(exclude));
        let Selection { include: includes, exclude: excludes, priorities, .. } = &selection;
        let of = |list: List, rules: &[Rule]| -> Vec<Compiled> {
            rules.iter().enumerate().map(|rule| Compiled::of(list, rule)).collect()
        };
        let lists = [of(List::Include, includes), of(List::Exclude, excludes), of(List::Priorities, priorities)];
        Self { include, exclude, compiled: lists.into_iter().flatten().collect(), selection }
    }

    /// What they were made of.
    pub(crate) fn selection(&self) -> &Selection {
        &self.selection
    }

    /// Asks of a workload what depends on nothing else. To be done once for each version of it, and again with other
    /// rules.
    pub(crate) fn test(&self, key: &WorkloadKey, reading: &mut Reading) {
        let mut tested = Tested::default();
        for (number, rule) in self.compiled.iter().enumerate() {
            match rule.holds(key, reading) {
                Ok(true) => tested.holds.push(number),
                Ok(false) => {}
                Err(text) => tested.failed.push((number, text)),
            }
        }
        let asking: Vec<(usize, &Compiled)> = tested
            .holds
            .iter()
            .filter_map(|n| Some((*n, self.compiled.get(*n)?)))
            .filter(|(_, r)| r.asks_for_images())
            .collect();
        for image in reading.images_mut() {
            let matching = asking.iter().filter(|(_, rule)| rule.images.iter().any(|test| test.matches(&image.image)));
            image.rules = matching.map(|(number, _)| *number).collect();
        }
        reading.tested = tested;
    }

    /// What its namespace says of the workloads in it; one that is not known yet may opt out.
    pub(crate) fn of_namespace(&self, namespaces: &Known<String, Namespace>, name: &str) -> OfNamespace<'_> {
        let namespace = namespaces.get(name);
        let Namespaces { include, exclude } = &self.selection.namespaces;
        let excluded = first_match(&self.exclude, exclude, name);
        let grounds = match (namespace, excluded, first_match(&self.include, include, name)) {
            (None, ..) => Err(Exclusion::UnknownNamespace),
            (_, Some(pattern), _) => Err(Exclusion::Excluded(pattern)),
            (_, None, None) => Err(Exclusion::NotIncluded),
            (Some(namespace), None, Some(pattern)) => Ok((pattern, namespace.warm.as_deref().and_then(word))),
        };
        let rules = self.compiled.iter().enumerate().filter(|(_, rule)| rule.is_in(name, namespace));
        OfNamespace { all: self, grounds, rules: rules.collect() }
    }
}

fn first_match<'a>(globs: &[WildMatch], texts: &'a [String], name: &str) -> Option<&'a str> {
    globs.iter().zip(texts).find(|(glob, _)| glob.matches(name)).map(|(_, text)| text.as_str())
}

/// What a namespace says of the workloads in it.
#[derive(Debug, Clone)]
pub(crate) struct OfNamespace<'a> {
    all: &'a Rules,
    /// The pattern that includes it, and its annotation.
    grounds: Result<(&'a str, Option<bool>), Exclusion<'a>>,
    /// The rules that hold of it, by their numbers.
    rules: Vec<(usize, &'a Compiled)>,
}

/// A workload that is not excluded as a whole.
pub(crate) struct Judged<'n, 'a, 'r> {
    of_namespace: &'n OfNamespace<'a>,
    reading: &'r Reading,
    pattern: &'a str,
    opted_in: Option<Voice>,
}

/// What a workload asks for.
#[derive(Debug)]
pub(crate) struct Claim<'r> {
    /// Whether anything of it is wanted, or would be if it could be used.
    pub(crate) is_wanted: bool,
    /// Whether an annotation opts it in.
    pub(crate) is_opted_in: bool,
    /// Its images that are wanted, each once, and how urgent each is.
    pub(crate) images: Vec<(&'r ImageKey, &'r ReadImage, u8)>,
    /// What cannot be used of it.
    pub(crate) problems: Vec<String>,
}

impl<'a> OfNamespace<'a> {
    /// The first rule of a list that holds of a workload, whatever its images; or of one of its images, if one is given.
    fn first(&self, list: List, reading: &Reading, image: Option<&ReadImage>) -> Option<&'a Compiled> {
        let holds = |number: &usize, rule: &Compiled| {
            rule.list == list
                && reading.tested.holds.binary_search(number).is_ok()
                && (!rule.asks_for_images() || image.is_some_and(|image| image.rules.binary_search(number).is_ok()))
        };
        self.rules.iter().find(|(number, rule)| holds(number, rule)).map(|(_, rule)| *rule)
    }

    fn priority(&self, reading: &Reading, image: &ReadImage) -> (u8, PriorityFrom<'a>) {
        if let Some(priority) = reading.priority {
            return (priority, PriorityFrom::Annotation);
        }
        let first = self.first(List::Priorities, reading, Some(image));
        match first.and_then(|rule| Some((rule.rule.priority?, rule))) {
            Some((priority, rule)) => (priority, PriorityFrom::Rule(rule.name())),
            None => (DEFAULT_PRIORITY, PriorityFrom::Default),
        }
    }

    /// Whether a workload of it may have images that are wanted, or why none is.
    pub(crate) fn workload<'n, 'r>(&'n self, reading: &'r Reading) -> Result<Judged<'n, 'a, 'r>, Exclusion<'a>> {
        if reading.is_named {
            // Somebody has named the images: only what is said of images counts.
            let opted_in = (reading.warm.first() == Some(&Some(true))).then_some(Voice::Workload);
            return Ok(Judged { of_namespace: self, reading, pattern: "", opted_in });
        }
        let (pattern, of_this_namespace) = self.grounds?;
        if let Some(rule) = self.first(List::Exclude, reading, None) {
            return Err(Exclusion::Workload(rule.name()));
        }
        let [of_workload, of_template] = reading.warm;
        let voices =
            [(Voice::Workload, of_workload), (Voice::Template, of_template), (Voice::Namespace, of_this_namespace)];
        let says = |what: bool| voices.iter().find(|(_, said)| *said == Some(what)).map(|(voice, _)| *voice);
        if let Some(voice) = says(false) {
            return Err(Exclusion::OptedOut(voice));
        }
        let opted_in = says(true);
        if self.all.selection.mode == Mode::OptIn && opted_in.is_none() {
            return Err(Exclusion::NotOptedIn);
        }
        Ok(Judged { of_namespace: self, reading, pattern, opted_in })
    }

    /// Why an image of a workload is wanted, or why not. Nothing if the workload does not name it.
    pub(crate) fn image(&self, reading: &Reading, id: &ImageKey) -> Option<Result<Inclusion<'a>, Exclusion<'a>>> {
        let image = reading.image(id)?;
        Some(self.workload(reading).and_then(|judged| judged.image(image)))
    }

    /// What a workload asks for.
    pub(crate) fn claim<'r>(&self, reading: &'r Reading) -> Claim<'r> {
        let mut claim =
            Claim { is_wanted: false, is_opted_in: false, images: Vec::new(), problems: self.failures(reading) };
        if let Ok(judged) = self.workload(reading) {
            let wanted =
                |(id, image): (&'r ImageKey, &'r ReadImage)| Some((id, image, judged.image(image).ok()?.priority));
            claim.images = reading.images().filter_map(wanted).collect();
            claim.is_opted_in = judged.opted_in.is_some();
            claim.is_wanted = !claim.images.is_empty() || reading.images().next().is_none();
            claim.problems.extend_from_slice(reading.problems());
        }
        claim
    }

    /// The expressions that would have to be known of a workload and fail, each with its rule. Of a namespace that is left
    /// out nothing is asked.
    fn failures(&self, reading: &Reading) -> Vec<String> {
        if self.grounds.is_err() || reading.is_named {
            return Vec::new();
        }
        let rule = |number: usize| self.rules.iter().find(|(n, _)| *n == number).map(|(_, rule)| rule.name());
        let failed = reading.tested.failed.iter();
        failed.filter_map(|(number, text)| Some(format!("{}: expression: {text}", rule(*number)?))).collect()
    }
}

impl<'a> Judged<'_, 'a, '_> {
    /// Why an image of the workload is wanted, or why not.
    pub(crate) fn image(&self, image: &ReadImage) -> Result<Inclusion<'a>, Exclusion<'a>> {
        let first = |list| self.of_namespace.first(list, self.reading, Some(image)).map(Compiled::name);
        if let Some(rule) = first(List::Exclude) {
            return Err(Exclusion::Image(rule));
        }
        let rule = first(List::Include);
        if rule.is_none() && !self.reading.is_named && !self.of_namespace.all.selection.include.is_empty() {
            return Err(Exclusion::NoRule);
        }
        let (priority, priority_from) = self.of_namespace.priority(self.reading, image);
        Ok(Inclusion { pattern: self.pattern, rule, opted_in: self.opted_in, priority, priority_from })
    }
}

#[cfg(test)]
mod tests;
