//! One connection after the other, as facts.
//!
//! Owns when NATS counts as connected: once this connection has delivered the full content of all three buckets, and not
//! from the moment it is lost. `Disconnected` always comes before any content of a later connection. Never decides.

use std::collections::BTreeMap;

use cluster_plan::Fact;
use daemon::bus::{BucketEvent, BucketWatch, Bus, Operation, Status, Stored};
use daemon::driver::Inbox;
use daemon::supervise::{Shutdown, Tasks};
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use shared::name::ClusterId;
use shared::subject::Bucket;
use tokio::sync::watch;

use super::buckets::spec;
use super::feed::{Feed, stored};
use super::{Assignments, Intents, Inventories};
use crate::config::BucketSettings;

/// What is wrong with each bucket, for readiness.
pub type Troubles = BTreeMap<Bucket, String>;

/// Ensures and watches the buckets until the shutdown.
pub struct Session {
    status: Status,
    inbox: Inbox<Fact>,
    troubles: watch::Sender<Troubles>,
    connection: Connection,
    events: stream::SelectAll<BoxStream<'static, News>>,
}

/// An event of one bucket, with its documents decoded.
enum News {
    Read(Bucket, Fact),
    Changed(Fact),
    Ignored,
    Lost(Bucket),
    Failed(Bucket, String),
}

impl Session {
    /// Begins; [`Session::run`] goes on.
    pub fn new(bus: &Bus, cluster: &ClusterId, settings: &BucketSettings, inbox: Inbox<Fact>, tasks: &Tasks) -> Self {
        let watch_one = |bucket| bus.watch_bucket(spec(bucket, cluster, settings), settings.manage, tasks);
        let events = stream::select_all([
            news::<Intents>(watch_one(Bucket::Intents), cluster.clone()),
            news::<Assignments>(watch_one(Bucket::Assign), cluster.clone()),
            news::<Inventories>(watch_one(Bucket::Nodes), cluster.clone()),
        ]);
        let troubles = watch::Sender::new(Troubles::new());
        Self { status: bus.status(), inbox, troubles, connection: Connection::default(), events }
    }

    /// What is wrong with the buckets, now and on every change.
    pub fn troubles(&self) -> watch::Receiver<Troubles> {
        self.troubles.subscribe()
    }

    /// Turns events into facts.
    pub async fn run(mut self, shutdown: Shutdown) {
        loop {
            let news = tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                changed = self.status.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    None
                }
                news = self.events.next() => match news {
                    Some(news) => Some(news),
                    None => return,
                },
            };
            // Looked at after the event was taken: whatever a later connection delivers comes after its number.
            let generation = self.status.borrow_and_update().generation();
            if self.connection.is_another(generation) {
                self.inbox.send(Fact::Disconnected).await;
            }
            if let Some(news) = news {
                self.take(news).await;
            }
        }
    }

    async fn take(&mut self, news: News) {
        match news {
            News::Read(bucket, fact) => {
                self.inbox.send(fact).await;
                self.trouble(bucket, None);
                if self.connection.has_read(bucket) {
                    self.inbox.send(Fact::Connected).await;
                }
            }
            News::Changed(fact) => self.inbox.send(fact).await,
            News::Ignored => {}
            News::Lost(bucket) => self.connection.has_lost(bucket),
            News::Failed(bucket, error) => self.trouble(bucket, Some(&error)),
        }
    }

    fn trouble(&self, bucket: Bucket, trouble: Option<&str>) {
        self.troubles.send_if_modified(|troubles| {
            let before = match trouble {
                Some(text) => troubles.insert(bucket, text.to_owned()),
                None => troubles.remove(&bucket),
            };
            before.as_deref() != trouble
        });
    }
}

fn news<F: Feed>(watch: BucketWatch, cluster: ClusterId) -> BoxStream<'static, News> {
    let of = move |message: &Stored| {
        let key = F::BUCKET.key_of(&cluster, &message.subject)?;
        stored::<F>(key, message.seq, (message.operation() == Operation::Put).then_some(&message.payload[..]))
    };
    let bucket = F::BUCKET;
    watch
        .map(move |event| match event {
            BucketEvent::Read { created, head, entries } => {
                News::Read(bucket, F::read(created, head, entries.iter().filter_map(&of).collect()))
            }
            BucketEvent::Changed(message) => {
                of(&message).map_or(News::Ignored, |entry| News::Changed(F::changed(entry)))
            }
            BucketEvent::Lost => News::Lost(bucket),
            BucketEvent::Failed(error) => News::Failed(bucket, error.to_string()),
        })
        .boxed()
}

/// Which connection there is and what it has delivered.
#[derive(Debug, Default)]
struct Connection {
    generation: Option<u64>,
    read: [bool; 3],
    told: bool,
}

impl Connection {
    /// Takes the number of the connection there is; says whether a connection that was told of is gone.
    fn is_another(&mut self, generation: Option<u64>) -> bool {
        if self.generation == generation {
            return false;
        }
        let told = self.told;
        *self = Self { generation, ..Self::default() };
        told
    }

    /// Says whether this completes the connection.
    fn has_read(&mut self, bucket: Bucket) -> bool {
        self.set(bucket, true);
        let is_complete = self.generation.is_some() && self.read.iter().all(|read| *read);
        is_complete && !std::mem::replace(&mut self.told, true)
    }

    /// A full read follows; until then the connection stays told: what is known is only late.
    fn has_lost(&mut self, bucket: Bucket) {
        self.set(bucket, false);
    }

    fn set(&mut self, bucket: Bucket, is_read: bool) {
        for (known, read) in Bucket::ALL.iter().zip(&mut self.read) {
            if *known == bucket {
                *read = is_read;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_told_once_all_three_buckets_were_read_and_told_again_after_the_next() {
        let mut connection = Connection::default();
        assert!(!connection.is_another(Some(1)));
        assert!(!connection.has_read(Bucket::Nodes) && !connection.has_read(Bucket::Intents));
        assert!(connection.has_read(Bucket::Assign));
        assert!(!connection.has_read(Bucket::Assign), "told already");
        assert!(connection.is_another(None));
        assert!(!connection.is_another(Some(2)), "told already");
        assert!(!connection.has_read(Bucket::Nodes) && !connection.has_read(Bucket::Intents));
        assert!(connection.has_read(Bucket::Assign));
    }

    #[test]
    fn a_connection_made_anew_between_two_looks_is_a_disconnect() {
        let mut connection = Connection::default();
        connection.is_another(Some(1));
        let told = Bucket::ALL.map(|bucket| connection.has_read(bucket));
        assert_eq!(told, [false, false, true]);
        assert!(connection.is_another(Some(2)));
    }

    #[test]
    fn a_bucket_that_is_read_again_within_a_connection_is_no_disconnect() {
        let mut connection = Connection::default();
        connection.is_another(Some(1));
        let _ = Bucket::ALL.map(|bucket| connection.has_read(bucket));
        connection.has_lost(Bucket::Intents);
        assert!(!connection.is_another(Some(1)) && !connection.has_read(Bucket::Intents));
    }

    #[test]
    fn what_arrives_late_from_a_lost_connection_completes_nothing() {
        let mut connection = Connection::default();
        connection.is_another(Some(1));
        connection.has_read(Bucket::Assign);
        connection.is_another(None);
        assert_eq!(Bucket::ALL.map(|bucket| connection.has_read(bucket)), [false; 3]);
    }
}
