//! The ways between the clients and the NATS server.
//!
//! Owns connections: their order, what is in flight when one is cut, subscriptions, requests and their timeouts, and
//! messages on core NATS that are lost, doubled or late. Knows nothing of what is said.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use shared::reason::Reason;
use shared::subject::Subject;

use super::bus::Body;
use super::dice::About;
use super::process::Who;
use super::queue::{Deed, MS, SEC, Us};
use super::universe::Universe;

/// A request that takes longer has failed.
const REQUEST_TIMEOUT: Us = 2 * SEC;
/// A client notices after this long that nothing comes or goes.
const SILENCE: Us = 2 * SEC;

/// One client.
#[derive(Default)]
pub(super) struct Client {
    generation: Option<u64>,
    made: u64,
    /// What is in flight on connections up to this one is lost.
    cut: u64,
    /// What the server sends it.
    subjects: BTreeSet<String>,
    last_up: Us,
    last_down: Us,
    blocked_up: u32,
    blocked_down: u32,
    held_up: Vec<(u64, Deed)>,
    held_down: Vec<(u64, Deed)>,
    is_connecting: bool,
    /// The process is stopped: what reaches it waits.
    pub(super) is_paused: bool,
    stalled: Vec<Deed>,
}

/// A message on core NATS.
#[derive(Debug, Clone)]
pub(super) struct Wire {
    pub(super) subject: String,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Body,
}

/// Whether a subject is covered by a subscription.
fn covers(subscription: &str, subject: &str) -> bool {
    let mut tokens = subject.split('.');
    for wanted in subscription.split('.') {
        match tokens.next() {
            Some(token) if wanted == "*" || wanted == token => {}
            _ => return false,
        }
    }
    tokens.next().is_none()
}

type Then<R> = Rc<RefCell<Option<Box<dyn FnOnce(&mut Universe, Result<R, Reason>)>>>>;

impl Universe {
    /// The number of the connection of a client.
    pub(super) fn generation(&self, who: Who) -> Option<u64> {
        self.clients.get(&who).and_then(|client| client.generation)
    }

    fn client(&mut self, who: Who) -> &mut Client {
        self.clients.entry(who).or_default()
    }

    /// How long a way takes.
    fn latency(&mut self, about: About) -> Us {
        let rng = self.dice.about(about);
        if rng.u8(..) < 16 { rng.u64(MS..20 * MS) } else { rng.u64(100..1_500) }
    }

    /// Sends something to the server, in the order of the connection. Says whether there is a connection.
    pub(super) fn send(&mut self, who: Who, deed: Deed) -> bool {
        let Some(generation) = self.generation(who) else { return false };
        let at = self.now + self.latency(About::Up(who));
        let client = self.client(who);
        client.last_up = at.max(client.last_up + 1);
        let at = client.last_up;
        self.at(at, move |u| u.arrive_up(who, generation, deed));
        true
    }

    fn arrive_up(&mut self, who: Who, generation: u64, deed: Deed) {
        let is_up = self.nats_up;
        let client = self.client(who);
        if client.cut >= generation || !is_up {
            return;
        }
        if client.blocked_up > 0 {
            client.held_up.push((generation, deed));
        } else {
            deed(self);
        }
    }

    /// Sends something from the server to a client, in the order of the connection.
    pub(super) fn deliver(&mut self, who: Who, deed: Deed) {
        let Some(generation) = self.generation(who) else { return };
        let at = self.now + self.latency(About::Down(who));
        let client = self.client(who);
        client.last_down = at.max(client.last_down + 1);
        let at = client.last_down;
        self.at(at, move |u| u.arrive_down(who, generation, deed));
    }

    fn arrive_down(&mut self, who: Who, generation: u64, deed: Deed) {
        let client = self.client(who);
        if client.generation != Some(generation) {
            return;
        }
        if client.blocked_down > 0 {
            client.held_down.push((generation, deed));
        } else {
            self.reach(who, deed);
        }
    }

    /// Something reaches a process; while it is stopped it waits.
    pub(super) fn reach(&mut self, who: Who, deed: Deed) {
        let client = self.client(who);
        if client.is_paused {
            client.stalled.push(deed);
        } else {
            deed(self);
        }
    }

    /// A stopped process goes on.
    pub(super) fn wake(&mut self, who: Who) {
        let client = self.client(who);
        client.is_paused = false;
        for deed in std::mem::take(&mut client.stalled) {
            deed(self);
        }
        self.queue_turn(who);
    }

