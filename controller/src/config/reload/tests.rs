//! What another content of the file does.

use std::path::PathBuf;

use super::*;

fn started(text: &str) -> (tempfile::TempDir, PathBuf, Reloader) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.yaml");
    std::fs::write(&path, text).unwrap();
    let running = config::load(&path, &[]).unwrap();
    (folder, path.clone(), Reloader::new(path, running))
}

const OPT_IN: &str = "select: { mode: optIn }\n";

#[test]
fn another_selection_is_a_fact_once() {
    let (_folder, path, mut reloader) = started("{}\n");
    assert_eq!(reloader.look(), None);
    std::fs::write(&path, OPT_IN).unwrap();
    let Some(Fact::Selection(selection)) = reloader.look() else { panic!() };
    assert_eq!(selection.mode, cluster_plan::input::selection::Mode::OptIn);
    assert_eq!(reloader.look(), None);
}

#[test]
fn a_file_that_is_wrong_or_gone_changes_nothing_and_mended_it_counts() {
    let (_folder, path, mut reloader) = started(OPT_IN);
    std::fs::write(&path, "select: { mode: sometimes }\n").unwrap();
    assert_eq!(reloader.look(), None);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(reloader.look(), None);
    std::fs::write(&path, "select: { mode: optOut }\n").unwrap();
    assert!(matches!(reloader.look(), Some(Fact::Selection(_))));
}

#[test]
fn comments_are_no_news() {
    let (_folder, path, mut reloader) = started(OPT_IN);
    std::fs::write(&path, format!("# why\n{OPT_IN}")).unwrap();
    assert_eq!(reloader.look(), None);
}

#[test]
fn other_keys_are_named_and_left_alone() {
    let (_folder, path, reloader) = started("{}\n");
    std::fs::write(&path, "timing: { beat: 1s }\nstepWindow: 1ms\n").unwrap();
    let Ok(News::Changed { selection: None, restart }) = reloader.news(read(&path).as_deref()) else { panic!() };
    assert_eq!(restart, ["stepWindow", "timing"]);
}
