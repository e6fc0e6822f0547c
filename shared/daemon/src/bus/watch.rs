//! Watches a bucket: everything in it, then every change, and everything again after whatever may have cost one.
//!
//! Owns the ordered consumer of one process on one bucket. For controllers: agents read by direct get, since a consumer per
//! node would cost the server too much.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use async_nats::Subscriber;
use futures::{FutureExt as _, Stream, StreamExt as _};
use serde_json::{Value, json};
use shared::backoff::Backoff;
use shared::metric;
use tokio::sync::mpsc;
use tracing::{debug, warn};

use super::error::STREAM_NOT_FOUND;
use super::{BucketInfo, BucketSpec, Bus, BusError, Headers, Status, Stored};
use crate::metrics;
use crate::supervise::{Shutdown, Tasks};

const ROOM: usize = 1_024;
const HEARTBEAT: Duration = Duration::from_secs(2);
/// Three heartbeats missed.
const SILENCE: Duration = Duration::from_millis(6_500);
/// How often the server is asked whether it still has what was delivered: keys can go without a message.
const AUDIT: Duration = Duration::from_secs(5);
/// How long the server keeps a consumer that nobody listens to. A process that is killed leaves one on each bucket: for the
/// 64 of a bucket to be taken, more than six would have to start and die every second.
const ABANDONED: Duration = Duration::from_secs(10);
const RETRY: Backoff = Backoff { base: Duration::from_millis(250), ceiling: Duration::from_secs(15) };
const CONTROL: u16 = 100;

/// What a watch tells.
#[derive(Debug, Clone)]
pub enum BucketEvent {
    /// The whole content: what was known before no longer counts.
    Read {
        /// When the stream was made; another text is another stream.
        created: String,
        /// The stream's last sequence that is covered.
        head: u64,
        /// Every key's last message, markers included, in order of their sequences.
        entries: Vec<Stored>,
    },
    /// A key changed, after `Read`.
    Changed(Stored),
    /// Changes may be missed from now on; a `Read` will follow.
    Lost,
    /// The bucket cannot be made, verified or read; it is tried again.
    Failed(BusError),
}

/// The events of [`Bus::watch_bucket`]. Dropping it ends the watch.
#[derive(Debug)]
pub struct BucketWatch(mpsc::Receiver<BucketEvent>);

impl BucketWatch {
    /// The next event; `None` when the process ends.
    pub async fn recv(&mut self) -> Option<BucketEvent> {
        self.0.recv().await
    }
}

impl Stream for BucketWatch {
    type Item = BucketEvent;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<BucketEvent>> {
        self.0.poll_recv(cx)
    }
}

impl Bus {
    /// Ensures the bucket (see [`Bus::ensure_bucket`]) and watches it until the shutdown, over reconnects, lost consumers
    /// and recreated streams: each of them ends in a new [`BucketEvent::Read`].
    pub fn watch_bucket(&self, spec: BucketSpec, manage: bool, tasks: &Tasks) -> BucketWatch {
        let (events, receiver) = mpsc::channel(ROOM);
        let watcher = Watcher { bus: self.clone(), status: self.status(), spec, manage, events, abandoned: Vec::new() };
        tasks.spawn("nats-bucket-watch", watcher.run(tasks.shutdown()));
        BucketWatch(receiver)
    }

    /// Asks the server to remove a consumer; says whether that could be sent. One that is gone already is no error.
    async fn remove_consumer(&self, stream: &str, consumer: &str) -> bool {
        let subject = format!("$JS.API.CONSUMER.DELETE.{stream}.{consumer}");
        self.connected("").is_ok()
            && matches!(self.in_time("", self.inner.client.publish(subject, "".into())).await, Ok(Ok(())))
    }
}

struct Watcher {
    bus: Bus,
    status: Status,
    spec: BucketSpec,
    manage: bool,
    events: mpsc::Sender<BucketEvent>,
    /// Consumers of connections that are no more. The server keeps them while it takes such a connection for open, which
    /// can be minutes: a network that drops connections again and again would have them take every place there is.
    abandoned: Vec<String>,
}

/// Why following ended.
enum End {
    /// Nobody listens any more.
    Unwatched,
    /// Before or after the content was read.
    Error { error: BusError, was_read: bool },
}

