//! Secrets: paths in the configuration, contents only when used.
//!
//! Owns reading and redaction. A secret is never logged, serialised or kept: it is read again at each use.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

/// The path of a file with a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Given")]
pub struct SecretFile(PathBuf);

/// What stands where the path of a secret is expected. A number may be the secret itself, so that no error repeats it.
#[derive(Deserialize)]
#[serde(untagged)]
enum Given {
    Path(PathBuf),
    Else(IgnoredAny),
}

impl TryFrom<Given> for SecretFile {
    type Error = &'static str;

    fn try_from(given: Given) -> Result<Self, Self::Error> {
        match given {
            Given::Path(path) => Ok(Self(path)),
            Given::Else(_) => Err("is not the path of a file; put the secret into a file and its path here, in quotes"),
        }
    }
}

/// A secret cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{key}: the secret file {} cannot be read: {source}", path.display())]
pub struct SecretError {
    key: &'static str,
    path: PathBuf,
    source: std::io::Error,
}

impl SecretFile {
    /// A secret in `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Reads it. One newline at the end does not belong to it.
    ///
    /// # Errors
    /// Names the configuration `key` that held the path, the file, and why.
    pub fn read(&self, key: &'static str) -> Result<Secret, SecretError> {
        let mut text =
            std::fs::read_to_string(&self.0).map_err(|source| SecretError { key, path: self.0.clone(), source })?;
        if text.ends_with('\n') {
            text.pop();
            if text.ends_with('\r') {
                text.pop();
            }
        }
        Ok(Secret(text))
    }
}

/// A secret. Shows nothing of itself.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The secret itself, for handing it to whom it is for.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(redacted)")
    }
}
