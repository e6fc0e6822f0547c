use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use shared::machine::Kind;

use super::*;
use crate::clock::Clock;
use crate::driver::{self, Dispatch, DriverSettings};
use crate::supervise::Shutdown;

const SECRET: &str = "hunter2";

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Told {
    warm: String,
    image: String,
    error: String,
}

impl Kind for Told {
    fn kind(&self) -> &'static str {
        "told"
    }
}

/// Repeats at each step what it was told.
#[derive(Default)]
struct Echo(Vec<Told>);

impl Machine for Echo {
    type Fact = Told;
    type Effect = Told;

    fn apply(&mut self, fact: Told, _: Now) -> Changed {
        self.0.push(fact);
        Changed::Yes
    }

    fn step(&mut self, _: Now) -> Vec<Told> {
        std::mem::take(&mut self.0)
    }

    fn next_due(&self) -> Option<Moment> {
        None
    }
}

#[derive(Serialize, Deserialize)]
struct Beginning {
    instance: String,
}

impl Begin for Beginning {
    type Machine = Echo;
    const PROCESS: &'static str = "echo";
    const FREE_TEXT: &'static [&'static str] = &["warm"];
    fn begin(self, _: Now) -> Echo {
        Echo::default()
    }
}

struct Nowhere;

impl Dispatch<Told> for Nowhere {
    fn dispatch(&mut self, _: Told) {}
}

fn told(number: usize) -> Told {
    Told {
        warm: SECRET.to_owned(),
        image: format!("u:{SECRET}@reg.test/app:{number}"),
        error: format!("cannot pull: Bearer {SECRET}"),
    }
}

fn to(path: &Path, max_bytes: u64) -> RecordSettings {
    RecordSettings { path: Some(path.to_owned()), max_bytes }
}

fn beginning() -> Beginning {
    Beginning { instance: "pod-a".to_owned() }
}

/// A run of a process that learns `facts` and stops.
async fn run(settings: &RecordSettings, facts: usize) {
    let (tasks, shutdown) = Tasks::new();
    let clock = Clock::new();
    let mut machine = begin(settings, "1.2.3", beginning(), clock.now(), &tasks);
    for number in 0..facts {
        machine.apply(told(number), clock.now());
        machine.step(clock.now());
        // The writer keeps up.
        tokio::task::yield_now().await;
    }
    drop(machine);
    end(&tasks, &shutdown).await;
}

async fn end(tasks: &Tasks, shutdown: &Shutdown) {
    tasks.stop();
    tasks.run_until_signal(Duration::from_secs(30)).await.unwrap();
    assert!(shutdown.is_cancelled());
}

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.ends_with('\n'), "the last line is not whole");
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn size(path: &Path) -> u64 {
    std::fs::metadata(path).unwrap().len()
}

#[tokio::test]
async fn what_is_learned_and_decided_is_written_in_order_with_its_times_and_without_secrets() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("facts.jsonl");
    run(&to(&path, 1 << 20), 2).await;
    let lines = lines(&path);
    assert_eq!(lines.len(), 6, "{lines:?}");
    assert_eq!(lines[0]["recording"], FORMAT);
    assert_eq!((&lines[0]["process"], &lines[0]["version"]), (&json!("echo"), &json!("1.2.3")));
    assert_eq!(lines[0]["beginning"], json!({ "instance": "pod-a" }));
    assert_eq!(lines[1]["facts"][0]["image"], "***@reg.test/app:0");
    assert_eq!(lines[2]["effects"][0]["kind"], "told");
    assert_eq!(lines[2]["effects"][0]["body"]["image"], "***@reg.test/app:0");
    assert_eq!(lines[5], json!({ "end": "stopped" }));
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(!text.contains(SECRET), "{text}");
    for line in &lines[1..] {
        serde_json::from_value::<Line>(line.clone()).unwrap();
    }
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn the_times_are_those_that_the_driver_gave() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("facts.jsonl");
    let (tasks, shutdown) = Tasks::new();
    let clock = Clock::new();
    let machine = begin(&to(&path, 1 << 20), "1", beginning(), clock.now(), &tasks);
    let (inbox, facts) = driver::channel(8);
    for number in 0..3 {
        inbox.send(told(number)).await;
    }
    let (seen, mut steps) = mpsc::unbounded_channel();
    let watch = move |_: &Recorded<Echo>, now: Now| seen.send(now).unwrap();
    let ended = shutdown.clone();
    tasks.spawn("loop", async move {
        driver::run(machine, facts, Nowhere, DriverSettings::default(), clock, watch, ended).await;
    });
    // The first step needs no fact; the second is of those that waited.
    let steps = [steps.recv().await.unwrap(), steps.recv().await.unwrap()];
    end(&tasks, &shutdown).await;
    let lines = lines(&path);
    let time =
        |line: &Value| serde_json::from_value::<(Moment, jiff::Timestamp)>(json!([line["at"], line["wall"]])).unwrap();
    let decided: Vec<_> = lines.iter().filter(|line| line.get("effects").is_some()).map(time).collect();
    assert_eq!(decided, steps.map(|now| (now.mono, now.wall)));
    let learned: Vec<_> = lines.iter().filter_map(|line| line.get("facts")?.as_array()).collect();
    assert_eq!(learned.len(), 1, "facts of one reading of the clock share a line: {learned:?}");
    assert_eq!(learned[0].len(), 3);
}

