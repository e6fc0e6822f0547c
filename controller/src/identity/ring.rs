//! The API server's keys, kept: read again when a token names one that is not there, and now and then.
//!
//! Owns how often they are read, whatever tokens come. Never verifies one.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use futures::future::BoxFuture;
use shared::reason::Reason;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tracing::{info, warn};

use super::keys::Keys;

/// Between two reads, whoever asks: a token can name any key.
const LEAST: Duration = Duration::from_secs(10);
/// A key that is no longer published is forgotten after this.
const FRESH: Duration = Duration::from_mins(5);

/// What the API server publishes of itself.
#[derive(Debug, Clone)]
pub struct Published {
    /// The `iss` of its tokens.
    pub issuer: String,
    /// Its keys.
    pub keys: Keys,
}

/// Where that is read.
pub trait Source: Send + Sync {
    /// Reads it; an error says why it cannot be.
    fn read(&self) -> BoxFuture<'_, Result<Published, String>>;
}

/// The keys.
pub struct KeyRing {
    source: Box<dyn Source>,
    kept: RwLock<Option<Arc<Published>>>,
    reading: Mutex<Reading>,
}

#[derive(Default)]
struct Reading {
    last: Option<Instant>,
    /// Why the last read failed.
    failed: Option<String>,
}

impl KeyRing {
    /// Nothing is read yet.
    pub fn new(source: impl Source + 'static) -> Self {
        Self { source: Box::new(source), kept: RwLock::default(), reading: Mutex::default() }
    }

    /// Reads for the first time, or again because time has passed. An error says why that failed.
    pub async fn refresh(&self) -> Result<(), String> {
        let mut reading = self.reading.lock().await;
        self.read(&mut reading).await;
        reading.failed.clone().map_or(Ok(()), Err)
    }

    /// Reads again every five minutes, for ever.
    pub async fn keep_fresh(&self) {
        loop {
            tokio::time::sleep(FRESH).await;
            let _logged = self.refresh().await;
        }
    }

    /// What there is, with the key `kid` if it is published.
    ///
    /// # Errors
    /// [`Reason::TokenKey`] if it is not; [`Reason::KubernetesUnavailable`] while that cannot be known.
    pub async fn with_key(&self, kid: &str) -> Result<Arc<Published>, Reason> {
        if let Some(published) = self.has(kid) {
            return Ok(published);
        }
        let mut reading = self.reading.lock().await;
        // Somebody may have read it in the meantime.
        if let Some(published) = self.has(kid) {
            return Ok(published);
        }
        if reading.last.is_none_or(|last| last.elapsed() >= LEAST) {
            self.read(&mut reading).await;
        }
        let failed = reading.failed.is_some();
        self.has(kid).ok_or(if failed { Reason::KubernetesUnavailable } else { Reason::TokenKey })
    }

    fn has(&self, kid: &str) -> Option<Arc<Published>> {
        let kept = self.kept.read().unwrap_or_else(PoisonError::into_inner);
        kept.clone().filter(|published| published.keys.has(kid))
    }

    async fn read(&self, reading: &mut Reading) {
        reading.last = Some(Instant::now());
        match self.source.read().await {
            Ok(published) => {
                if reading.failed.take().is_some() {
                    info!("the keys of service-account tokens can be read again");
                }
                *self.kept.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(published));
            }
            Err(error) => {
                warn!(%error, "the keys of service-account tokens cannot be read; those that are known are kept");
                reading.failed = Some(error);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use futures::FutureExt as _;

    use super::*;

    /// Publishes one key: its id is the number of the read.
    #[derive(Clone, Default)]
    struct Numbered(Arc<(AtomicUsize, AtomicBool)>);

    impl Source for Numbered {
        fn read(&self) -> BoxFuture<'_, Result<Published, String>> {
            let number = self.0.0.fetch_add(1, Ordering::Relaxed) + 1;
            let text = format!(r#"{{"keys":[{{"kty":"RSA","kid":"{number}","n":"AQAB","e":"AQAB"}}]}}"#);
            let is_away = self.0.1.load(Ordering::Relaxed);
            let published = Published { issuer: String::new(), keys: Keys::parse(&text).unwrap() };
            async move { if is_away { Err("away".to_owned()) } else { Ok(published) } }.boxed()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_unknown_key_is_read_at_most_every_ten_seconds() {
        let source = Numbered::default();
        let ring = KeyRing::new(source.clone());
        let reads = || source.0.0.load(Ordering::Relaxed);
        ring.refresh().await.unwrap();
        assert!(ring.with_key("1").await.is_ok());
        for _ in 0..1_000 {
            assert_eq!(ring.with_key("x").await.err(), Some(Reason::TokenKey));
        }
        assert_eq!(reads(), 1, "just read");
        tokio::time::sleep(LEAST).await;
        let many = (0..1_000).map(|_| ring.with_key("2"));
        assert!(futures::future::join_all(many).await.iter().all(Result::is_ok), "rotated");
        assert_eq!(reads(), 2);
        assert_eq!(ring.with_key("1").await.err(), Some(Reason::TokenKey), "no longer published");
    }

    #[tokio::test(start_paused = true)]
    async fn without_the_api_server_known_keys_are_kept_and_unknown_ones_are_not_judged() {
        let source = Numbered::default();
        let ring = KeyRing::new(source.clone());
        ring.refresh().await.unwrap();
        source.0.1.store(true, Ordering::Relaxed);
        tokio::time::sleep(LEAST).await;
        assert_eq!(ring.with_key("x").await.err(), Some(Reason::KubernetesUnavailable));
        assert!(ring.refresh().await.is_err());
        assert!(ring.with_key("1").await.is_ok());
    }
}