    /// Asks the server; `then` is called once in the process that asked, while it lives.
    pub(super) fn request<R: 'static>(
        &mut self,
        who: Who,
        ask: impl FnOnce(&mut Self) -> R + 'static,
        then: impl FnOnce(&mut Self, Result<R, Reason>) + 'static,
    ) {
        let Some(incarnation) = self.incarnation(who) else { return };
        let then: Then<R> = Rc::new(RefCell::new(Some(Box::new(then))));
        let answer = move |u: &mut Self, then: &Then<R>, result| {
            let taken = then.borrow_mut().take();
            if let Some(taken) = taken.filter(|_| u.incarnation(who) == Some(incarnation)) {
                taken(u, result);
            }
        };
        let answered = Rc::clone(&then);
        let is_sent = self.send(
            who,
            Box::new(move |u| {
                let result = ask(u);
                u.deliver(who, Box::new(move |u| answer(u, &answered, Ok(result))));
            }),
        );
        let (wait, reason) = if is_sent { (REQUEST_TIMEOUT, Reason::Timeout) } else { (50, Reason::Disconnected) };
        self.after(wait, move |u| u.reach(who, Box::new(move |u| answer(u, &then, Err(reason)))));
    }

    /// What the server sends a client from here on.
    pub(super) fn set_subjects(&mut self, who: Who, subjects: BTreeSet<String>) {
        self.client(who).subjects = subjects;
    }

    /// Publishes on core NATS; says whether there is a connection.
    pub(super) fn publish(&mut self, who: Who, wire: Wire) -> bool {
        self.send(who, Box::new(move |u| u.spread(&wire)))
    }

    /// The server passes a message to everybody who subscribed.
    pub(super) fn spread(&mut self, wire: &Wire) {
        let listeners: Vec<Who> = self
            .clients
            .iter()
            .filter(|(_, c)| c.generation.is_some() && c.subjects.iter().any(|s| covers(s, &wire.subject)))
            .map(|(who, _)| *who)
            .collect();
        let weather = self.weather;
        for who in listeners {
            let mut roll = |percent: u8| self.dice.about(About::Delivery(who)).u8(0..100) < percent;
            let (is_lost, is_doubled, is_late) = (roll(weather.lost), roll(weather.doubled), roll(weather.late));
            let subject = || Subject::parse(&self.cluster, &wire.subject);
            let tells_pools = |subject| {
                matches!(subject, Subject::Assign(_) | Subject::Delta(_) | Subject::Heartbeat(_) | Subject::Request(..))
            };
            if (is_lost || is_late) && subject().is_some_and(tells_pools) {
                // An agent that misses where an image moved to takes its withdrawal at its word, until two heartbeats
                // have shown it and it was asked.
                self.checks.meddled = Some(self.now);
            }
            if is_lost {
                continue;
            }
            for _ in 0..=u8::from(is_doubled) {
                let wire = wire.clone();
                let deed: Deed = Box::new(move |u| u.receive(who, &wire));
                if let (true, Some(generation)) = (is_late, self.generation(who)) {
                    let late = self.dice.about(About::Delivery(who)).u64(MS..500 * MS);
                    self.after(late, move |u| u.arrive_down(who, generation, deed));
                } else {
                    self.deliver(who, deed);
                }
            }
        }
    }

    /// Begins to connect, unless that is under way.
    pub(super) fn connect(&mut self, who: Who) {
        let client = self.client(who);
        if client.generation.is_some() || std::mem::replace(&mut client.is_connecting, true) {
            return;
        }
        self.connect_later(who);
    }

    fn connect_later(&mut self, who: Who) {
        let wait = self.dice.about(About::Connect(who)).u64(MS..300 * MS);
        self.after(wait, move |u| u.reach(who, Box::new(move |u| u.try_to_connect(who))));
    }

    fn try_to_connect(&mut self, who: Who) {
        let (is_up, is_alive) = (self.nats_up, self.incarnation(who).is_some());
        let client = self.client(who);
        if !is_alive {
            client.is_connecting = false;
            return;
        }
        if !is_up || client.blocked_up + client.blocked_down > 0 {
            self.connect_later(who);
            return;
        }
        client.is_connecting = false;
        client.made += 1;
        client.generation = Some(client.made);
        client.subjects.clear();
        self.connected(who);
    }

    /// The connection ends; `is_cut` loses what is in flight to the server as well.
    pub(super) fn close(&mut self, who: Who, is_cut: bool) {
        let client = self.client(who);
        let Some(generation) = client.generation.take() else { return };
        if is_cut {
            client.cut = generation;
        }
        client.subjects.clear();
        client.held_up.clear();
        client.held_down.clear();
        self.reach(who, Box::new(move |u| u.disconnected(who)));
        self.connect(who);
    }

    /// The process is gone, and with it all that waits for it.
    pub(super) fn forget(&mut self, who: Who) {
        let client = self.client(who);
        client.generation = None;
        client.subjects.clear();
        client.held_down.clear();
        client.stalled.clear();
        client.is_paused = false;
        client.is_connecting = false;
    }

    /// The ways of a client are blocked: it notices after a while.
    pub(super) fn block(&mut self, who: Who, up: bool, down: bool) {
        let client = self.client(who);
        client.blocked_up += u32::from(up);
        client.blocked_down += u32::from(down);
        let generation = client.generation;
        self.after(SILENCE, move |u| {
            let client = u.client(who);
            if client.blocked_up + client.blocked_down > 0 && client.generation == generation {
                u.close(who, true);
            }
        });
    }

    /// The ways are open again; what was held arrives, if the connection has outlived it.
    pub(super) fn unblock(&mut self, who: Who, up: bool, down: bool) {
        let client = self.client(who);
        client.blocked_up = client.blocked_up.saturating_sub(u32::from(up));
        client.blocked_down = client.blocked_down.saturating_sub(u32::from(down));
        let held_up = if client.blocked_up == 0 { std::mem::take(&mut client.held_up) } else { Vec::new() };
        let held_down = if client.blocked_down == 0 { std::mem::take(&mut client.held_down) } else { Vec::new() };
        for (generation, deed) in held_up {
            self.arrive_up(who, generation, deed);
        }
        for (generation, deed) in held_down {
            self.arrive_down(who, generation, deed);
        }
    }
}
