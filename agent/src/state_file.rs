//! The state file: what survives a restart, on a host path.
//!
//! Owns writing it so that it is whole or the old one, and reading it so that nothing in it can stop the agent. What is
//! in it is `node_plan::Persisted`'s.

use std::io;
use std::path::{Path, PathBuf};

use node_plan::Persisted;
use node_plan::persisted::VERSION;
use serde::Deserialize;
use serde_json::{Map, Value};
use shared::reason::Reason;
use shared::text::{CLIP, shown};
use tokio::io::AsyncWriteExt as _;
use tracing::{info, warn};

use crate::begun::Begun;

const NAME: &str = "state.json";
/// What cannot be used is kept under this name, for people.
const BAD: &str = "state.json.bad";
const PARTIAL: &str = "state.json.partial";
/// So much of the parser's words is repeated: they may quote the file.
const REPEATED: usize = 300;
/// So many damaged entries are named.
const NAMED: usize = 10;

/// The file could not be written.
#[derive(Debug, thiserror::Error)]
#[error("{what} {}: {source}; is the directory mounted from the host and writable?", path.display())]
pub struct StateError {
    what: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl StateError {
    /// The bounded reason.
    pub fn reason(&self) -> Reason {
        match self.source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Reason::NoSpace,
            _ => Reason::Storage,
        }
    }
}

/// Why the content cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// Another shape, or no JSON at all.
    #[error("it is not the agent's state: {}", shown(&.0.to_string(), REPEATED))]
    Json(#[from] serde_json::Error),
    /// Of another version of the agent.
    #[error("it has version {0}, this agent reads {VERSION}")]
    Version(u32),
}

/// A folder that is in use, by a lock that ends with the process (`flock(2)`, on the folder: nothing is left of it).
#[derive(Debug)]
pub struct InUse {
    _folder: std::fs::File,
}

/// The file of one agent.
#[derive(Debug, Clone)]
pub struct StateFile {
    folder: PathBuf,
    begun: Begun,
}

