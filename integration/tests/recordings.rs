//! Every recording in `tests/recordings` plays again with the same decisions: a bug report becomes a test by being put there.
//!
//! Shows: the kept files replay; a file that is cut off or damaged replays up to there and says so; another format, another
//! process and unknown facts are refused in words; a decision that differs is found at its step and shown from both sides.
//!
//! A change of what a machine decides, made on purpose, makes a file differ. Record it again: `docs/operate/recording.md`.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use integration::replay::{Replayed, Telling, replay};

fn kept() -> Result<Vec<PathBuf>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings");
    let mut files = Vec::new();
    for entry in std::fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        files.extend(path.extension().is_some_and(|e| e == "jsonl").then_some(path));
    }
    files.sort();
    ensure!(files.len() >= 2, "there is one of each process at least: {files:?}");
    Ok(files)
}

fn play(recording: &str, telling: &Telling) -> Result<(Replayed, String)> {
    let mut told = Vec::new();
    let replayed = replay(recording.as_bytes(), telling, &mut told)?;
    Ok((replayed, String::from_utf8(told)?))
}

/// Why it is not played; empty if it was.
fn refusal(recording: &str) -> String {
    play(recording, &Telling::default()).err().map(|error| error.root_cause().to_string()).unwrap_or_default()
}

#[test]
fn every_kept_recording_plays_again() -> Result<()> {
    for path in kept()? {
        let (done, told) = play(&std::fs::read_to_string(&path)?, &Telling::default())?;
        ensure!(done.differs.is_none() && done.damaged.is_none(), "{}: {told}", path.display());
        ensure!(done.steps > 0 && done.facts > 0 && done.effects > 0, "{}: {done:?}", path.display());
    }
    Ok(())
}

#[test]
fn a_file_that_is_cut_off_or_damaged_plays_up_to_there() -> Result<()> {
    for path in kept()? {
        let text = std::fs::read_to_string(&path)?;
        let cut: String = text.chars().take(text.len() / 2).collect();
        let (done, told) = play(&cut, &Telling::default())?;
        ensure!(done.damaged == Some(cut.lines().count()) && done.differs.is_none(), "{done:?}");
        ensure!(told.contains("is cut off") && done.end.is_none() && done.steps > 0, "{told}");
        let mut lines: Vec<&str> = text.lines().collect();
        lines.insert(5, "\u{0}\u{0}garbage");
        let (done, told) = play(&lines.join("\n"), &Telling::default())?;
        ensure!(done.damaged == Some(6) && told.contains("line 6 is damaged"), "{done:?} {told}");
    }
    Ok(())
}

#[test]
fn what_cannot_be_played_is_refused_in_words() -> Result<()> {
    for path in kept()? {
        let text = std::fs::read_to_string(&path)?;
        let other = text.replacen("\"recording\":1", "\"recording\":99", 1);
        ensure!(refusal(&other).contains("has format 99"), "{}", refusal(&other));
        let process = if text.contains("\"process\":\"agent\"") { "agent" } else { "controller" };
        let other = text.replacen(&format!("\"process\":\"{process}\""), "\"process\":\"scheduler\"", 1);
        ensure!(refusal(&other).contains("a process `scheduler`"), "{}", refusal(&other));
        let first = text.lines().next().unwrap_or_default();
        let unknown = format!("{first}\n{}\n", r#"{"at":1,"wall":"2026-01-01T00:00:00Z","facts":[{"novel":1}]}"#);
        ensure!(refusal(&unknown).contains("a fact that version"), "{}", refusal(&unknown));
    }
    for nothing in ["", "hello\n", "{}\n", "{\"recording\":1}\n"] {
        ensure!(refusal(nothing).len() > 10, "{nothing}");
    }
    Ok(())
}

#[test]
fn a_decision_that_differs_is_found_at_its_step_and_shown_from_both_sides() -> Result<()> {
    for path in kept()? {
        let text = std::fs::read_to_string(&path)?;
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let steps = lines.iter().enumerate().filter(|(_, line)| line.contains("\"effects\":"));
        let (at, (number, _)) = steps
            .enumerate()
            .find(|(_, (_, line))| line.contains("\"digest\":\""))
            .context("no step of it decided anything")?;
        let line = lines.get_mut(number).context("the line of the step")?;
        *line = line.replacen("\"digest\":\"", "\"digest\":\"f", 1);
        let (done, told) = play(&lines.join("\n"), &Telling { from: usize::MAX, ..Telling::default() })?;
        ensure!(done.differs == Some(at + 1), "{done:?} is not step {}", at + 1);
        ensure!(told.contains("recorded: ") && told.contains("replayed: "), "{told}");
    }
    Ok(())
}

#[test]
fn only_the_steps_that_are_asked_for_are_told() -> Result<()> {
    for path in kept()? {
        let text = std::fs::read_to_string(&path)?;
        let (done, told) = play(&text, &Telling { from: 2, until: 3, is_verbose: true })?;
        ensure!(done.steps == 3, "{done:?}");
        ensure!(!told.contains("step 1 ") && told.contains("step 2 ") && told.contains("step 3 "), "{told}");
        ensure!(!told.contains("step 4 "), "{told}");
    }
    Ok(())
}
