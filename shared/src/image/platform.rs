//! Platforms.
//!
//! Owns the text of a platform, `os/architecture[/variant]`, with the words of Go (`linux`, `arm64`) and of the OCI
//! image index. Never normalises one and never chooses the manifest for it: `linux/arm64` and `linux/arm64/v8` are two.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::clip;

/// A text that is no platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not a platform: write <os>/<architecture> or <os>/<architecture>/<variant> in a-z, 0-9, ., _ and -, \
     such as linux/amd64 or linux/arm64/v8"
)]
pub struct PlatformError {
    /// What was given, clipped.
    pub text: String,
}

/// What an image runs on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Platform {
    /// Operating system, such as `linux`.
    pub os: String,
    /// Architecture, such as `arm64`.
    pub architecture: String,
    /// Variant of the architecture, such as `v8`.
    pub variant: Option<String>,
}

impl Platform {
    /// Reads `os/architecture[/variant]`.
    pub fn parse(text: &str) -> Result<Self, PlatformError> {
        let mut parts = text.split('/');
        let (os, architecture, variant, more) = (parts.next(), parts.next(), parts.next(), parts.next());
        match (os, architecture, more) {
            (Some(os), Some(architecture), None)
                if is_part(os) && is_part(architecture) && variant.is_none_or(is_part) =>
            {
                Ok(Self {
                    os: os.to_owned(),
                    architecture: architecture.to_owned(),
                    variant: variant.map(str::to_owned),
                })
            }
            _ => Err(PlatformError { text: clip(text) }),
        }
    }
}

fn is_part(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-'))
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

impl TryFrom<String> for Platform {
    type Error = PlatformError;
    fn try_from(value: String) -> Result<Self, PlatformError> {
        Self::parse(&value)
    }
}

impl From<Platform> for String {
    fn from(value: Platform) -> Self {
        value.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("linux/amd64", "linux", "amd64", None)]
    #[case("linux/arm64/v8", "linux", "arm64", Some("v8"))]
    #[case("linux/x86_64", "linux", "x86_64", None)]
    fn a_platform_has_two_or_three_parts(
        #[case] text: &str,
        #[case] os: &str,
        #[case] architecture: &str,
        #[case] variant: Option<&str>,
    ) {
        let platform = Platform::parse(text).unwrap();
        assert_eq!((&*platform.os, &*platform.architecture, platform.variant.as_deref()), (os, architecture, variant));
        assert_eq!(platform.to_string(), text);
        assert_eq!(serde_json::to_string(&platform).unwrap(), format!("\"{text}\""));
        assert_eq!(serde_json::from_str::<Platform>(&format!("\"{text}\"")).unwrap(), platform);
    }

    #[rstest]
    #[case("")]
    #[case("linux")]
    #[case("/")]
    #[case("linux/")]
    #[case("/amd64")]
    #[case("linux/arm64/")]
    #[case("linux/arm64/v8/x")]
    #[case("Linux/amd64")]
    #[case("linux /amd64")]
    #[case("windows(10.0.17763)/amd64")]
    fn what_is_no_platform_is_refused_with_its_text(#[case] text: &str) {
        let error = Platform::parse(text).unwrap_err().to_string();
        assert!(error.contains(&format!("`{text}`")), "{error}");
        assert!(serde_json::from_value::<Platform>(serde_json::Value::from(text)).is_err());
    }

    proptest! {
        #[test]
        fn no_text_panics_and_what_is_accepted_prints_as_it_was(text in "[a-z0-9._/-]{0,20}|(?s).{0,200}") {
            if let Ok(platform) = Platform::parse(&text) {
                prop_assert_eq!(Platform::parse(&platform.to_string()), Ok(platform.clone()));
                prop_assert_eq!(platform.to_string(), text);
            }
        }
    }
}
