//! Where results go: the only place of the commands that writes to stdout.
//!
//! A reader that goes away (`| head -1`) is no error: it has what it wanted. Anything else that keeps a result from
//! being written is one, since a result that is lost in silence looks like an empty one.

use std::{
    fs::File,
    io::{self, IsTerminal, Write},
    os::fd::AsFd,
};

use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};
use tokio::{io::Interest, net::unix::pipe::Sender};

use super::{Exit, complain};

/// Whether anybody reads on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Reader {
    Reads,
    Left,
}

/// Writes a result, whole. `Err`: it could not be, and a person was told.
pub(super) fn show(result: &str) -> Result<Reader, Exit> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(result.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(Reader::Reads),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Reader::Left),
        Err(error) => {
            complain(format_args!("the result can't be written: {error}"));
            Err(Exit::Failed)
        }
    }
}

/// Writes a result and ends with `exit`, whoever reads it.
pub(super) fn conclude(result: &str, exit: Exit) -> Exit {
    match show(result) {
        Ok(_) => exit,
        Err(failed) => failed,
    }
}

/// Ends when whoever reads the results is gone. Never, where that can't be told: files don't tell.
pub(super) async fn reader_left() {
    // Unchecked: the check would make stdout non-blocking for every process that has it. Nothing is written through this
    // copy of it.
    let copy = io::stdout().as_fd().try_clone_to_owned().map(File::from);
    if let Ok(pipe) = copy.and_then(Sender::from_file_unchecked)
        && pipe.ready(Interest::ERROR).await.is_ok()
    {
        return;
    }
    std::future::pending::<()>().await;
}

/// What stdout takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Look {
    /// Somebody looks at it.
    pub(super) terminal: bool,
    /// It shows colours, and whoever looks wants them.
    pub(super) colour: bool,
}

impl Look {
    /// For a program.
    #[cfg(test)]
    pub(super) const PLAIN: Self = Self { terminal: false, colour: false };

    /// That of this process's stdout. `NO_COLOR`, `CLICOLOR_FORCE` and `TERM` have their say.
    pub(super) fn of_stdout() -> Self {
        let stdout = io::stdout();
        Self { terminal: stdout.is_terminal(), colour: AutoStream::choice(&stdout) != ColorChoice::Never }
    }

    /// `text` in a tone, where there are tones.
    pub(super) fn paint(self, tone: Tone, text: &str) -> String {
        if self.colour && !text.is_empty() {
            let style = tone.style();
            format!("{style}{text}{style:#}")
        } else {
            text.to_owned()
        }
    }
}

/// What a colour stands for. The words always say it as well.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Tone {
    Good,
    Warning,
    Bad,
    /// A heading.
    Strong,
    /// What is there for those who look closer.
    Faint,
}

impl Tone {
    const fn style(self) -> Style {
        match self {
            Self::Good => AnsiColor::Green.on_default().bold(),
            Self::Warning => AnsiColor::Yellow.on_default().bold(),
            Self::Bad => AnsiColor::Red.on_default().bold(),
            Self::Strong => Style::new().bold(),
            Self::Faint => Style::new().dimmed(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_is_put_round_the_text_only_where_it_is_wanted() {
        let colourful = Look { terminal: true, colour: true };
        assert_eq!(colourful.paint(Tone::Bad, "no"), "\u{1b}[1m\u{1b}[31mno\u{1b}[0m");
        assert_eq!(colourful.paint(Tone::Bad, ""), "");
        assert_eq!(Look::PLAIN.paint(Tone::Bad, "no"), "no");
    }
}