impl Watcher {
    async fn run(mut self, shutdown: Shutdown) {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = self.follow_for_ever() => shutdown.cancelled().await,
        }
    }

    async fn follow_for_ever(&mut self) {
        let mut failures = 0;
        loop {
            let connected = self.status.wait_for(super::BusStatus::is_connected).await;
            let Some(generation) = connected.ok().and_then(|status| status.generation()) else {
                return;
            };
            let (error, was_read) = match self.follow(generation).await {
                End::Unwatched => return,
                End::Error { error, was_read } => (error, was_read),
            };
            failures = if was_read { 1 } else { failures + 1 };
            let event = if was_read {
                debug!(bucket = self.spec.name, %error, "the watch is lost");
                BucketEvent::Lost
            } else {
                if failures == 1 {
                    warn!(bucket = self.spec.name, %error, "the bucket cannot be watched; trying again");
                }
                BucketEvent::Failed(error)
            };
            if self.events.send(event).await.is_err() {
                return;
            }
            // A new connection is worth a try at once.
            let wait = RETRY.equal_jitter(failures, &mut fastrand::Rng::new());
            let reconnected = self.status.wait_for(|status| status.generation().is_some_and(|now| now != generation));
            let _ = tokio::time::timeout(wait, reconnected).await;
        }
    }

    async fn follow(&mut self, generation: u64) -> End {
        while let Some(consumer) = self.abandoned.pop() {
            if !self.bus.remove_consumer(&self.spec.stream(), &consumer).await {
                self.abandoned.push(consumer);
                break;
            }
        }
        let mut feed = match Feed::open(&self.bus, &self.spec, self.manage).await {
            Ok(feed) => feed,
            Err(error) => return End::Error { error, was_read: false },
        };
        let mut was_read = false;
        let end = tokio::select! {
            end = self.forward(&mut feed, &mut was_read) => end,
            () = gone(self.status.clone(), generation) => Some(self.bus.connected("the watch").err()
                .unwrap_or_else(|| feed.broken("the connection was made anew"))),
        };
        // At once, and again on the next connection: this one may be dead without anybody knowing yet.
        self.bus.remove_consumer(&feed.stream, &feed.consumer).await;
        self.abandoned.push(feed.consumer);
        end.map_or(End::Unwatched, |error| End::Error { error, was_read })
    }

    /// `None` when nobody listens any more.
    async fn forward(&self, feed: &mut Feed, was_read: &mut bool) -> Option<BusError> {
        let read = match feed.read_all(&self.bus).await {
            Ok(read) => read,
            Err(error) => return Some(error),
        };
        *was_read = true;
        self.events.send(read).await.ok()?;
        let mut audits = tokio::time::interval(AUDIT);
        audits.reset();
        loop {
            match feed.next(&self.bus).await {
                Ok(Item::Message(stored, _)) => self.events.send(BucketEvent::Changed(stored)).await.ok()?,
                Ok(Item::Idle) => {}
                Err(error) => return Some(error),
            }
            // Not beside the wait for the next message: a heartbeat comes often enough.
            if audits.tick().now_or_never().is_some()
                && let Err(error) = feed.audit(&self.bus, &self.spec).await
            {
                return Some(error);
            }
        }
    }
}

/// For alerts: what no bucket has room for is refused, and nobody but the writer notices.
fn show(spec: &BucketSpec, info: &BucketInfo) {
    let word = spec.name.rsplit('-').next().unwrap_or_default();
    metrics::gauge(metric::BUCKET_USED, &[word], info.used());
}

/// Waits until the connection is not the one of `generation`.
async fn gone(mut status: Status, generation: u64) {
    // The sender lives as long as the bus, which the watcher holds.
    let _ = status.wait_for(|status| status.generation() != Some(generation)).await;
}

enum Item {
    /// A message and how many are still to come.
    Message(Stored, u64),
    /// The server has nothing to say.
    Idle,
}

/// One ordered consumer: last value of every key, then every change. Any gap breaks it.
struct Feed {
    stream: String,
    consumer: String,
    messages: Subscriber,
    info: BucketInfo,
    /// What the server had to deliver when the consumer was made.
    pending: u64,
    delivered: Delivered,
    held: Held,
}

/// What the stream holds, as far as it was delivered: the last message of each subject.
#[derive(Debug, Default)]
struct Held {
    subjects: BTreeSet<String>,
    last_seq: u64,
}

impl Held {
    fn take(&mut self, subject: &str, seq: u64) {
        if !self.subjects.contains(subject) {
            self.subjects.insert(subject.to_owned());
        }
        self.last_seq = self.last_seq.max(seq);
    }

    /// Whether keys went without a message that says so: purged with the stream, removed by hand, or expired.
    fn differs(&self, info: &BucketInfo) -> bool {
        // Of a later sequence: it is being delivered, the next audit will tell.
        info.last_seq <= self.last_seq && info.messages != self.subjects.len() as u64
    }
}

