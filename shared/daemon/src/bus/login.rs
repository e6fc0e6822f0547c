//! Logging in: credentials, read from their files at each attempt, so that a rotated secret is taken without a restart.
//!
//! Owns what is sent as credentials and what is said when they are refused. Never keeps a secret.

use async_nats::{Auth, AuthError};

use super::settings::NatsConfig;
use crate::config::SecretFile;

/// How this process logs in.
#[derive(Debug, Clone)]
pub(super) struct Login {
    config: NatsConfig,
}

impl Login {
    pub(super) fn new(config: &NatsConfig) -> Self {
        Self { config: config.clone() }
    }

    /// The credentials for one attempt.
    pub(super) fn auth(&self, nonce: &[u8]) -> Result<Auth, AuthError> {
        let mut auth = Auth::new();
        if let Some(file) = &self.config.password_file {
            let password = file.read("nats.passwordFile").map_err(AuthError::new)?;
            auth.username.clone_from(&self.config.user);
            auth.password = Some(password.expose().to_owned());
        }
        if let Some(file) = &self.config.creds_file {
            let text = file.read("nats.credsFile").map_err(AuthError::new)?;
            let unreadable = |what| {
                AuthError::new(format!("nats.credsFile: {} has no {what} that can be used", file.path().display()))
            };
            let mut blocks = blocks(text.expose());
            let jwt = blocks.next().ok_or_else(|| unreadable("user JWT"))?;
            let seed = blocks.next().ok_or_else(|| unreadable("seed"))?;
            let key = nkeys::KeyPair::from_seed(seed).map_err(|_| unreadable("seed"))?;
            auth.signature = Some(key.sign(nonce).map_err(|_| unreadable("seed"))?);
            auth.jwt = Some(jwt.to_owned());
        }
        if let Some(file) = &self.config.nkey_seed_file {
            let seed = file.read("nats.nkeySeedFile").map_err(AuthError::new)?;
            let unusable =
                |_| AuthError::new(format!("nats.nkeySeedFile: {} is no seed of a user", file.path().display()));
            let key = nkeys::KeyPair::from_seed(seed.expose().trim()).map_err(unusable)?;
            auth.signature = Some(key.sign(nonce).map_err(unusable)?);
            auth.nkey = Some(key.public_key());
        }
        if let Some(file) = &self.config.token_file {
            let token = file.read("nats.tokenFile").map_err(AuthError::new)?;
            auth.token = Some(token.expose().to_owned());
        }
        Ok(auth)
    }

    /// What to check when the server refuses.
    pub(super) fn refused(&self) -> String {
        let file = |file: &SecretFile, what: &str, key: &str| {
            format!("the server refuses the {what} in {}; check nats.{key}", file.path().display())
        };
        let NatsConfig { user, creds_file, nkey_seed_file, token_file, .. } = &self.config;
        if let Some(user) = user {
            return format!("the server refuses user `{user}`; check nats.user and the file of nats.passwordFile");
        }
        if let Some(creds) = creds_file {
            return file(creds, "credentials", "credsFile");
        }
        if let Some(seed) = nkey_seed_file {
            return file(seed, "nkey", "nkeySeedFile");
        }
        if let Some(token) = token_file {
            // Who answers says why where it counts: the client is told no more than that.
            return format!("{}, and the controllers' logs for the reason", file(token, "token", "tokenFile"));
        }
        "the server refuses a client without credentials; set nats.user and nats.passwordFile, nats.credsFile, \
         nats.nkeySeedFile or nats.tokenFile"
            .to_owned()
    }
}

/// The lines after each `-----BEGIN …` of a credentials file.
fn blocks(text: &str) -> impl Iterator<Item = &str> {
    let mut lines = text.lines().map(str::trim);
    std::iter::from_fn(move || {
        lines.find(|line| line.starts_with("---") && line.contains("BEGIN"))?;
        lines.next().filter(|line| !line.is_empty())
    })
}

