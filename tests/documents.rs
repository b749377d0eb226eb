//! What the documents say of the code is so.

use std::{collections::BTreeSet, fs, path::Path};

/// The texts of the Rust files below a folder.
fn sources_in(folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources_in(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(fs::read_to_string(&path).unwrap_or_default());
        }
    }
}

/// All names of functions in a text.
fn functions_in(source: &str) -> impl Iterator<Item = String> {
    source
        .lines()
        .filter_map(|line| line.split_once("fn ")?.1.split(['(', '<']).next())
        .map(ToOwned::to_owned)
}

#[test]
fn every_test_that_the_threat_model_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = Vec::new();
    for folder in ["src", "tests"] {
        sources_in(&root.join(folder), &mut sources);
    }
    let functions: BTreeSet<_> = sources.iter().flat_map(|source| functions_in(source)).collect();
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

#[test]
fn every_error_that_the_operator_s_guide_explains_is_one_of_ours() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = Vec::new();
    sources_in(&root.join("src"), &mut sources);
    // A text that is too long for its line goes on in the next.
    let mut text = String::new();
    for line in sources.iter().flat_map(|source| source.lines()) {
        let line = line.trim_start();
        text.push_str(line.strip_suffix('\\').unwrap_or(line));
        if !line.ends_with('\\') {
            text.push('\n');
        }
    }
    let page = fs::read_to_string(root.join("docs/operations.md")).unwrap_or_default();
    let (_, table) = page.split_once("## Troubleshooting").unwrap_or_default();
    let said: Vec<_> = table.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    assert!(said.len() > 12, "the page explains {} errors", said.len());
    let unknown: Vec<_> = said.into_iter().filter(|said| !text.contains(said)).collect();
    assert!(unknown.is_empty(), "docs/operations.md explains what the program never says: {unknown:#?}");
}

/// The units of `b2binpay-broker@.…` do what those of `b2binpay-broker.…` do, each in places of its own.
#[test]
fn the_template_units_differ_from_the_plain_ones_in_their_places_alone() -> std::io::Result<()> {
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd");
    let places = [
        ("for B2BINPAY\n", "for B2BINPAY (%i)\n"),
        ("b2binpay-broker.socket", "b2binpay-broker@%i.socket"),
        ("broker serve\n", "broker serve --config /etc/b2binpay-broker/%i/config.toml\n"),
        ("/run/b2binpay-broker/broker.sock", "/run/b2binpay-broker/%i/broker.sock"),
    ];
    for kind in ["service", "socket"] {
        let plain = fs::read_to_string(units.join(format!("b2binpay-broker.{kind}")))?;
        let template =
            places.iter().fold(plain, |text, (plain, of_instance)| text.replace(plain, of_instance));
        let path = units.join(format!("b2binpay-broker@.{kind}"));
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&path, &template)?;
        }
        assert_eq!(
            fs::read_to_string(&path)?,
            template,
            "{}: UPDATE=1 cargo test --test documents",
            path.display()
        );
    }
    Ok(())
}