impl StateFile {
    /// In `folder`, which is made when it is first needed.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        let folder = folder.into();
        Self { begun: Begun::new(&folder), folder }
    }

    /// The notes of pulls beside it.
    pub fn begun(&self) -> &Begun {
        &self.begun
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What was written last, less the entries that cannot be used, and the pulls that began after that. `None` if there is
    /// neither: then everything is learned anew. The log says why nothing of the file can be used, and it is kept aside.
    pub async fn load(&self) -> Option<Persisted> {
        let persisted = self.load_file().await;
        let begun = self.begun.load();
        if begun.is_empty() {
            return persisted;
        }
        info!(count = begun.len(), "pulls had begun when the last run ended");
        let mut persisted = persisted.unwrap_or(Persisted { v: VERSION, ..Persisted::default() });
        persisted.begin(begun);
        Some(persisted)
    }

    async fn load_file(&self) -> Option<Persisted> {
        let path = self.folder.join(NAME);
        let shown = path.display();
        let bytes = match tokio::fs::read(&path).await {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                info!(path = %shown, "no state from an earlier run");
                return None;
            }
            Err(error) => {
                warn!(path = %shown, %error, "the state cannot be read, starting without it");
                self.set_aside().await;
                return None;
            }
        };
        match decode(&bytes) {
            Ok(Decoded { persisted, lost }) => {
                if !lost.is_empty() {
                    let (count, first) = (lost.len(), lost.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>());
                    warn!(path = %shown, count, entries = first.join(", "), "the state has damaged entries, starting without them");
                    self.copy_aside().await;
                }
                Some(persisted)
            }
            Err(error) => {
                warn!(path = %shown, %error, "the state cannot be used, starting without it");
                self.set_aside().await;
                None
            }
        }
    }

    /// Shows others that the folder is in use, for as long as what is returned lives. Never waits. `None` where the file
    /// system cannot tell: then [`StateFile::alone`] waits for nobody.
    pub fn hold(&self) -> Option<InUse> {
        let held = std::fs::create_dir_all(&self.folder).and_then(|()| {
            let folder = std::fs::File::open(&self.folder)?;
            folder.try_lock_shared()?;
            Ok(folder)
        });
        match held {
            Ok(folder) => Some(InUse { _folder: folder }),
            Err(error) => {
                warn!(path = %self.folder.display(), %error, "the state folder cannot be marked as in use");
                None
            }
        }
    }

    /// Waits until nobody holds the folder.
    pub fn alone(&self) -> Result<InUse, StateError> {
        let failed = |source| StateError { what: "locking", path: self.folder.clone(), source };
        let folder = std::fs::File::open(&self.folder).map_err(failed)?;
        folder.lock().map_err(failed)?;
        Ok(InUse { _folder: folder })
    }

    /// Removes everything that is written here; says how many files there were.
    pub fn remove(&self) -> Result<usize, StateError> {
        let mut removed = 0;
        for name in [NAME, BAD, PARTIAL] {
            let path = self.folder.join(name);
            match std::fs::remove_file(&path) {
                Ok(()) => removed += 1,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(StateError { what: "removing", path, source }),
            }
        }
        let failed = |source| StateError { what: "removing notes in", path: self.folder.clone(), source };
        Ok(removed + self.begun.remove().map_err(failed)?)
    }

    async fn set_aside(&self) {
        let (from, to) = (self.folder.join(NAME), self.folder.join(BAD));
        match tokio::fs::rename(&from, &to).await {
            Ok(()) => info!(path = %to.display(), "the unusable state is kept here"),
            // It is overwritten by the next write, or stays as unusable as it is.
            Err(error) => warn!(path = %from.display(), %error, "the unusable state cannot be moved aside"),
        }
    }

    /// The next write replaces what was damaged.
    async fn copy_aside(&self) {
        let to = self.folder.join(BAD);
        match tokio::fs::copy(self.folder.join(NAME), &to).await {
            Ok(_) => info!(path = %to.display(), "the damaged state is kept here"),
            Err(error) => warn!(path = %to.display(), %error, "the damaged state cannot be kept"),
        }
    }

    /// Writes beside it, syncs, renames, syncs the folder: after a crash at any point it is the old one or this one.
    pub async fn save(&self, persisted: &Persisted) -> Result<(), StateError> {
        let (partial, path) = (self.folder.join(PARTIAL), self.folder.join(NAME));
        let failed = |what, path: &Path| {
            let path = path.to_owned();
            move |source| StateError { what, path, source }
        };
        // Maps have string keys and no type here fails to serialise; if one did, the old file stays.
        let bytes = encode(persisted).map_err(io::Error::other).map_err(failed("encoding", &path))?;
        tokio::fs::create_dir_all(&self.folder).await.map_err(failed("creating", &self.folder))?;
        let mut file = tokio::fs::File::create(&partial).await.map_err(failed("creating", &partial))?;
        file.write_all(&bytes).await.map_err(failed("writing", &partial))?;
        // tokio writes in the background, and only a flush tells how that ended: without it a full disk would leave half a
        // file, which would then replace the whole one.
        file.flush().await.map_err(failed("writing", &partial))?;
        file.sync_all().await.map_err(failed("syncing", &partial))?;
        drop(file);
        tokio::fs::rename(&partial, &path).await.map_err(failed("renaming to", &path))?;
        let folder = tokio::fs::File::open(&self.folder).await.map_err(failed("opening", &self.folder))?;
        folder.sync_all().await.map_err(failed("syncing", &self.folder))
    }
}

/// The content of the file.
pub fn encode(persisted: &Persisted) -> Result<Vec<u8>, serde_json::Error> {
    serde_json::to_vec(persisted)
}

/// What a file holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    /// What can be used.
    pub persisted: Persisted,
    /// Entries that cannot, as `pools.all`.
    pub lost: Vec<String>,
}

/// The inverse of [`encode`]; no bytes make it panic. An entry of a map that cannot be used costs that entry: a pool is read
/// again, an image out of the ledger is never removed. Anything else costs the whole.
pub fn decode(bytes: &[u8]) -> Result<Decoded, Unusable> {
    // The version first: another one may be another shape.
    #[derive(Deserialize)]
    struct Version {
        v: u32,
    }
    let Version { v } = serde_json::from_slice(bytes)?;
    if v != VERSION {
        return Err(Unusable::Version(v));
    }
    match serde_json::from_slice(bytes) {
        Ok(persisted) => Ok(Decoded { persisted, lost: Vec::new() }),
        Err(error) => without_bad_entries(bytes).ok_or(Unusable::Json(error)),
    }
}

