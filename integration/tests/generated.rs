//! What is generated is committed and current.

use std::path::Path;

#[test]
fn generated_files_are_current() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for file in integration::generate::all() {
        let committed = std::fs::read_to_string(root.join(file.path)).unwrap_or_default();
        assert!(committed == file.text, "{} is not current; `cargo xtask generate` writes it", file.path);
    }
}
