use std::sync::Mutex;

use serde::{Deserialize, Serialize};

use super::*;
use crate::supervise::Trigger;

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
enum Fact {
    Changes(u32),
    Idle,
    DueAt(u64),
}

impl Kind for Fact {
    fn kind(&self) -> &'static str {
        "fact"
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Effect {
    at: u64,
    learned: Vec<u32>,
}

impl Kind for Effect {
    fn kind(&self) -> &'static str {
        "effect"
    }
}

/// Emits at each step what it learned since the last.
#[derive(Default)]
struct Counter {
    learned: Vec<u32>,
    due: Option<Moment>,
}

impl Machine for Counter {
    type Fact = Fact;
    type Effect = Effect;

    fn apply(&mut self, fact: Fact, _: Now) -> Changed {
        match fact {
            Fact::Changes(n) => self.learned.push(n),
            Fact::Idle => return Changed::No,
            Fact::DueAt(at) => {
                self.due = Some(Moment(at));
                return Changed::No;
            }
        }
        Changed::Yes
    }

    fn step(&mut self, now: Now) -> Vec<Effect> {
        if self.due.is_some_and(|due| due <= now.mono) {
            self.due = None;
        }
        vec![Effect { at: now.mono.0, learned: std::mem::take(&mut self.learned) }]
    }

    fn next_due(&self) -> Option<Moment> {
        self.due
    }
}

#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<Effect>>>);

impl Dispatch<Effect> for Seen {
    fn dispatch(&mut self, effect: Effect) {
        self.0.lock().unwrap().push(effect);
    }
}

impl Seen {
    fn take(&self) -> Vec<(u64, Vec<u32>)> {
        self.0.lock().unwrap().drain(..).map(|effect| (effect.at, effect.learned)).collect()
    }
}

struct Loop {
    inbox: Inbox<Fact>,
    seen: Seen,
    watched: Arc<AtomicU64>,
    trigger: Trigger,
    running: tokio::task::JoinHandle<Counter>,
    clock: Clock,
}

#[expect(clippy::disallowed_methods, reason = "a test runs the loop beside itself")]
fn start(window_ms: u64) -> Loop {
    let (inbox, facts) = channel(16);
    let (trigger, shutdown) = Shutdown::manual();
    let (seen, watched, clock) = (Seen::default(), Arc::new(AtomicU64::new(0)), Clock::new());
    let settings = DriverSettings { window: Duration::from_millis(window_ms), ..DriverSettings::default() };
    let count = Arc::clone(&watched);
    let watch = move |_: &Counter, _: Now| {
        count.fetch_add(1, Ordering::Relaxed);
    };
    let running = tokio::spawn(run(Counter::default(), facts, seen.clone(), settings, clock, watch, shutdown));
    Loop { inbox, seen, watched, trigger, running, clock }
}

async fn pass(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

#[tokio::test(start_paused = true)]
async fn the_first_step_needs_no_fact_and_the_first_fact_after_quiet_steps_at_once() {
    let it = start(50);
    pass(100).await;
    assert_eq!(it.seen.take(), [(0, vec![])]);
    it.inbox.send(Fact::Changes(1)).await;
    pass(1).await;
    assert_eq!(it.seen.take(), [(100, vec![1])]);
}

#[tokio::test(start_paused = true)]
async fn within_the_window_facts_gather_for_one_step_at_its_end() {
    let it = start(50);
    pass(100).await;
    it.seen.take();
    it.inbox.send(Fact::Changes(1)).await;
    pass(10).await;
    it.inbox.send(Fact::Changes(2)).await;
    pass(20).await;
    it.inbox.send(Fact::Changes(3)).await;
    pass(100).await;
    assert_eq!(it.seen.take(), [(100, vec![1]), (150, vec![2, 3])]);
}

#[tokio::test(start_paused = true)]
async fn without_a_window_every_drain_of_the_inbox_is_a_step() {
    let it = start(0);
    pass(10).await;
    it.seen.take();
    for n in 1..=3 {
        it.inbox.send(Fact::Changes(n)).await;
    }
    pass(1).await;
    it.inbox.send(Fact::Changes(4)).await;
    pass(1).await;
    assert_eq!(it.seen.take(), [(10, vec![1, 2, 3]), (11, vec![4])]);
}

#[tokio::test(start_paused = true)]
async fn a_fact_that_changes_nothing_takes_no_step() {
    let it = start(0);
    pass(10).await;
    it.seen.take();
    it.inbox.send(Fact::Idle).await;
    pass(5_000).await;
    assert_eq!(it.seen.take(), []);
}

#[tokio::test(start_paused = true)]
async fn the_due_time_of_the_machine_is_heeded_and_shortens_the_sleep() {
    let it = start(50);
    pass(1).await;
    it.seen.take();
    it.inbox.send(Fact::DueAt(2_345)).await;
    pass(2_343).await;
    assert_eq!(it.seen.take(), []);
    pass(5).await;
    assert_eq!(it.seen.take(), [(2_345, vec![])]);
}

#[tokio::test(start_paused = true)]
async fn a_due_time_in_the_past_keeps_to_the_window() {
    let it = start(50);
    pass(10).await;
    it.seen.take();
    it.inbox.send(Fact::DueAt(0)).await;
    pass(100).await;
    assert_eq!(it.seen.take(), [(50, vec![])]);
}

#[tokio::test(start_paused = true)]
async fn the_loop_turns_every_second_at_rest_and_a_waker_has_it_watched_without_a_step() {
    let it = start(50);
    let live = it.inbox.liveness(&it.clock);
    assert_eq!(live.since_turn(), None);
    pass(9_500).await;
    assert!(live.since_turn().unwrap() <= DriverSettings::default().turn, "{:?}", live.since_turn());
    assert_eq!(it.watched.load(Ordering::Relaxed), 1);
    it.inbox.waker().wake();
    pass(1).await;
    assert_eq!(it.watched.load(Ordering::Relaxed), 2);
    assert_eq!(it.seen.take().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_shutdown_gives_the_machine_back_and_facts_that_come_later_are_dropped() {
    let it = start(50);
    pass(100).await;
    it.inbox.send(Fact::Changes(1)).await;
    pass(10).await;
    it.inbox.send(Fact::Changes(2)).await;
    pass(1).await;
    it.trigger.trigger();
    let machine = it.running.await.unwrap();
    assert_eq!(machine.learned, [2]);
    it.inbox.send(Fact::Changes(3)).await;
    assert!(it.inbox.try_send(Fact::Changes(4)).is_err());
}

#[tokio::test(start_paused = true)]
async fn the_loop_goes_on_when_every_sender_is_gone() {
    let Loop { inbox, seen, trigger, running, .. } = start(50);
    inbox.send(Fact::DueAt(500)).await;
    drop(inbox);
    pass(1_000).await;
    assert_eq!(seen.take().last().map(|(at, _)| *at), Some(500));
    trigger.trigger();
    running.await.unwrap();
}
