//! The keys and passwords of the NATS that comes with the chart: what `warm-controller init-nats` makes.
//!
//! Owns which there are, in which Secret, and that what is there is kept. Pure: Secrets come in, what they lack comes out.
//! Never shows a key.

use std::collections::BTreeMap;

use nkeys::{KeyPair, KeyPairType, XKey};
use ring::rand::{SecureRandom as _, SystemRandom};

/// What a Secret holds.
pub type Data = BTreeMap<String, Vec<u8>>;

const CONTROLLER: &str = "controller";
const CALLOUT: &str = "callout";
const ISSUER: &str = "issuer";
const XKEY: &str = "xkey";
/// Of the server alone: the password of the servers among each other.
const ROUTES: &str = "routes";
/// People.
const USERS: [&str; 2] = ["reader", "operator"];
const PASSWORD: usize = 32;
const ALPHABET: &[u8; 62] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";

/// What is there cannot be completed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Something else stands where a seed should be.
    #[error("its key `{0}` is no seed of {1}; delete that key of the Secret to have a new one made")]
    NoSeed(&'static str, &'static str),
    /// No randomness.
    #[error("the system gives no random numbers")]
    NoRandom,
}

/// Completes the seeds that controllers have: `controller` and `callout` of users, `issuer` of an account, `xkey` of a
/// curve key. What is there stays.
pub fn complete_identity(mut found: Data) -> Result<Data, KeyError> {
    for (name, kind) in [(CONTROLLER, KeyPairType::User), (CALLOUT, KeyPairType::User), (ISSUER, KeyPairType::Account)]
    {
        if !found.contains_key(name) {
            let seed = KeyPair::new(kind).seed().map_err(|_| KeyError::NoRandom)?;
            found.insert(name.to_owned(), seed.into_bytes());
        }
    }
    if !found.contains_key(XKEY) {
        let seed = XKey::new().seed().map_err(|_| KeyError::NoRandom)?;
        found.insert(XKEY.to_owned(), seed.into_bytes());
    }
    Ok(found)
}

/// Completes what servers have: the public halves of the seeds, whatever stood there before, and the password `routes`.
pub fn complete_server(mut found: Data, identity: &Data) -> Result<Data, KeyError> {
    for (name, kind, what) in [
        (CONTROLLER, KeyPairType::User, "a user"),
        (CALLOUT, KeyPairType::User, "a user"),
        (ISSUER, KeyPairType::Account, "an account"),
    ] {
        let key = seed(identity, name).and_then(|seed| KeyPair::from_seed(seed).ok());
        let key = key.filter(|key| key.key_pair_type() == kind).ok_or(KeyError::NoSeed(name, what))?;
        found.insert(name.to_owned(), key.public_key().into_bytes());
    }
    let key = seed(identity, XKEY).and_then(|seed| XKey::from_seed(seed).ok());
    let key = key.ok_or(KeyError::NoSeed(XKEY, "a curve key"))?;
    found.insert(XKEY.to_owned(), key.public_key().into_bytes());
    complete_passwords(&mut found, &[ROUTES])?;
    Ok(found)
}

/// Completes the passwords of people.
pub fn complete_users(mut found: Data) -> Result<Data, KeyError> {
    complete_passwords(&mut found, &USERS)?;
    Ok(found)
}

fn seed<'a>(of: &'a Data, name: &str) -> Option<&'a str> {
    std::str::from_utf8(of.get(name)?).ok().map(str::trim)
}

fn complete_passwords(found: &mut Data, names: &[&str]) -> Result<(), KeyError> {
    for name in names {
        if found.get(*name).is_none_or(Vec::is_empty) {
            found.insert((*name).to_owned(), password()?);
        }
    }
    Ok(())
}

/// Letters and digits. The first is a letter, because the server reads variables as it reads its configuration.
fn password() -> Result<Vec<u8>, KeyError> {
    let random = SystemRandom::new();
    let mut password = vec![b'w'];
    while password.len() < PASSWORD {
        let mut bytes = [0_u8; PASSWORD];
        random.fill(&mut bytes).map_err(|_| KeyError::NoRandom)?;
        // 248 is the greatest multiple of 62 in a byte: every character is as likely as another.
        let fair = bytes.iter().filter(|byte| **byte < 248);
        password.extend(fair.filter_map(|byte| ALPHABET.get(usize::from(byte % 62)).copied()));
    }
    password.truncate(PASSWORD);
    Ok(password)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_made_once_and_kept_and_what_is_missing_is_made() {
        let identity = complete_identity(Data::new()).unwrap();
        assert_eq!(identity.keys().collect::<Vec<_>>(), [CALLOUT, CONTROLLER, ISSUER, XKEY]);
        assert_eq!(complete_identity(identity.clone()).unwrap(), identity);
        let server = complete_server(Data::new(), &identity).unwrap();
        assert_eq!(complete_server(server.clone(), &identity).unwrap(), server);
        for (name, prefix) in [(CONTROLLER, b'U'), (CALLOUT, b'U'), (ISSUER, b'A'), (XKEY, b'X')] {
            assert_eq!(server[name][0], prefix, "{name}");
            assert_eq!(identity[name][0], b'S', "{name}");
        }
        let users = complete_users(Data::new()).unwrap();
        assert_eq!(complete_users(users.clone()).unwrap(), users);
        assert_ne!(users["reader"], users["operator"]);

        let mut half = identity.clone();
        half.remove(ISSUER);
        let whole = complete_identity(half).unwrap();
        assert_eq!(whole[CONTROLLER], identity[CONTROLLER]);
        assert_ne!(whole[ISSUER], identity[ISSUER]);
        // The server learns of the new one, and keeps its password.
        let next = complete_server(server.clone(), &whole).unwrap();
        assert_ne!(next[ISSUER], server[ISSUER]);
        assert_eq!((&next[CONTROLLER], &next[ROUTES]), (&server[CONTROLLER], &server[ROUTES]));
    }

    #[test]
    fn what_is_no_seed_is_said_and_not_replaced() {
        let good = complete_identity(Data::new()).unwrap();
        for (name, other) in [(ISSUER, CALLOUT), (CALLOUT, ISSUER), (XKEY, ISSUER), (CONTROLLER, XKEY)] {
            let mut wrong = good.clone();
            wrong.insert(name.to_owned(), good[other].clone());
            let error = complete_server(Data::new(), &wrong).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
            assert!(!error.contains(std::str::from_utf8(&good[other]).unwrap()), "{error}");
        }
    }

    #[test]
    fn passwords_are_letters_and_digits_and_begin_with_a_letter() {
        let many: Vec<_> = (0..100).map(|_| password().unwrap()).collect();
        for password in &many {
            assert_eq!((password.len(), password[0]), (PASSWORD, b'w'));
            assert!(password.iter().all(u8::is_ascii_alphanumeric));
        }
        assert_eq!(many.iter().collect::<std::collections::BTreeSet<_>>().len(), many.len());
    }
}