/// Messages delivered so far: the server counts them as we do, or one is missing.
#[derive(Debug, Default)]
struct Delivered(u64);

impl Delivered {
    /// Whether the server's `count` for the next message leaves none out.
    fn follows(&mut self, count: u64) -> bool {
        let is_next = count == self.0 + 1;
        self.0 = count;
        is_next
    }

    /// Whether the server's `count` in a heartbeat, if it says one, is ours.
    fn agrees(&self, count: Option<u64>) -> bool {
        count.is_none_or(|count| count == self.0)
    }
}

impl Feed {
    async fn open(bus: &Bus, spec: &BucketSpec, manage: bool) -> Result<Self, BusError> {
        let before = bus.ensure_bucket(spec, manage).await?;
        let inbox = bus.inner.client.new_inbox();
        let messages = bus.subscriber(inbox.clone()).await?;
        let stream = spec.stream();
        let request = json!({ "stream_name": stream, "config": {
            "deliver_subject": inbox,
            "deliver_policy": "last_per_subject",
            "filter_subject": spec.all_keys(),
            "ack_policy": "none",
            "replay_policy": "instant",
            "max_deliver": 1,
            "flow_control": true,
            "idle_heartbeat": nanos(HEARTBEAT),
            "inactive_threshold": nanos(ABANDONED),
            "mem_storage": true,
            "num_replicas": 1,
        }});
        let what = format!("watching bucket {}", spec.name);
        let made = bus.api(&what, &format!("CONSUMER.CREATE.{stream}"), &request).await?;
        let consumer = made.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
        let pending = made.get("num_pending").and_then(Value::as_u64).unwrap_or_default();
        // Had the stream been made anew meanwhile, `created` would be the wrong one.
        let info = bus.bucket_info(spec).await?;
        show(spec, &info);
        let held = Held { last_seq: before.last_seq, ..Held::default() };
        let feed = Self { stream, consumer, messages, info: before, pending, delivered: Delivered::default(), held };
        if feed.info.created != info.created {
            return Err(feed.broken("the stream was made anew"));
        }
        Ok(feed)
    }

    fn broken(&self, why: &str) -> BusError {
        BusError::Invalid { what: format!("watching {}", self.stream), text: why.to_owned() }
    }

