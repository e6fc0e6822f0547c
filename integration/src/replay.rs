//! Plays a recording again: the same machine, the same facts at the same times, and whether it decides the same.
//!
//! Owns reading, playing and what is told of it. The form of a recording is `daemon::record`'s, the words for facts and
//! effects are `describe`'s.

use std::io::{BufRead, Write};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use daemon::record::{Decided, End, FORMAT, Head, Line};
use serde::de::DeserializeOwned;
use serde_json::Value;
use shared::machine::{Begin, Machine, Moment, Now};

use crate::describe::Describe;

/// What is told.
#[derive(Debug, Clone)]
pub struct Telling {
    /// The first step that is told, from 1.
    pub from: usize,
    /// The last that is played.
    pub until: usize,
    /// Facts and effects in full, and steps in which nothing happened.
    pub is_verbose: bool,
}

impl Default for Telling {
    fn default() -> Self {
        Self { from: 1, until: usize::MAX, is_verbose: false }
    }
}

/// How it went.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Replayed {
    /// Whose recording it was.
    pub process: String,
    /// Facts learned.
    pub facts: usize,
    /// Steps taken.
    pub steps: usize,
    /// Effects decided.
    pub effects: usize,
    /// The first step that decided otherwise than the recorded one; nothing is played after it.
    pub differs: Option<usize>,
    /// Why the recording ended; `None` if it does not say.
    pub end: Option<End>,
    /// The line that cannot be read; nothing is played from there on.
    pub damaged: Option<usize>,
}

/// Plays `recording` and tells of it to `out`.
///
/// # Errors
/// When it is no recording, one of another format, or one with facts that this build does not know. That a step differs
/// or a line is damaged is told in the answer.
pub fn replay(mut recording: impl BufRead, telling: &Telling, out: &mut impl Write) -> Result<Replayed> {
    let mut line = Vec::new();
    recording.read_until(b'\n', &mut line).context("reading the recording")?;
    let head = head(&line)?;
    writeln!(out, "recording of warm-{} {}, begun {}", head.process, head.version, head.wall)?;
    match head.process.as_str() {
        cluster_plan::Beginning::PROCESS => {
            Player::<cluster_plan::Beginning, _>::new(head, telling, out)?.play(recording)
        }
        node_plan::Beginning::PROCESS => Player::<node_plan::Beginning, _>::new(head, telling, out)?.play(recording),
        other => bail!("the recording is of a process `{other}`, which this build does not know"),
    }
}

fn head(line: &[u8]) -> Result<Head> {
    let value: Value = serde_json::from_slice(line).context("this is no recording: its first line is no JSON")?;
    let format = value.get("recording").and_then(Value::as_u64);
    let format = format.context("this is no recording: its first line does not say which format it has")?;
    let version = value.get("version").and_then(Value::as_str).unwrap_or("unknown").to_owned();
    ensure!(
        format == u64::from(FORMAT),
        "the recording has format {format} and was made by version {version}; this build reads format {FORMAT}: replay \
         it with a build of that version"
    );
    serde_json::from_value(value).context("the head of the recording is damaged")
}

struct Player<'a, B: Begin, W> {
    machine: B::Machine,
    begun: Moment,
    version: String,
    telling: &'a Telling,
    out: &'a mut W,
    done: Replayed,
    /// Told with the step that follows them.
    learned: Vec<String>,
}

