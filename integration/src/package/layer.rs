//! A layer of an image: owns that equal files make equal bytes.

use std::io::Write;
use std::path::Path;

use anyhow::{Context as _, Result};
use flate2::Compression;
use flate2::write::GzEncoder;

/// One file of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Without a leading `/`.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// All of it.
    pub content: Vec<u8>,
}

impl File {
    /// Something to read.
    pub(super) fn text(path: &str, content: Vec<u8>) -> Self {
        Self { path: path.to_owned(), mode: 0o644, content }
    }

    /// Something to run.
    pub(super) fn program(path: &str, content: Vec<u8>) -> Self {
        Self { path: path.to_owned(), mode: 0o755, content }
    }

    /// Writes it below a folder.
    pub fn write_below(&self, folder: &Path) -> Result<()> {
        use std::os::unix::fs::PermissionsExt as _;
        let path = folder.join(&self.path);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).with_context(|| format!("creating {}", parent.display()))?;
        }
        std::fs::write(&path, &self.content)
            .and_then(|()| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(self.mode)))
            .with_context(|| format!("writing {}", path.display()))
    }
}

/// The compressed archive of these files, see [`archive`].
pub(super) fn compressed(files: &[File], compression: Compression) -> Result<Vec<u8>> {
    let encoder = archive(files, GzEncoder::new(Vec::new(), compression))?;
    encoder.finish().context("compressing a layer")
}

/// The archive of these files and the folders they are in: sorted, of root, at the beginning of time.
pub(super) fn archive<W: Write>(files: &[File], to: W) -> Result<W> {
    let mut archive = tar::Builder::new(to);
    let mut folders: Vec<&Path> = files.iter().flat_map(|file| Path::new(&file.path).ancestors().skip(1)).collect();
    folders.retain(|folder| !folder.as_os_str().is_empty());
    folders.sort_unstable();
    folders.dedup();
    for folder in folders {
        let mut header = header(tar::EntryType::Directory, 0o755, 0);
        archive.append_data(&mut header, folder, std::io::empty()).context("writing a layer")?;
    }
    let mut files: Vec<&File> = files.iter().collect();
    files.sort_unstable_by_key(|file| &file.path);
    for file in files {
        let mut header = header(tar::EntryType::Regular, file.mode, file.content.len() as u64);
        archive.append_data(&mut header, &file.path, &*file.content).context("writing a layer")?;
    }
    archive.into_inner().context("writing a layer")
}

fn header(kind: tar::EntryType, mode: u32, bytes: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(bytes);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn the_order_of_files_does_not_matter() {
        let (a, b) = (File::text("etc/a", b"1".to_vec()), File::program("b", b"2".to_vec()));
        let one = compressed(&[a.clone(), b.clone()], Compression::fast()).unwrap();
        assert_eq!(one, compressed(&[b, a], Compression::fast()).unwrap());
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(&*one).read_to_end(&mut plain).unwrap();
        let mut archive = tar::Archive::new(&*plain);
        let entry = |entry: std::io::Result<tar::Entry<'_, &[u8]>>| {
            let entry = entry.unwrap();
            (
                entry.path().unwrap().display().to_string(),
                entry.header().mode().unwrap(),
                entry.header().mtime().unwrap(),
            )
        };
        let entries: Vec<_> = archive.entries().unwrap().map(entry).collect();
        assert_eq!(entries, [("etc".into(), 0o755, 0), ("b".into(), 0o755, 0), ("etc/a".into(), 0o644, 0)]);
    }
}