/// `None` if more than entries of maps is bad.
fn without_bad_entries(bytes: &[u8]) -> Option<Decoded> {
    let mut fields: Map<String, Value> = serde_json::from_slice(bytes).ok()?;
    let mut lost = Vec::new();
    for (field, value) in &mut fields {
        if is_usable(field, value) {
            continue;
        }
        let Value::Object(entries) = value else { return None };
        entries.retain(|key, entry| {
            let is_good = is_usable(field, &Value::Object(Map::from_iter([(key.clone(), entry.clone())])));
            if !is_good {
                lost.push(shown(&format!("{field}.{key}"), CLIP));
            }
            is_good
        });
    }
    let persisted = serde_json::from_value(Value::Object(fields)).ok()?;
    Some(Decoded { persisted, lost })
}

fn is_usable(field: &str, value: &Value) -> bool {
    let alone = [("v".to_owned(), Value::from(VERSION)), (field.to_owned(), value.clone())];
    serde_json::from_value::<Persisted>(Value::Object(Map::from_iter(alone))).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    fn state(n: u64) -> Persisted {
        Persisted { v: VERSION, epoch: Some("e".to_owned()), n, ..Persisted::default() }
    }

    #[tokio::test]
    async fn what_was_saved_last_is_loaded_and_nothing_else_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let file = StateFile::new(folder.path().join("made/when/needed"));
        assert_eq!(file.load().await, None);
        for n in 1..=3 {
            file.save(&state(n)).await.unwrap();
            assert_eq!(file.load().await, Some(state(n)));
        }
        assert_eq!(content(file.folder()), ["state.json"]);
    }

    #[tokio::test]
    async fn what_an_agent_leaves_is_removed_once_it_has_ended_and_nothing_of_others() {
        let folder = tempfile::tempdir().unwrap();
        let file = StateFile::new(folder.path());
        std::fs::write(folder.path().join(NAME), "no state").unwrap();
        assert_eq!(file.load().await, None);
        let running = (file.hold().unwrap(), file.hold().unwrap());
        std::fs::write(folder.path().join("of-others"), "").unwrap();
        let path = folder.path().to_owned();
        let forgetting = std::thread::spawn(move || crate::forget::forget(&path));
        // The last write of an agent that ends.
        file.save(&state(1)).await.unwrap();
        file.begun().note("example.com/a:1").write().await.unwrap();
        assert_eq!(content(folder.path()), ["begun", "of-others", "state.json", "state.json.bad"]);
        drop(running);
        assert_eq!(forgetting.join().unwrap().unwrap(), 3);
        assert_eq!(content(folder.path()), ["of-others"]);
    }

    #[tokio::test]
    async fn a_file_that_is_no_state_is_moved_aside_and_the_next_save_works() {
        let whole = serde_json::to_vec(&state(7)).unwrap();
        let mut cases: Vec<Vec<u8>> = (0..whole.len()).step_by(5).map(|end| whole[..end].to_vec()).collect();
        cases.extend([
            b"garbage".to_vec(),
            vec![0; 100],
            vec![0xff; 7],
            b"[]".to_vec(),
            b"{}".to_vec(),
            b"null".to_vec(),
        ]);
        cases.push(br#"{"v":1,"pools":7}"#.to_vec());
        cases.push(br#"{"v":2,"epoch":["another","shape"]}"#.to_vec());
        cases.push(br#"{"v":0}"#.to_vec());
        for case in cases {
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join(NAME), &case).unwrap();
            let file = StateFile::new(folder.path());
            assert_eq!(file.load().await, None, "{}", String::from_utf8_lossy(&case));
            assert_eq!(content(folder.path()), ["state.json.bad"]);
            assert_eq!(std::fs::read(folder.path().join(BAD)).unwrap(), case);
            file.save(&state(8)).await.unwrap();
            assert_eq!(file.load().await, Some(state(8)));
        }
    }

    #[tokio::test]
    async fn one_bad_entry_costs_that_entry_and_the_file_is_kept_aside() {
        let good = r#"{"head":3,"intents":{}}"#;
        let entry = r#"{"runtimeId":"x","pulled":"2026-01-01T00:00:00Z","bytes":5}"#;
        let bad = format!(
            r#"{{"v":1,"epoch":"e","n":9,"pools":{{"all":{good},"NOT A POOL":{good},"auto-1":{{"head":-1}}}},
                "ledger":{{"docker.io/library/a:1":{entry},"docker.io/library/b:1":7}}}}"#
        );
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(NAME), &bad).unwrap();
        let loaded = StateFile::new(folder.path()).load().await.unwrap();
        assert_eq!((loaded.epoch.as_deref(), loaded.n), (Some("e"), 9));
        assert_eq!(loaded.pools.keys().map(ToString::to_string).collect::<Vec<_>>(), ["all"]);
        assert_eq!(loaded.ledger.keys().collect::<Vec<_>>(), ["docker.io/library/a:1"]);
        assert_eq!(
            decode(bad.as_bytes()).unwrap().lost,
            ["ledger.docker.io/library/b:1", "pools.NOT A POOL", "pools.auto-1"]
        );
        assert_eq!(content(folder.path()), ["state.json", "state.json.bad"]);
        assert_eq!(std::fs::read_to_string(folder.path().join(BAD)).unwrap(), bad);
    }

    #[tokio::test]
    async fn a_pull_that_began_after_the_last_save_is_known_whatever_became_of_the_file() {
        for is_lost in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let file = StateFile::new(folder.path());
            file.save(&state(5)).await.unwrap();
            file.begun().note("example.com/a:1").write().await.unwrap();
            if is_lost {
                std::fs::remove_file(folder.path().join(NAME)).unwrap();
            }
            let loaded = StateFile::new(folder.path()).load().await.unwrap();
            assert_eq!((loaded.v, loaded.n), (VERSION, if is_lost { 0 } else { 5 }));
            let begun: Vec<_> = loaded.setbacks.values().map(|s| (s.image.as_str(), s.begun, s.tries)).collect();
            assert_eq!(begun, [("example.com/a:1", true, 0)]);
        }
    }

    #[tokio::test]
    async fn a_half_written_file_beside_it_is_never_read() {
        let folder = tempfile::tempdir().unwrap();
        let file = StateFile::new(folder.path());
        file.save(&state(1)).await.unwrap();
        std::fs::write(folder.path().join(PARTIAL), "{\"v\":1,\"epo").unwrap();
        assert_eq!(file.load().await, Some(state(1)));
        file.save(&state(2)).await.unwrap();
        assert_eq!(content(folder.path()), ["state.json"]);
    }

    #[tokio::test]
    async fn a_state_that_is_a_folder_stops_nothing() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join(NAME)).unwrap();
        let file = StateFile::new(folder.path());
        assert_eq!(file.load().await, None);
        file.save(&state(2)).await.unwrap();
        assert_eq!(file.load().await, Some(state(2)));
    }

    #[tokio::test]
    async fn a_folder_that_cannot_be_written_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("file"), "").unwrap();
        let error = StateFile::new(folder.path().join("file/sub")).save(&state(1)).await.unwrap_err();
        assert_eq!(error.reason(), Reason::Storage);
        let text = error.to_string();
        assert!(text.contains("file/sub") && text.contains("mounted"), "{text}");
    }

    #[tokio::test]
    async fn a_full_disk_leaves_the_old_file_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let file = StateFile::new(folder.path());
        file.save(&state(1)).await.unwrap();
        // The kernel answers every write to it with ENOSPC.
        std::os::unix::fs::symlink("/dev/full", folder.path().join(PARTIAL)).unwrap();
        let error = file.save(&state(2)).await.unwrap_err();
        assert_eq!((error.reason(), error.what), (Reason::NoSpace, "writing"), "{error}");
        assert_eq!(file.load().await, Some(state(1)));
    }

    #[test]
    fn unusable_content_is_named() {
        assert_eq!(decode(br#"{"v":9}"#).unwrap_err().to_string(), "it has version 9, this agent reads 1");
        let text = decode(b"{\"v\":1,\"ep").unwrap_err().to_string();
        assert!(text.starts_with("it is not the agent's state: EOF"), "{text}");
    }

    #[test]
    fn content_that_the_parser_quotes_is_not_repeated_at_length() {
        let text = decode(format!("\"{}\"", "x\\n".repeat(2_000)).as_bytes()).unwrap_err().to_string();
        assert!(text.chars().count() < 400 && !text.contains('\n'), "{text}");
    }
}