impl<'a, B: Begin, W: Write> Player<'a, B, W>
where
    <B::Machine as Machine>::Fact: Describe,
    <B::Machine as Machine>::Effect: Describe,
{
    fn new(head: Head, telling: &'a Telling, out: &'a mut W) -> Result<Self> {
        let now = head.now();
        let beginning: B = known(head.beginning, &head.version, "what the machine begins with")?;
        let done = Replayed { process: head.process, ..Replayed::default() };
        let version = head.version;
        Ok(Self { machine: beginning.begin(now), begun: now.mono, version, telling, out, done, learned: Vec::new() })
    }

    fn play(mut self, mut recording: impl BufRead) -> Result<Replayed> {
        let mut text = Vec::new();
        for number in 2_usize.. {
            text.clear();
            if recording.read_until(b'\n', &mut text).context("reading the recording")? == 0 {
                break;
            }
            let line: Line = match serde_json::from_slice(&text) {
                Ok(line) => line,
                Err(error) => {
                    self.done.damaged = Some(number);
                    let what = if text.ends_with(b"\n") { "is damaged" } else { "is cut off" };
                    writeln!(self.out, "line {number} {what} ({error}): what follows is not played")?;
                    break;
                }
            };
            match line {
                Line::Learned { at, wall, facts } => {
                    let now = Now { mono: at, wall };
                    facts
                        .into_iter()
                        .try_for_each(|fact| self.learn(fact, now))
                        .with_context(|| format!("line {number}"))?;
                }
                Line::Decided { at, wall, effects } => self.step(Now { mono: at, wall }, &effects)?,
                Line::End { end } => {
                    self.done.end = Some(end);
                    break;
                }
            }
            if self.done.differs.is_some() || self.done.steps >= self.telling.until {
                break;
            }
        }
        self.close()
    }

    fn learn(&mut self, fact: Value, now: Now) -> Result<()> {
        let fact: <B::Machine as Machine>::Fact = known(fact, &self.version, "a fact")?;
        if self.is_told(self.done.steps + 1) {
            let text = if self.telling.is_verbose { serde_json::to_string(&fact)? } else { fact.describe() };
            self.learned.push(text);
        }
        self.machine.apply(fact, now);
        self.done.facts += 1;
        Ok(())
    }

    fn step(&mut self, now: Now, recorded: &[Decided]) -> Result<()> {
        let effects = self.machine.step(now);
        self.done.steps += 1;
        self.done.effects += effects.len();
        let decided: Vec<Decided> = effects.iter().map(|effect| Decided::of(effect, B::FREE_TEXT)).collect();
        let is_same = decided.len() == recorded.len() && decided.iter().zip(recorded).all(|(a, b)| a.is_same(b));
        let number = self.done.steps;
        let is_eventful = self.telling.is_verbose || !self.learned.is_empty() || !effects.is_empty();
        if !is_same || (is_eventful && self.is_told(number)) {
            writeln!(self.out, "step {number} at +{:?} ({})", now.mono.since(self.begun), now.wall)?;
            for fact in self.learned.drain(..) {
                writeln!(self.out, "  < {fact}")?;
            }
            for effect in &effects {
                let text = if self.telling.is_verbose { serde_json::to_string(effect)? } else { effect.describe() };
                writeln!(self.out, "  > {text}")?;
            }
        }
        self.learned.clear();
        if !is_same {
            self.done.differs = Some(number);
            self.tell_difference(&decided, recorded)?;
        }
        Ok(())
    }

    /// Both sides, from the first effect on that is not the same.
    fn tell_difference(&mut self, decided: &[Decided], recorded: &[Decided]) -> Result<()> {
        let same = decided.iter().zip(recorded).take_while(|(a, b)| a.is_same(b)).count();
        writeln!(self.out, "  DIFFERS from effect {} on", same + 1)?;
        for (side, effects) in [("recorded", recorded), ("replayed", decided)] {
            let rest = effects.get(same..).unwrap_or_default();
            if rest.is_empty() {
                writeln!(self.out, "  {side}: nothing more")?;
            }
            for effect in rest {
                let body = effect.body.as_ref().map_or_else(|| format!("digest {}", effect.digest), Value::to_string);
                writeln!(self.out, "  {side}: {} {body}", effect.kind)?;
            }
        }
        Ok(())
    }

    fn is_told(&self, step: usize) -> bool {
        (self.telling.from..=self.telling.until).contains(&step)
    }

    fn close(mut self) -> Result<Replayed> {
        for fact in std::mem::take(&mut self.learned) {
            writeln!(self.out, "learned after the last step\n  < {fact}")?;
        }
        let Replayed { facts, steps, effects, differs, end, damaged, .. } = &self.done;
        let verdict = match differs {
            Some(step) => format!("step {step} differs"),
            None => "every step is the same".to_owned(),
        };
        writeln!(self.out, "{facts} facts, {steps} steps, {effects} effects: {verdict}")?;
        match end {
            Some(end) => writeln!(self.out, "the recording ends here: {}", end.as_str())?,
            None if differs.is_none() && damaged.is_none() && *steps < self.telling.until => {
                writeln!(self.out, "the recording does not say why it ends: the process was killed, or still runs")?;
            }
            None => {}
        }
        Ok(self.done)
    }
}

fn known<T: DeserializeOwned>(value: Value, version: &str, what: &str) -> Result<T> {
    serde_json::from_value(value).map_err(|error| {
        anyhow!(
            "{what} that version {version} recorded is not known to this build: {error}; replay it with that version"
        )
    })
}
