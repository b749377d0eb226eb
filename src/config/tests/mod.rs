//! What a person sees who writes a configuration, right or wrong.

use std::{collections::HashMap, fmt::Write, io};

use super::*;

mod leaks;
mod listen;
mod mistakes;
mod right;
mod secrets;

const EXAMPLE: &str = include_str!("../../../docs/config.example.toml");

const MINIMAL: &str = "\
[upstream]
api = \"v2\"
environment = \"sandbox\"
[credentials]
key_file = \"key\"
secret_file = \"secret\"
";

/// A host with a few users, and groups of the same names and numbers.
struct Host;

impl Accounts for Host {
    fn user(&self, name: &str) -> io::Result<Option<u32>> {
        match name {
            "broken" => Err(io::Error::other("the name service is down")),
            _ => Ok(HashMap::from([
                ("root", 0),
                ("payouts", 1000),
                ("b2binpay-operators", 1001),
                ("nobody", 65534),
            ])
            .get(name)
            .copied()),
        }
    }

    fn group(&self, name: &str) -> io::Result<Option<u32>> {
        self.user(name)
    }

    fn groups_of(&self, uid: u32) -> Vec<u32> {
        match uid {
            1000 => vec![1000, 50],
            1001 => vec![1001, 50, 60],
            _ => Vec::new(),
        }
    }

    fn members(&self, gid: u32) -> Vec<u32> {
        match gid {
            50 => vec![1000, 1001],
            60 => vec![1001],
            _ => Vec::new(),
        }
    }
}

fn parse(text: &str) -> Result<Config, ConfigErrors> {
    Config::parse_for(text, Path::new("/etc/b/config.toml"), &Host)
}

fn right(text: &str) -> Config {
    parse(text).unwrap_or_else(|errors| panic!("{errors}\n\nin\n{text}"))
}

/// What is said of a wrong file, one line for each mistake, without the file's name.
fn errors(text: &str) -> Vec<String> {
    let told = parse(text).expect_err(text).to_string();
    told.lines().map(|line| line.strip_prefix("/etc/b/config.toml:").expect(line).to_owned()).collect()
}

/// What is said of a file that is right but for these lines at its end.
fn errors_after_minimal(lines: &str) -> Vec<String> {
    errors(&format!("{MINIMAL}{lines}"))
}

/// A secret that stands where it shouldn't.
const PLANTED: &str = "Pl4nted-S3cret";

/// A file with these keys of the table, each with its example.
fn written(wanted: impl Fn(&Key) -> bool) -> String {
    let mut text = String::new();
    let mut section = "";
    for key in KEYS.iter().filter(|key| wanted(key)) {
        let (here, name) = key.split();
        if here != section {
            section = here;
            let _ = writeln!(text, "{}", section::brackets(section));
        }
        let _ = writeln!(text, "{name} = {}", key.unset.example());
    }
    text
}
