//! Secrets in the wrong places, and files out of shape.

use proptest::prelude::*;

use super::*;

/// Files in which a secret stands in some wrong place.
fn files_with_a_secret() -> Vec<String> {
    let values = [
        format!("\"{PLANTED}\""),
        format!("'{PLANTED}'"),
        format!("\"\"\"\n{PLANTED}\"\"\""),
        format!("[\"{PLANTED}\"]"),
        format!("[\"Health\", \"{PLANTED}\"]"),
        format!("{{ {PLANTED} = \"{PLANTED}\" }}"),
        format!("{{ key = \"{PLANTED}\" }}"),
        format!("[[\"{PLANTED}\"], {{ {PLANTED} = 1 }}]"),
        format!("\"1h{PLANTED}\""),
        format!("\"https://{PLANTED}\""),
        format!("\"https://user:{PLANTED}@host\""),
        format!("\"/{PLANTED}\\u0000\""),
        PLANTED.to_owned(),
        format!("\"{PLANTED}"),
        format!("{PLANTED}\""),
        format!("\"\\{PLANTED}\""),
        format!("5 {PLANTED}"),
        format!("5\n{PLANTED}"),
        format!("5\n{PLANTED}="),
        format!("5\n{PLANTED}=="),
        format!("5\n{PLANTED} = 5"),
        format!("5\n\"{PLANTED}\" = \"{PLANTED}\""),
        format!("5\n{PLANTED}.{PLANTED} = 1\n{PLANTED} = 2"),
        format!("5\n{PLANTED} = 1\n{PLANTED} = 2"),
        format!("5\n[{PLANTED}]"),
        format!("5\n[[{PLANTED}]]"),
        format!("5\n[{PLANTED}"),
    ];
    let mut files = Vec::new();
    for key in KEYS {
        let (section, name) = key.split();
        for value in &values {
            let line = format!("{name} = {value}\n");
            files.push(format!("{}\n{line}", section::brackets(section)));
            // The same among settings that are right, so that whatever looks at it later looks too.
            let header = format!("[{section}]\n");
            if MINIMAL.contains(&header) {
                let others: String = MINIMAL
                    .lines()
                    .filter(|old| !old.starts_with(&format!("{name} =")))
                    .flat_map(|old| [old, "\n"])
                    .collect();
                files.push(others.replace(&header, &format!("{header}{line}")));
            } else {
                let others = written(|other| {
                    let needed = matches!(other.unset, Unset::Refused(_)) && other.path != key.path;
                    other.split().0 == section && needed
                });
                let others = if others.is_empty() { section::brackets(section) + "\n" } else { others };
                files.push(format!("{MINIMAL}{others}{line}"));
            }
        }
    }
    for name in [PLANTED.to_owned(), format!("\"{PLANTED}\"")] {
        files.push(format!("{name} = 1\n"));
        files.push(format!("[upstream.{name}]\n[upstream.{name}]\n"));
        files.push(format!("[upstream.{name}.{name}]\n"));
    }
    files
}

#[test]
fn a_secret_in_the_wrong_place_is_not_repeated() {
    let files = files_with_a_secret();
    let mut refused = 0;
    for text in &files {
        let told = match parse(text) {
            Ok(config) => format!("{:?} {:?} {:?}", config.warnings, config.credentials, config.previous),
            Err(errors) => {
                refused += 1;
                format!("{errors} {errors:?}")
            }
        };
        for part in ["Pl4nted", "S3cret"] {
            assert!(!told.contains(part), "{told}\n\nin\n{text}");
        }
    }
    assert!(refused > files.len() * 9 / 10, "{refused} of {} were refused", files.len());
}

proptest! {
    #[test]
    fn no_file_is_too_odd_to_be_told_about(
        cuts in prop::collection::vec((0..EXAMPLE.len(), 0..40_usize, "[\\[\\]{}\"'=.,#\\n\\\\a-z0-9é -]{0,6}"), 1..6)
    ) {
        let mut text = EXAMPLE.to_owned();
        for (at, length, insert) in cuts {
            let floor = |at: usize, text: &str| (0..=at.min(text.len())).rfind(|at| text.is_char_boundary(*at)).unwrap_or(0);
            let (from, to) = (floor(at, &text), floor(at + length, &text));
            text.replace_range(from..to, &insert);
        }
        if let Err(errors) = parse(&text) {
            let lines = text.lines().count() + 1;
            prop_assert!(!errors.problems.is_empty());
            for problem in &errors.problems {
                prop_assert!(problem.position.is_some_and(|position| (1..=lines).contains(&position.line)), "{errors}");
                prop_assert!(!problem.message.is_empty());
            }
        }
    }
}
