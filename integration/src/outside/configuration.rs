//! Configuration: a YAML file that a person wrote, or a template rendered.
//!
//! Owns what must hold of every text: it is a configuration, or every problem stands on a line of its own that names the
//! file, and no text ever brings a secret to light.

use std::path::Path;

use agent::config::AgentConfig;
use controller::config::ControllerConfig;
use daemon::config::{ConfigError, Validate, read};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Stands for a password that somebody wrote where none may stand. Of the form that every reader takes for text.
pub const SECRET: &str = "S3CR3T";

const FILE: &str = "warm.yaml";

/// A configuration of either process.
pub fn check(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    one::<AgentConfig>(&text);
    one::<ControllerConfig>(&text);
}

fn one<T>(text: &str)
where
    T: DeserializeOwned + Serialize + Default + Validate + PartialEq + std::fmt::Debug,
{
    match read::<T>(Path::new(FILE), text, &[]) {
        Ok(config) => {
            let Ok(written) = serde_json::to_string(&config) else { return };
            let again = read::<T>(Path::new(FILE), &written, &[]);
            assert_eq!(again.ok(), Some(config), "a configuration is read as it was written: {written}");
        }
        Err(error) => complains(&error, text),
    }
}

fn complains(error: &ConfigError, text: &str) {
    let said = error.to_string();
    for line in said.lines() {
        super::is_short_line(line);
        assert!(line.starts_with(FILE), "a problem names the file: {line}");
    }
    if let ConfigError::Problems(problems) = error {
        assert!(!problems.is_empty());
        assert_eq!(said.lines().count(), problems.len(), "a line for each problem:\n{said}");
    }
    // As in `nats://user:S3CR3T@host`, wherever that stands, and nowhere else.
    let is_password = text.matches(SECRET).count() == text.matches(&format!(":{SECRET}@")).count();
    assert!(!is_password || !said.contains(SECRET), "a password is shown:\n{said}");
}