#[tokio::test]
async fn without_a_path_there_is_no_task_and_no_file() {
    let (tasks, _) = Tasks::new();
    let machine = begin(&RecordSettings::default(), "1", beginning(), Clock::new().now(), &tasks);
    assert!(machine.sink.is_none());
}

#[tokio::test]
async fn a_recording_ends_at_its_limit_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("facts.jsonl");
    run(&to(&path, LEAST_BYTES), 500).await;
    assert!(size(&path) <= LEAST_BYTES / 2, "{} bytes", size(&path));
    assert!(size(&path) > LEAST_BYTES / 2 - 1_000, "it ended long before, at {} bytes", size(&path));
    assert_eq!(lines(&path).last().unwrap(), &json!({ "end": "limit" }));
}

#[tokio::test]
async fn the_run_before_is_kept_once_and_both_stay_within_the_bound() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("facts.jsonl");
    let previous = folder.path().join("facts.jsonl.previous");
    for facts in [3, 2, 1] {
        run(&to(&path, LEAST_BYTES), facts).await;
    }
    let facts = |path: &Path| lines(path).iter().filter(|line| line.get("facts").is_some()).count();
    assert_eq!((facts(&path), facts(&previous)), (1, 2));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    // Left by a run with another bound.
    for file in [&path, &previous] {
        std::fs::write(file, vec![b'x'; usize::try_from(LEAST_BYTES).unwrap()]).unwrap();
    }
    run(&to(&path, LEAST_BYTES), 1).await;
    assert_eq!(facts(&path), 1);
    assert!(!previous.exists(), "{} bytes", size(&previous));
}

#[tokio::test]
async fn a_machine_that_learns_faster_than_can_be_written_goes_on_without_a_recording() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("facts.jsonl");
    let (tasks, shutdown) = Tasks::new();
    let clock = Clock::new();
    let mut machine = begin(&to(&path, 1 << 30), "1", beginning(), clock.now(), &tasks);
    // One thread, and this task does not let the writer's run.
    for number in 0..=BACKLOG {
        assert_eq!(machine.apply(told(number), clock.now()), Changed::Yes);
    }
    assert_eq!(machine.step(clock.now()).len(), BACKLOG + 1);
    drop(machine);
    end(&tasks, &shutdown).await;
    let lines = lines(&path);
    assert_eq!(lines.last().unwrap(), &json!({ "end": "behind" }));
    let facts: usize = lines.iter().filter_map(|line| line.get("facts")?.as_array()).map(Vec::len).sum();
    assert_eq!(facts, BACKLOG, "what was taken before the gap is whole");
}

#[tokio::test]
async fn a_file_that_cannot_be_written_fails_nothing() {
    let folder = tempfile::tempdir().unwrap();
    run(&to(&folder.path().join("absent/facts.jsonl"), LEAST_BYTES), 10).await;
    run(&to(folder.path(), LEAST_BYTES), 10).await;
}

#[test]
fn settings_that_cannot_work_are_named() {
    let mut found = Problems::default();
    RecordSettings::default().problems(&mut found);
    assert!(found.is_empty());
    RecordSettings { path: Some("facts.jsonl".into()), max_bytes: 1 }.problems(&mut found);
    assert_eq!(
        found.messages(),
        ["path: `facts.jsonl` is not an absolute path", "maxBytes: 1 is below 65536 (64 KiB)"]
    );
}

#[test]
fn effects_are_the_same_whatever_was_removed_from_what_they_repeat() {
    let plain = Told { warm: "true".to_owned(), image: "nginx".to_owned(), error: "some text".to_owned() };
    let removed = Told { error: "<removed 0123456789abcdef>".to_owned(), ..plain.clone() };
    assert!(Decided::of(&plain, &[]).is_same(&Decided::of(&removed, &[])));
    assert!(!Decided::of(&plain, &[]).is_same(&Decided::of(&Told { image: "redis".to_owned(), ..plain }, &[])));
}
