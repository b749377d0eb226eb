//! `completions` and `man`: the command line as it describes itself.

use std::{fs, io, path::Path};

use clap::CommandFactory;
use clap_complete::Shell;

use super::{Arguments, Exit, complain, output::conclude};

/// Print a script that completes this program's commands
#[derive(clap::Args, Debug)]
pub(super) struct CompletionsArgs {
    /// The shell that is to run it
    shell: Shell,
}

/// Print the manual page
#[derive(clap::Args, Debug)]
pub(super) struct ManArgs {
    /// Write a page for the program and one for each command to this directory instead, and make it if need be
    #[arg(long, value_name = "DIR")]
    dir: Option<std::path::PathBuf>,
}

pub(super) fn completions(args: &CompletionsArgs) -> Exit {
    let mut command = Arguments::command();
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, name, &mut script);
    conclude(&String::from_utf8_lossy(&script), Exit::Done)
}

pub(super) fn man(args: &ManArgs) -> Exit {
    let Some(directory) = &args.dir else {
        let mut page = Vec::new();
        return match clap_mangen::Man::new(Arguments::command()).render(&mut page) {
            Ok(()) => conclude(&String::from_utf8_lossy(&page), Exit::Done),
            Err(error) => failed("the manual page", &error),
        };
    };
    match write_pages(directory) {
        Ok(()) => Exit::Done,
        Err(error) => failed(&directory.display().to_string(), &error),
    }
}

fn write_pages(directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    clap_mangen::generate_to(Arguments::command(), directory)
}

fn failed(what: &str, error: &io::Error) -> Exit {
    complain(format_args!("{what}: can't be written: {error}"));
    Exit::Failed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn there_is_a_page_for_each_command() {
        let directory = tempfile::tempdir().unwrap();
        let inner = directory.path().join("man1");
        write_pages(&inner).unwrap();
        for command in Arguments::command().get_subcommands() {
            let page = inner.join(format!("b2binpay-broker-{}.1", command.get_name()));
            assert!(page.is_file(), "{}", page.display());
        }
        assert!(inner.join("b2binpay-broker.1").is_file());
    }
}
