//! Notes of pulls that have begun, on a host path.
//!
//! Owns one small file for each pull, written before the runtime is asked: containerd writes the tag of a pulled image before
//! its digest, and the state file is written seconds later. An agent that is killed in between would take what was left
//! unfinished for what somebody has loaded by hand. What a note means to a decision is `node_plan`'s.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::AsyncWriteExt as _;
use tracing::{debug, warn};
use uuid::Uuid;

const FOLDER: &str = "begun";
/// Longer than any canonical reference.
const MAX_NOTE: u64 = 4_096;

/// The notes in a folder.
#[derive(Debug, Clone)]
pub struct Begun {
    folder: PathBuf,
    /// Those that no state file covers yet.
    open: Arc<Mutex<BTreeSet<PathBuf>>>,
}

/// The note of one pull, not yet written.
#[derive(Debug)]
#[must_use]
pub struct Note {
    path: PathBuf,
    image: String,
}

/// Notes of pulls that began before a certain state was taken, which knows of them.
#[derive(Debug, Default)]
#[must_use]
pub struct Covered(BTreeSet<PathBuf>);

impl Begun {
    /// Below the folder of the state file.
    pub fn new(state: &Path) -> Self {
        Self { folder: state.join(FOLDER), open: Arc::default() }
    }

    /// The note for a pull of this canonical reference.
    pub fn note(&self, image: &str) -> Note {
        let path = self.folder.join(Uuid::new_v4().to_string());
        self.open().insert(path.clone());
        Note { path, image: image.to_owned() }
    }

    /// To be called when a state is handed over to be written: it knows of every pull noted before.
    pub fn cover(&self) -> Covered {
        Covered(std::mem::take(&mut *self.open()))
    }

    /// What earlier runs began, by canonical reference. A note that cannot be read says nothing.
    pub fn load(&self) -> Vec<String> {
        let mut images = Vec::new();
        let mut open = self.open();
        for path in self.files() {
            match std::fs::metadata(&path).and_then(|m| if m.len() > MAX_NOTE { Ok(None) } else { read(&path) }) {
                Ok(image) => images.extend(image),
                Err(error) => warn!(path = %path.display(), %error, "the note of a pull cannot be read"),
            }
            open.insert(path);
        }
        images
    }

    /// Removes all of them, and the folder; says how many there were.
    pub fn remove(&self) -> io::Result<usize> {
        let files = self.files();
        files.iter().try_for_each(std::fs::remove_file)?;
        match std::fs::remove_dir(&self.folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(files.len()),
        }
    }

    fn open(&self) -> MutexGuard<'_, BTreeSet<PathBuf>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn files(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(&self.folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).filter(|path| path.is_file()).collect()
    }
}

fn read(path: &Path) -> io::Result<Option<String>> {
    std::fs::read_to_string(path).map(|image| (!image.is_empty()).then_some(image))
}

impl Note {
    /// Writes it, to the disk.
    pub async fn write(&self) -> io::Result<()> {
        let folder = self.path.parent().unwrap_or(Path::new(""));
        tokio::fs::create_dir_all(folder).await?;
        let mut file = tokio::fs::File::create(&self.path).await?;
        file.write_all(self.image.as_bytes()).await?;
        file.flush().await?;
        file.sync_data().await?;
        tokio::fs::File::open(folder).await?.sync_all().await
    }
}

impl Covered {
    /// The state is written: its notes are of no use any more. One that stays says what that state says.
    pub async fn remove(self) {
        for path in self.0 {
            if let Err(error) = tokio::fs::remove_file(&path).await {
                debug!(path = %path.display(), %error, "the note of a pull is not removed");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(folder: &Path) -> usize {
        std::fs::read_dir(folder.join(FOLDER)).map_or(0, Iterator::count)
    }

    #[tokio::test]
    async fn a_note_lasts_until_a_state_is_written_that_was_taken_after_it() {
        let folder = tempfile::tempdir().unwrap();
        let begun = Begun::new(folder.path());
        assert_eq!(begun.load(), Vec::<String>::new());
        begun.note("example.com/a:1").write().await.unwrap();
        let covered = begun.cover();
        begun.note("example.com/b:1").write().await.unwrap();
        covered.remove().await;
        assert_eq!(begun.load(), ["example.com/b:1"]);

        // Killed here.
        let begun = Begun::new(folder.path());
        assert_eq!(begun.load(), ["example.com/b:1"]);
        begun.cover().remove().await;
        assert_eq!((Begun::new(folder.path()).load(), files(folder.path())), (Vec::new(), 0));
    }

    #[tokio::test]
    async fn what_is_no_note_says_nothing_and_goes_with_the_others() {
        let folder = tempfile::tempdir().unwrap();
        let begun = Begun::new(folder.path());
        std::fs::create_dir(folder.path().join(FOLDER)).unwrap();
        for (name, content) in [("empty", &b""[..]), ("bytes", &[0xff, 0xfe]), ("long", &[b'x'; 5_000])] {
            std::fs::write(folder.path().join(FOLDER).join(name), content).unwrap();
        }
        assert_eq!(begun.load(), Vec::<String>::new());
        assert_eq!(begun.remove().unwrap(), 3);
        assert_eq!(begun.remove().unwrap(), 0);
    }

    #[tokio::test]
    async fn a_folder_that_cannot_be_written_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(FOLDER), "").unwrap();
        assert!(Begun::new(folder.path()).note("example.com/a:1").write().await.is_err());
    }
}
