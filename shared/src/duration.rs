//! Durations as people write them in configuration: `30s`, `5m`, `1h 30m`.
//!
//! Owns the serde form, for `#[serde(with = "shared::duration")]`. Never reads a clock.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serializer, de};

/// Writes `5m 30s`.
pub fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_duration(*value))
}

/// Reads `5m 30s`; the message names the units that are understood.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    parse(&String::deserialize(deserializer)?).map_err(de::Error::custom)
}

/// Reads `5m 30s` where it stands by itself, as in an argument.
pub fn parse(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|e| format!("`{text}` is not a duration such as 500ms, 30s, 5m or 1h: {e}"))
}

/// The same where there may be none, for `#[serde(with = "shared::duration::optional")]`.
pub mod optional {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    struct Text(#[serde(with = "super")] Duration);

    /// Writes `5m 30s` or null.
    pub fn serialize<S: Serializer>(value: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        value.map(Text).serialize(serializer)
    }

    /// Reads the same.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<Text>::deserialize(deserializer)?.map(|text| text.0))
    }
}
