//! The `identity:` section of the controller.
//!
//! Owns its keys, defaults and what is wrong with them. Never reads a secret.

use std::time::Duration;

use daemon::config::{Problems, SecretFile, Validate};
use serde::{Deserialize, Serialize};
use shared::name::{ClusterId, NodeName};

/// The longest `sessionTtl`, and the default.
const LONGEST: Duration = Duration::from_hours(12);

/// `identity:`: the auth callout of NATS. Off unless the three seeds are given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct IdentitySettings {
    /// File with the seed of the account key that signs: `auth_callout.issuer` of the server is its public half.
    pub issuer_seed_file: Option<SecretFile>,
    /// File with the seed of the user, in the server's `auth_callout.account`, who answers.
    pub nkey_seed_file: Option<SecretFile>,
    /// File with the seed of the curve key that requests are sealed to: `auth_callout.xkey` of the server.
    pub xkey_seed_file: Option<SecretFile>,
    /// The account that agents are let into.
    pub account: String,
    /// Audience that a token must have.
    pub audience: String,
    /// Who signs tokens (`iss`). Absent: what the API server says of itself.
    pub issuer: Option<String>,
    /// Namespace of the agents. Absent: the controller's own.
    pub namespace: Option<String>,
    /// Service account of the agents.
    pub service_account: String,
    /// For how long an agent is let in, 12h at most; each time drawn between three and five quarters of it.
    #[serde(with = "shared::duration")]
    pub session_ttl: Duration,
}

impl Default for IdentitySettings {
    fn default() -> Self {
        Self {
            issuer_seed_file: None,
            nkey_seed_file: None,
            xkey_seed_file: None,
            account: "AGENTS".to_owned(),
            audience: "warm-images".to_owned(),
            issuer: None,
            namespace: None,
            service_account: "warm-images-agent".to_owned(),
            session_ttl: LONGEST,
        }
    }
}

impl IdentitySettings {
    /// Whether the controller answers the server.
    pub fn is_on(&self) -> bool {
        self.issuer_seed_file.is_some()
    }
}

impl Validate for IdentitySettings {
    fn problems(&self, found: &mut Problems) {
        let files = [
            ("issuerSeedFile", &self.issuer_seed_file),
            ("nkeySeedFile", &self.nkey_seed_file),
            ("xkeySeedFile", &self.xkey_seed_file),
        ];
        let given = files.iter().filter(|(_, file)| file.is_some()).count();
        for (key, file) in files {
            if file.is_none() && given > 0 {
                found.add(key, "is missing beside the other seeds; give all three, or none to leave identity to NATS");
            }
            found.secret(key, file.as_ref());
        }
        for (key, text) in [("account", &self.account), ("audience", &self.audience)] {
            if text.is_empty() {
                found.add(key, "is empty; remove the key for the default");
            }
        }
        if NodeName::parse(&self.service_account).is_err() {
            found.add("serviceAccount", format!("`{}` is no name of a service account", self.service_account));
        }
        // A namespace is a DNS label, and so is a cluster id.
        if let Some(namespace) = &self.namespace
            && ClusterId::parse(namespace).is_err()
        {
            found.add("namespace", format!("`{namespace}` is not the name of a namespace: a DNS label"));
        }
        if !(Duration::from_secs(1)..=LONGEST).contains(&self.session_ttl) {
            found.add("sessionTtl", "is not within 1s and 12h");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(settings: &IdentitySettings) -> Vec<String> {
        let mut found = Problems::default();
        found.section("identity", settings);
        found.messages()
    }

    #[test]
    fn by_default_it_is_off_and_nothing_is_wrong() {
        assert!(!IdentitySettings::default().is_on());
        assert_eq!(said(&IdentitySettings::default()), Vec::<String>::new());
    }

    #[test]
    fn everything_wrong_is_said() {
        let settings = IdentitySettings {
            issuer_seed_file: Some(SecretFile::new("/seed")),
            account: String::new(),
            service_account: "Agent".to_owned(),
            namespace: Some("a.b".to_owned()),
            session_ttl: Duration::from_hours(13),
            ..IdentitySettings::default()
        };
        let said = said(&settings).join("\n");
        for key in ["nkeySeedFile", "xkeySeedFile", "account", "serviceAccount", "namespace", "sessionTtl"] {
            assert!(said.contains(&format!("identity.{key}: ")), "{key}: {said}");
        }
        assert!(!said.contains("issuerSeedFile: "), "{said}");
    }
}
