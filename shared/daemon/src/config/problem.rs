//! One thing that is wrong, where it is, and how it is said.
//!
//! Owns keys as people write them (`nats.urls[1]`) and the shape of a message. Never finds a problem itself.

use std::fmt;
use std::path::PathBuf;

use shared::text::shown;

use super::secret::SecretFile;

/// The most characters of a key, and of what is said about it.
const LONGEST: usize = 400;

/// The path of a key. An element of a list is `[1]`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Key(Vec<String>);

impl Key {
    pub(super) fn parse(text: &str) -> Self {
        let mut tokens = Vec::new();
        for part in text.split('.').filter(|part| !part.is_empty()) {
            let mut pieces = part.split('[');
            tokens.extend(pieces.next().filter(|name| !name.is_empty()).map(str::to_owned));
            tokens.extend(pieces.map(|index| format!("[{index}")));
        }
        Self(tokens)
    }

    pub(super) fn from_tokens(tokens: Vec<String>) -> Self {
        Self(tokens)
    }

    pub(super) fn tokens(&self) -> &[String] {
        &self.0
    }

    pub(super) fn starts_with(&self, other: &Self) -> bool {
        self.0.starts_with(&other.0)
    }

    fn join(&self, rest: &Self) -> Self {
        Self(self.0.iter().chain(&rest.0).cloned().collect())
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, token) in self.0.iter().enumerate() {
            let dot = if index > 0 && !token.starts_with('[') { "." } else { "" };
            write!(f, "{dot}{token}")?;
        }
        Ok(())
    }
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Origin {
    File { path: PathBuf, line: Option<u64> },
    Variable(&'static str),
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    origin: Origin,
    key: Key,
    text: String,
}

impl Problem {
    /// `text` may repeat what stands in the file: it is shown on one line, clipped, without credentials.
    pub(super) fn new(origin: Origin, key: Key, text: &str) -> Self {
        Self { origin, key, text: shown(text, LONGEST) }
    }

    pub(super) fn key(&self) -> &Key {
        &self.key
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Origin::File { path, line: Some(line) } => write!(f, "{}:{line}: ", path.display())?,
            Origin::File { path, line: None } => write!(f, "{}: ", path.display())?,
            Origin::Variable(name) => write!(f, "environment variable {name}: ")?,
        }
        if !self.key.0.is_empty() {
            write!(f, "{}: ", shown(&self.key.to_string(), LONGEST))?;
        }
        f.write_str(&self.text)
    }
}

pub(super) fn lines(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

/// A configuration, or a section of one, that can say what is wrong with its values.
pub trait Validate {
    /// Adds everything that is wrong.
    fn problems(&self, found: &mut Problems);
}

/// When secret files have to be readable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Secrets {
    /// When they are used: until then the process waits.
    #[default]
    Later,
    /// Now: somebody asks what is wrong.
    Now,
}

/// Collects what is wrong.
#[derive(Debug, Default)]
pub struct Problems {
    secrets: Secrets,
    section: Key,
    found: Vec<(Key, String)>,
}

impl Problems {
    pub(super) fn new(secrets: Secrets) -> Self {
        Self { secrets, ..Self::default() }
    }

    /// `key` holds the path of a secret. What is no absolute path is not shown: it may be the secret itself.
    pub fn secret(&mut self, key: &str, file: Option<&SecretFile>) {
        let Some(file) = file else { return };
        if !file.path().is_absolute() {
            self.add(key, "is not an absolute path; put the secret into a file and its path here");
        } else if self.secrets == Secrets::Now
            && let Err(error) = std::fs::read(file.path())
        {
            self.add(key, format!("{}: the secret cannot be read: {error}", file.path().display()));
        }
    }

    /// `key` holds the address and port that a server of ours listens on.
    pub fn listen(&mut self, key: &str, address: &str) {
        if address.parse::<std::net::SocketAddr>().is_err() {
            self.add(key, format!("`{address}` is not an address and port such as 0.0.0.0:9180"));
        }
    }

    /// `key`, below the current section, is wrong: `text` says how, and what to do.
    pub fn add(&mut self, key: &str, text: impl Into<String>) {
        self.found.push((self.section.join(&Key::parse(key)), text.into()));
    }

    /// Adds what is wrong with the section under `key`.
    pub fn section(&mut self, key: &str, section: &impl Validate) {
        self.within(key, |found| section.problems(found));
    }

    /// Adds what `find` finds below `key`.
    pub fn within(&mut self, key: &str, find: impl FnOnce(&mut Self)) {
        let inner = self.section.join(&Key::parse(key));
        let outer = std::mem::replace(&mut self.section, inner);
        find(self);
        self.section = outer;
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Every problem as `key: text`, without file and line: for tests of one section.
    pub fn messages(&self) -> Vec<String> {
        self.found.iter().map(|(key, text)| format!("{key}: {text}")).collect()
    }

    pub(super) fn into_inner(self) -> Vec<(Key, String)> {
        self.found
    }
}
