//! `reload`: the broker reads everything again.

use super::{
    Exit, complain,
    output::conclude,
    remote::{Remote, block_on, refused},
};

const EXIT_CODES: &str = "\
Policy, limits of tokens, certificates and credentials come into force together or not at all. New credentials are proved by one \
login within the upstream's call limit first.

Exit codes: 0 done, 1 the upstream refuses the new credentials, 2 usage, 69 the broker or the upstream can't be reached, \
77 not allowed (Admin:Reload), 78 the configuration is wrong or needs a restart";

/// Have the broker read its configuration, policy, certificates and credentials again
#[derive(clap::Args, Debug)]
#[command(after_help = EXIT_CODES)]
pub(super) struct ReloadArgs {
    #[command(flatten)]
    remote: Remote,
}

pub(super) fn run(args: &ReloadArgs) -> Exit {
    block_on(async {
        let client = args.remote.connect().await?;
        let answer = client.reload().await.map_err(|error| {
            let exit = refused(&error);
            match error.reason.as_deref() {
                Some("CONFIGURATION_INVALID" | "RESTART_NEEDED") => Exit::BadConfig,
                _ => exit,
            }
        })?;
        for note in &answer.notes {
            complain(format_args!("note: {note}"));
        }
        let changes: String = answer.changes.iter().flat_map(|change| [change, "\n"]).collect();
        let changes = if changes.is_empty() { "nothing is other than before\n" } else { &changes };
        let text = format!("{changes}reloaded; credential generation {}\n", answer.credential_generation);
        Ok(conclude(&text, Exit::Done))
    })
}