    /// An error if the stream is not what was delivered. One that is silent is noticed by its missing heartbeats.
    async fn audit(&self, bus: &Bus, spec: &BucketSpec) -> Result<(), BusError> {
        let info = bus.bucket_info(spec).await.inspect(|info| show(spec, info));
        match info {
            Ok(info) if info.created != self.info.created => Err(self.broken("the stream was made anew")),
            Ok(info) if self.held.differs(&info) => Err(self.broken("keys went without a message")),
            Err(error @ BusError::Server { err_code: STREAM_NOT_FOUND, .. }) => Err(error),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    async fn read_all(&mut self, bus: &Bus) -> Result<BucketEvent, BusError> {
        let mut entries: BTreeMap<u64, Stored> = BTreeMap::new();
        let mut newest: BTreeMap<String, u64> = BTreeMap::new();
        let mut left = self.pending;
        while left > 0 {
            match self.next(bus).await? {
                Item::Message(stored, pending) => {
                    left = pending;
                    // Rewritten while it was read: the later counts.
                    if let Some(older) = newest.insert(stored.subject.clone(), stored.seq) {
                        entries.remove(&older);
                    }
                    entries.insert(stored.seq, stored);
                }
                // What was left has expired or been overwritten meanwhile.
                Item::Idle => left = 0,
            }
        }
        let head = entries.keys().next_back().copied().unwrap_or_default().max(self.info.last_seq);
        let created = self.info.created.clone();
        Ok(BucketEvent::Read { created, head, entries: entries.into_values().collect() })
    }

    async fn next(&mut self, bus: &Bus) -> Result<Item, BusError> {
        loop {
            let message = tokio::time::timeout(SILENCE, self.messages.next())
                .await
                .map_err(|_| self.broken("the server is silent; was the stream removed?"))?
                .ok_or_else(|| self.broken("the subscription ended"))?;
            match message.status.map(|status| status.as_u16()) {
                None => return self.stored(message),
                Some(CONTROL) => {
                    if let Some(idle) = self.control(bus, message).await? {
                        return Ok(idle);
                    }
                }
                Some(status) => {
                    let text = message.description.unwrap_or_default();
                    return Err(self.broken(&format!("the server says {status} {text}")));
                }
            }
        }
    }

    fn stored(&mut self, message: async_nats::Message) -> Result<Item, BusError> {
        let place = message.reply.as_deref().and_then(Place::parse).filter(|place| place.stream == self.stream);
        let Some(place) = place else {
            return Err(self.broken("a message came that no stream sent"));
        };
        if !self.delivered.follows(place.delivered) {
            return Err(self.broken("a message got lost"));
        }
        let (seq, time, pending) = (place.seq, place.time.clone(), place.pending);
        let subject = message.subject.into_string();
        self.held.take(&subject, seq);
        let stored = Stored { subject, seq, time, headers: Headers::new(message.headers), payload: message.payload };
        Ok(Item::Message(stored, pending))
    }

    /// A heartbeat says how much was delivered; a flow control wants an answer.
    async fn control(&self, bus: &Bus, message: async_nats::Message) -> Result<Option<Item>, BusError> {
        let headers = Headers::new(message.headers);
        let stalled = headers.get("Nats-Consumer-Stalled").map(str::to_owned);
        let is_heartbeat = message.reply.is_none();
        if let Some(reply) = message.reply.map(async_nats::Subject::into_string).or(stalled) {
            let answered = bus.in_time("flow control", bus.inner.client.publish(reply, "".into())).await?;
            answered.map_err(|error| BusError::invalid("flow control", error))?;
        }
        if !is_heartbeat {
            return Ok(None);
        }
        if !self.delivered.agrees(headers.number("Nats-Last-Consumer")) {
            return Err(self.broken("the last message got lost"));
        }
        Ok(Some(Item::Idle))
    }
}

/// What the reply subject of a delivered message says:
/// `$JS.ACK.[<domain>.<account>.]<stream>.<consumer>.<tries>.<seq>.<delivered>.<nanoseconds>.<pending>[.<token>]`.
struct Place<'a> {
    stream: &'a str,
    seq: u64,
    delivered: u64,
    time: String,
    pending: u64,
}

impl<'a> Place<'a> {
    fn parse(reply: &'a str) -> Option<Self> {
        let tokens: Vec<&str> = reply.strip_prefix("$JS.ACK.")?.split('.').collect();
        let tokens = if tokens.len() >= 9 { tokens.get(2..)? } else { tokens.as_slice() };
        let [stream, _, _, seq, delivered, nanos, pending, ..] = tokens else {
            return None;
        };
        let time = jiff::Timestamp::from_nanosecond(nanos.parse().ok()?).ok()?.to_string();
        let (seq, delivered, pending) = (seq.parse().ok()?, delivered.parse().ok()?, pending.parse().ok()?);
        Some(Self { stream, seq, delivered, time, pending })
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_left_out_is_noticed_at_the_next_one_or_at_the_heartbeat() {
        let mut delivered = Delivered::default();
        assert!(delivered.agrees(Some(0)) && delivered.agrees(None));
        assert!(delivered.follows(1) && delivered.follows(2));
        assert!(delivered.agrees(Some(2)) && !delivered.agrees(Some(3)));
        assert!(!delivered.follows(4));
    }

    #[test]
    fn a_key_that_went_without_a_message_is_noticed_and_one_that_is_on_its_way_is_not() {
        let mut held = Held::default();
        let info =
            |last_seq, messages| BucketInfo { created: String::new(), last_seq, messages, bytes: 0, max_bytes: None };
        held.take("a", 1);
        held.take("b", 2);
        held.take("a", 3);
        assert!(!held.differs(&info(3, 2)) && !held.differs(&info(4, 3)), "the fourth is on its way");
        assert!(held.differs(&info(3, 1)) && held.differs(&info(3, 0)));
        assert!(held.differs(&info(3, 3)), "more than one message of a key");
    }

    #[test]
    fn the_place_of_a_message_is_read_from_both_forms_of_its_reply() {
        let old = Place::parse("$JS.ACK.KV_a.cons.1.42.7.1700000000000000000.3").unwrap();
        assert_eq!((old.stream, old.seq, old.delivered, old.pending), ("KV_a", 42, 7, 3));
        assert_eq!(old.time, "2023-11-14T22:13:20Z");
        let new = Place::parse("$JS.ACK._.ACC.KV_a.cons.1.42.7.1700000000000000000.3.tok").unwrap();
        assert_eq!((new.stream, new.seq, new.delivered, new.pending), ("KV_a", 42, 7, 3));
        assert!(Place::parse("_INBOX.x").is_none());
    }
}
