//! The reference of all keys, for people.

use std::fmt::Write;

use super::{
    keys::{AT_START, KEYS, Key, Kind, Unset},
    section::brackets,
    values::show_size,
};

/// `docs/configuration.md`.
const INTRODUCTION: &str = "\
<!-- Made from src/config/keys.rs; don't edit. UPDATE=1 cargo test --lib config writes it anew. -->
# Configuration

One TOML file, `/etc/b2binpay-broker/config.toml` unless `--config` names another; `config.example.toml` beside this page is one to start from. \
`b2binpay-broker check` tells all that is wrong with a file, with line and column.

- Unknown keys are errors. So are keys of later versions, which would have no effect.
- Secrets never stand in the file, only the names of files that hold them. A relative name without a folder is looked up in `$CREDENTIALS_DIRECTORY` first, \
then beside the configuration file. Each holds its secret alone, as UTF-8 text of at most 8 KiB; one final line break (`\\n` or `\\r\\n`) is stripped, other \
white space around it is an error. Keep the files at mode 0600, or at 0640 with a group that is the broker's alone.
- A duration is a number with its unit (`d`, `h`, `m`, `s`, `ms`), or several from the largest to the smallest, in quotes: `\"250ms\"`, `\"10s\"`, `\"1h30m\"`. \
A number without a unit is an error.
- A size is a number of bytes, or one with `KiB` or `MiB` in quotes: `16384`, `\"16KiB\"`.
- `b2binpay-broker reload` (or SIGHUP) reads everything again, all or nothing. Keys that say \"restart\" under *change* keep the value of the start: a reload that \
finds another one is refused by their names.
";

/// The reference of all keys, as Markdown.
pub fn reference() -> String {
    let mut page = INTRODUCTION.to_owned();
    let mut section = "";
    for key in KEYS {
        let (here, name) = key.split();
        if here != section {
            section = here;
            // Writing to a String can't fail.
            let _ = write!(
                page,
                "\n## `{}`\n\n| key | value | unset | change | |\n|---|---|---|---|---|\n",
                brackets(section)
            );
        }
        let unset = match key.unset {
            Unset::Refused(example) => format!("required, such as `{example}`"),
            Unset::Nothing(example) => format!("none; such as `{example}`"),
            Unset::Is(value) => format!("`{value}`"),
        };
        let change = if AT_START.contains(&key.path) { "restart" } else { "reload" };
        let _ = writeln!(page, "| `{name}` | {} | {unset} | {change} | {} |", value(key), description(key));
    }
    page
}

fn value(key: &Key) -> String {
    match key.kind {
        Kind::Choice(words) => {
            words.iter().map(|word| format!("`\"{word}\"`")).collect::<Vec<_>>().join(", ")
        }
        Kind::Text(sort) => sort.to_owned(),
        Kind::Words(sort) => format!("a list of {sort}"),
        Kind::Duration(range) => format!("a duration from {} to {}", range.from, range.to),
        Kind::Number(range) => format!("a number from {} to {}", range.from, range.to),
        Kind::Size(range) => format!("a size from {} to {}", show_size(range.from), show_size(range.to)),
        Kind::Fraction(range) => format!("a number from {} to {}", range.from, range.to),
        Kind::Instant => "a date and time with an offset".to_owned(),
    }
}

fn description(key: &Key) -> String {
    let why = match key.kind {
        Kind::Duration(range) => range.why,
        Kind::Number(range) | Kind::Size(range) => range.why,
        Kind::Fraction(range) => range.why,
        Kind::Choice(_) | Kind::Text(_) | Kind::Words(_) | Kind::Instant => "",
    };
    if why.is_empty() { key.description.to_owned() } else { format!("{} The range: {why}.", key.description) }
}

#[cfg(test)]
mod tests {
    use std::{env, fs, path::Path};

    use super::*;

    #[test]
    fn the_page_is_what_the_table_says() {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
        if env::var_os("UPDATE").is_some() {
            fs::write(&page, reference()).unwrap();
        }
        let written = fs::read_to_string(&page).unwrap_or_default();
        assert!(
            written == reference(),
            "docs/configuration.md is out of date: UPDATE=1 cargo test --lib config"
        );
    }
}
