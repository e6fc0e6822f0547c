//! What another content of the file does.

use std::path::PathBuf;

use super::*;

fn started(text: &str) -> (tempfile::TempDir, PathBuf, Reloader) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.yaml");
    std::fs::write(&path, text).unwrap();
    let running = config::load(&path, &[]).unwrap();
    let (sender, _) = watch::channel(expressions(&running));
    (folder, path.clone(), Reloader::new(path, running, sender))
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

const TWO: &str = "select: { exclude: [{ expression: object.a }], include: [{ expression: object.b }] }\n";

fn evaluated(reloader: &Reloader) -> Vec<String> {
    reloader.expressions.borrow().texts().into_iter().collect()
}

#[test]
fn expressions_are_evaluated_from_before_they_are_judged_by_until_nobody_is_any_more() {
    let (_folder, path, mut reloader) = started(TWO);
    reloader.look();
    let before = reloader.running.selection();
    assert!(reloader.settle(Some(&before)));
    std::fs::write(&path, "select: { exclude: [{ expression: object.c }] }\n").unwrap();
    let Some(Fact::Selection(next)) = reloader.look() else { panic!() };
    assert_eq!(evaluated(&reloader), ["object.a", "object.b", "object.c"]);
    assert!(!reloader.settle(Some(&before)), "the file does not say what runs");
    assert_eq!(evaluated(&reloader).len(), 3);
    std::fs::write(&path, "select: { exclude: [{ expression: object.d }] }\n").unwrap();
    let Some(Fact::Selection(last)) = reloader.look() else { panic!() };
    assert!(!reloader.settle(Some(&next)), "a newer one waits");
    assert_eq!(evaluated(&reloader).len(), 4, "it may still be judged by any of them");
    assert!(reloader.settle(Some(&last)));
    assert_eq!(evaluated(&reloader), ["object.d"]);
}

#[test]
fn whether_the_file_says_what_runs_is_known() {
    let (_folder, path, mut reloader) = started(OPT_IN);
    let runs = reloader.running.selection();
    let mut after = |text: &str| {
        std::fs::write(&path, text).unwrap();
        reloader.look();
        reloader.settle(Some(&runs))
    };
    assert!(after(OPT_IN));
    assert!(!after("select: { mode: sometimes }\n"), "it is wrong");
    assert!(!after(&format!("{OPT_IN}stepWindow: 1ms\n")), "it needs a restart");
    assert!(!after("select: { mode: optOut }\n"), "it is not in use yet");
    assert!(after(&format!("# back\n{OPT_IN}")));
    std::fs::remove_file(&path).unwrap();
    reloader.look();
    assert!(!reloader.settle(Some(&runs)), "it is gone");
}
