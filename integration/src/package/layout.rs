//! An image on disk, as an OCI layout: owns that it says its published name, and its archive.

use std::fs::File;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::layer;

/// Writes the published name of an image into its layout, and the layout into an archive, which container runtimes import
/// under that name.
pub fn write_layout(layout: &Path, name: &str, archive: &Path) -> Result<()> {
    let path = layout.join("index.json");
    let text = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    let mut index: Value = serde_json::from_slice(&text).with_context(|| format!("reading {}", path.display()))?;
    let (_, tag) = name.rsplit_once(':').context("an image's name without a tag")?;
    let manifest = index.pointer_mut("/manifests/0").and_then(Value::as_object_mut).context("a layout of no image")?;
    let annotations = json!({ "io.containerd.image.name": name, "org.opencontainers.image.ref.name": tag });
    manifest.insert("annotations".to_owned(), annotations);
    std::fs::write(&path, serde_json::to_vec_pretty(&index)?).with_context(|| format!("writing {}", path.display()))?;
    let mut files = Vec::new();
    read_below(layout, "", &mut files)?;
    let to = File::create(archive).with_context(|| format!("creating {}", archive.display()))?;
    layer::archive(&files, to).map(drop)
}

fn read_below(folder: &Path, below: &str, files: &mut Vec<layer::File>) -> Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let entry = entry?;
        let name = entry.file_name().into_string().ok().context("a file whose name is no text")?;
        let inside = if below.is_empty() { name } else { format!("{below}/{name}") };
        if entry.file_type()?.is_dir() {
            read_below(&entry.path(), &inside, files)?;
        } else {
            files.push(layer::File::text(&inside, std::fs::read(entry.path())?));
        }
    }
    Ok(())
}
