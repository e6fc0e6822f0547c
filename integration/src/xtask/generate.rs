//! `cargo xtask generate`: writes the generated files. What they say is `crate::generate`'s.

use anyhow::{Context as _, Result};

use super::{root, say};
use crate::chart::Chart;
use crate::generate::Generated;

pub(super) fn run() -> Result<()> {
    // The chart holds some of them.
    write(crate::generate::all())?;
    write(Chart::new()?.snapshots()?)
}

fn write(files: Vec<Generated>) -> Result<()> {
    for file in files {
        let path = root().join(file.path);
        if std::fs::read_to_string(&path).is_ok_and(|text| text == file.text) {
            continue;
        }
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
        }
        std::fs::write(&path, &file.text).with_context(|| format!("writing {}", path.display()))?;
        say(&format!("wrote {}", file.path));
    }
    Ok(())
}
