//! Configuration: one YAML file over the defaults, and a named handful of environment variables over both.
//!
//! Owns reading, the environment, and saying everything that is wrong at once, with file, line and key. Never knows what a
//! key means: that is the type's and its [`Validate`]'s.

mod explain;
mod problem;
mod secret;
mod tree;

use std::path::{Path, PathBuf};

use figment::Figment;
use figment::providers::Serialized;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use problem::{Problem, Problems, Validate};
pub use secret::{Secret, SecretError, SecretFile};

use problem::{Key, Origin, Secrets};
use tree::Tree;

/// An environment variable and the key it sets: `("NODE_NAME", "node.name")`.
pub type EnvKey = (&'static str, &'static str);

/// More problems than this are not listed: the file is another one.
const MOST: usize = 100;

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// No file, or not readable.
    #[error("{}: the configuration cannot be read: {source}; give its path with --config", path.display())]
    Unreadable {
        /// Where.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Nothing but comments.
    #[error("{}: the configuration is empty; write `{{}}` to take every default", path.display())]
    Empty {
        /// Where.
        path: PathBuf,
    },
    /// Everything that is wrong, a line each.
    #[error("{}", problem::lines(.0))]
    Problems(Vec<Problem>),
}

/// Reads `path` over the defaults of `T`, and the variables of `env` over both. An empty variable counts as absent.
///
/// # Errors
/// Lists every problem at once: syntax, unknown keys, wrong types, and what [`Validate`] finds.
pub fn load<T>(path: &Path, env: &[EnvKey]) -> Result<T, ConfigError>
where
    T: DeserializeOwned + Serialize + Default + Validate,
{
    load_with(path, env, environment, Secrets::Later)
}

/// Says what is wrong with `path`, as [`load`] does, and which secret files cannot be read. A process that runs waits for
/// those instead: they may be mounted late.
pub fn check<T>(path: &Path, env: &[EnvKey]) -> Result<(), ConfigError>
where
    T: DeserializeOwned + Serialize + Default + Validate,
{
    load_with::<T>(path, env, environment, Secrets::Now).map(drop)
}

/// The value of an environment variable that is not part of the configuration file, such as the path of it.
pub fn environment(name: &str) -> Option<String> {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Reads `text` as [`load`] reads a file; `path` is what problems call it.
pub fn read<T>(path: &Path, text: &str, env: &[EnvKey]) -> Result<T, ConfigError>
where
    T: DeserializeOwned + Serialize + Default + Validate,
{
    read_with(path, text, env, environment, Secrets::Later)
}

fn load_with<T>(
    path: &Path,
    env: &[EnvKey],
    variable: impl Fn(&str) -> Option<String>,
    secrets: Secrets,
) -> Result<T, ConfigError>
where
    T: DeserializeOwned + Serialize + Default + Validate,
{
    let text =
        std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
    read_with(path, &text, env, variable, secrets)
}

fn read_with<T>(
    path: &Path,
    text: &str,
    env: &[EnvKey],
    variable: impl Fn(&str) -> Option<String>,
    secrets: Secrets,
) -> Result<T, ConfigError>
where
    T: DeserializeOwned + Serialize + Default + Validate,
{
    let tree = Tree::parse(text).map_err(|(line, text)| {
        let origin = Origin::File { path: path.to_owned(), line };
        ConfigError::Problems(vec![Problem::new(origin, Key::default(), &text)])
    })?;
    let tree = tree.ok_or_else(|| ConfigError::Empty { path: path.to_owned() })?;
    let set =
        env.iter().filter_map(|&(name, key)| Some(Variable { name, key: Key::parse(key), value: variable(name)? }));
    Layers { path: path.to_owned(), file: tree, env: set.collect() }.extract(secrets)
}

struct Variable {
    name: &'static str,
    key: Key,
    value: String,
}

/// What lies over the defaults. What is found wrong is taken out, so that the next problem shows.
struct Layers {
    path: PathBuf,
    file: Tree,
    env: Vec<Variable>,
}

impl Layers {
    fn extract<T>(mut self, secrets: Secrets) -> Result<T, ConfigError>
    where
        T: DeserializeOwned + Serialize + Default + Validate,
    {
        // Lines are looked up in what was read, keys in what is left.
        let read = self.file.clone();
        let variables: Vec<(&'static str, Key)> = self.env.iter().map(|v| (v.name, v.key.clone())).collect();
        let origin = |path: &Path, key: &Key| match variables.iter().find(|(_, of)| of == key) {
            Some((name, _)) => Origin::Variable(name),
            None => Origin::File { path: path.to_owned(), line: read.line_of(key) },
        };
        let mut problems: Vec<Problem> = Vec::new();
        let value = loop {
            let error = match self.merged(&T::default()).extract::<T>() {
                Ok(value) => break Some(value),
                Err(error) => error,
            };
            let mut progress = false;
            for error in error {
                let (key, text) = explain::explain(&error);
                let key = self.file.original(&key);
                problems.push(Problem::new(origin(&self.path, &key), key.clone(), &text));
                progress |= self.take_out(&key);
            }
            if !progress || problems.len() >= MOST {
                break None;
            }
        };
        if let Some(value) = &value {
            let mut found = Problems::new(secrets);
            value.problems(&mut found);
            for (key, text) in found.into_inner() {
                if !problems.iter().any(|known| key.starts_with(known.key())) {
                    problems.push(Problem::new(origin(&self.path, &key), key, &text));
                }
            }
        }
        problems.sort();
        match value {
            Some(value) if problems.is_empty() => Ok(value),
            _ => Err(ConfigError::Problems(problems)),
        }
    }

    fn merged<T: Serialize>(&self, defaults: &T) -> Figment {
        let mut figment = Figment::from(Serialized::defaults(defaults)).merge(Serialized::defaults(&self.file));
        for variable in &self.env {
            figment = figment.merge(Serialized::default(&variable.key.to_string(), &variable.value));
        }
        figment
    }

    /// Whether there was something under `key` to be taken out.
    fn take_out(&mut self, key: &Key) -> bool {
        let before = self.env.len();
        self.env.retain(|variable| variable.key != *key);
        before != self.env.len() || self.file.remove(key)
    }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
