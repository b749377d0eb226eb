//! What the documents say of the code is so.

use std::{collections::BTreeSet, fs, path::Path};

/// All names of functions in the Rust files below a folder.
fn functions_in(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            functions_in(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let source = fs::read_to_string(&path).unwrap_or_default();
            let names = source.lines().filter_map(|line| line.split_once("fn ")?.1.split(['(', '<']).next());
            found.extend(names.map(ToOwned::to_owned));
        }
    }
}

#[test]
fn every_test_that_the_threat_model_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut functions = BTreeSet::new();
    for folder in ["src", "tests"] {
        functions_in(&root.join(folder), &mut functions);
    }
    let page = fs::read_to_string(root.join("docs/security.md")).unwrap_or_default();
    let shown_by =
        page.lines().filter_map(|line| line.strip_suffix(" |")?.rsplit_once(" | ").map(|(_, last)| last));
    let quoted = shown_by.flat_map(|cell| cell.split('`').skip(1).step_by(2));
    // A test's name is a sentence.
    let named: Vec<_> = quoted.filter(|name| name.matches('_').count() > 2).collect();
    assert!(named.len() > 40, "the page names {} tests", named.len());
    let missing: Vec<_> = named.into_iter().filter(|name| !functions.contains(*name)).collect();
    assert!(missing.is_empty(), "docs/security.md names tests that are not there: {missing:#?}");
}