/// What the client says about a failed attempt, in our words.
pub(super) fn humanise(error: &str, login: &Login) -> String {
    let lower = error.to_lowercase();
    if let Some((_, inner)) = error.split_once("AuthError(") {
        return inner.strip_suffix(')').unwrap_or(inner).to_owned();
    }
    if lower.contains("authorization violation") || lower.contains("authentication") {
        return login.refused();
    }
    if lower == "timed out" {
        return "the server does not answer; check the address, network policies and whether it wants TLS".to_owned();
    }
    let text = error.strip_prefix("IO error: ").unwrap_or(error);
    let text = text.split_once(" (os error").map_or(text, |(text, _)| text);
    match text {
        "Connection refused" => "connection refused: nothing listens there".to_owned(),
        "broken pipe" | "expected INFO, got nothing" => "the server closed the connection".to_owned(),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credentials_file_gives_jwt_and_signature_and_is_read_each_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.creds");
        let login = Login::new(&NatsConfig { creds_file: Some(SecretFile::new(&path)), ..NatsConfig::default() });
        let Err(error) = login.auth(b"nonce") else { panic!("there is no file") };
        assert!(humanise(&format!("failed signing nonce: {error}"), &login).contains("agent.creds"), "{error}");
        let key = nkeys::KeyPair::new_user();
        let seed = key.seed().unwrap();
        let text = format!(
            "-----BEGIN NATS USER JWT-----\neyJ0.a-b_c.d\n------END NATS USER JWT------\n\n*** IMPORTANT ***\n\n\
             -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        );
        std::fs::write(&path, text).unwrap();
        let auth = login.auth(b"nonce").unwrap();
        assert_eq!(auth.jwt.as_deref(), Some("eyJ0.a-b_c.d"));
        key.verify(b"nonce", &auth.signature.unwrap()).unwrap();
        std::fs::write(&path, "nothing\n").unwrap();
        let Err(error) = login.auth(b"nonce") else { panic!("there is no JWT") };
        let text = humanise(&format!("failed signing nonce: {error}"), &login);
        assert_eq!(text, format!("nats.credsFile: {} has no user JWT that can be used", path.display()));
    }

    #[test]
    fn a_seed_signs_the_nonce_and_a_token_is_read_each_time() {
        let dir = tempfile::tempdir().unwrap();
        let (seed, token) = (dir.path().join("seed"), dir.path().join("token"));
        let key = nkeys::KeyPair::new_user();
        std::fs::write(&seed, format!("{}\n", key.seed().unwrap())).unwrap();
        let login = Login::new(&NatsConfig { nkey_seed_file: Some(SecretFile::new(&seed)), ..NatsConfig::default() });
        let auth = login.auth(b"nonce").unwrap();
        assert_eq!(auth.nkey, Some(key.public_key()));
        key.verify(b"nonce", &auth.signature.unwrap()).unwrap();
        std::fs::write(&seed, "S3CR3T").unwrap();
        let Err(error) = login.auth(b"nonce") else { panic!("that is no seed") };
        let text = humanise(&format!("failed signing nonce: {error}"), &login);
        assert_eq!(text, format!("nats.nkeySeedFile: {} is no seed of a user", seed.display()));

        let login = Login::new(&NatsConfig { token_file: Some(SecretFile::new(&token)), ..NatsConfig::default() });
        for text in ["one", "two"] {
            std::fs::write(&token, text).unwrap();
            assert_eq!(login.auth(b"nonce").unwrap().token.as_deref(), Some(text));
        }
        assert!(login.refused().contains(&token.display().to_string()));
    }

    #[test]
    fn what_the_client_says_is_said_for_people() {
        let login = Login::new(&NatsConfig { user: Some("warm".into()), ..NatsConfig::default() });
        let cases = [
            ("IO error: Connection refused (os error 111)", "connection refused: nothing listens there"),
            (
                "authorization violation: nats: authorization violation",
                "the server refuses user `warm`; check nats.user and the file of nats.passwordFile",
            ),
            ("IO error: invalid peer certificate: UnknownIssuer", "invalid peer certificate: UnknownIssuer"),
            ("IO error: broken pipe", "the server closed the connection"),
        ];
        for (said, shown) in cases {
            assert_eq!(humanise(said, &login), shown);
        }
    }
}
