//! A root of cgroups for one node's pods: owns its making in every hierarchy and its removal, also of what a test that was
//! killed left. Two kubelets under one root would each remove the other's pods.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

const ROOT: &str = "/sys/fs/cgroup";

/// Hierarchies of version 1 that a kubelet or runc uses.
const HIERARCHIES: [&str; 10] =
    ["cpu", "cpuacct", "cpuset", "memory", "pids", "devices", "freezer", "blkio", "systemd", "unified"];

/// Files of `cpuset` that are empty in a new group, and must not be.
const CPUSET: [&str; 2] = ["cpuset.cpus", "cpuset.mems"];

/// Controllers of version 2 that pods need.
const CONTROLLERS: &str = "+cpu +cpuset +memory +pids";

/// Longest that killed processes take to leave their groups.
const EMPTY: Duration = Duration::from_secs(10);

/// The groups of one name; dropping it removes them with all that is below.
#[derive(Debug)]
pub(super) struct Cgroup {
    name: String,
    made: Vec<PathBuf>,
    /// Held as long as the groups are somebody's: whoever can lock it may remove them.
    _lock: File,
}

impl Cgroup {
    /// Makes groups that nobody has yet.
    pub(super) fn new(name: &str) -> Result<Self> {
        let root = Path::new(ROOT);
        sweep()?;
        let mut cgroup = Self { name: name.to_owned(), made: Vec::new(), _lock: lock(name)? };
        if is_unified() {
            write(root, "cgroup.subtree_control", CONTROLLERS)?;
            cgroup.make(root)?;
            write(&root.join(name), "cgroup.subtree_control", CONTROLLERS)?;
            return Ok(cgroup);
        }
        for hierarchy in hierarchies() {
            cgroup.make(&hierarchy)?;
            if hierarchy.ends_with("cpuset") {
                for file in CPUSET {
                    let all = std::fs::read_to_string(hierarchy.join(file)).context("reading the cpuset")?;
                    write(&hierarchy.join(name), file, all.trim())?;
                }
            }
        }
        ensure!(!cgroup.made.is_empty(), "{ROOT} has no cgroups: a kubelet needs them");
        Ok(cgroup)
    }

    /// What a kubelet is told.
    pub(super) fn name(&self) -> String {
        format!("/{}", self.name)
    }

    fn make(&mut self, hierarchy: &Path) -> Result<()> {
        let path = hierarchy.join(&self.name);
        std::fs::create_dir(&path).with_context(|| format!("creating {}: run as root", path.display()))?;
        self.made.push(path);
        Ok(())
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let start = Instant::now();
        self.made.retain(|path| !remove(path));
        // Processes that were killed leave their groups a little later.
        while !self.made.is_empty() && start.elapsed() < EMPTY {
            std::thread::sleep(Duration::from_millis(20));
            self.made.retain(|path| !remove(path));
        }
        for path in &self.made {
            crate::run::said(&format!("{} could not be removed", path.display()));
        }
        if self.made.is_empty() {
            // Whoever finds it still there removes it as one left by a test that was killed.
            let _ = locks().map(|folder| std::fs::remove_file(folder.join(&self.name)));
        }
    }
}

/// The root of version 2, or the hierarchies of version 1.
fn hierarchies() -> Vec<PathBuf> {
    let root = Path::new(ROOT);
    let one = HIERARCHIES.iter().map(|hierarchy| root.join(hierarchy)).filter(|path| path.is_dir());
    if is_unified() { vec![root.to_owned()] } else { one.collect() }
}

fn is_unified() -> bool {
    Path::new(ROOT).join("cgroup.controllers").is_file()
}

/// One file a name, beside those of other tests of this machine and user.
fn locks() -> Result<PathBuf> {
    let folder = std::env::temp_dir().join(format!("warm-cgroups-{}", rustix::process::getuid().as_raw()));
    std::fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    Ok(folder)
}

fn lock(name: &str) -> Result<File> {
    let path = locks()?.join(name);
    let file = File::create(&path).with_context(|| format!("creating {}", path.display()))?;
    file.lock().with_context(|| format!("locking {}", path.display()))?;
    Ok(file)
}

/// Removes the groups of tests that were killed: nothing else of theirs outlives them.
fn sweep() -> Result<()> {
    for entry in std::fs::read_dir(locks()?).context("the locks of cgroups")?.flatten() {
        let is_nobodys = File::open(entry.path()).is_ok_and(|file| file.try_lock().is_ok());
        let gone = |hierarchy: &PathBuf| {
            let path = hierarchy.join(entry.file_name());
            !path.exists() || remove(&path)
        };
        if is_nobodys && hierarchies().iter().all(gone) {
            // Another test may have been quicker.
            let _ = std::fs::remove_file(entry.path());
        }
    }
    Ok(())
}

/// Removes a group and those below; whether it is gone.
fn remove(path: &Path) -> bool {
    for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path());
        }
    }
    // Two names may lead to one hierarchy: the second finds it gone.
    std::fs::remove_dir(path).is_ok() || !path.exists()
}

fn write(folder: &Path, file: &str, text: &str) -> Result<()> {
    let path = folder.join(file);
    std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
}
