//! `check`: everything that can be known before starting.
//!
//! It reads what `serve` reads and looks where `serve` writes, as the user who runs it, and changes nothing. The report
//! is its result, errors included, and so stands on stdout.

mod access;
mod certificates;
mod host;
mod online;
mod report;
mod sockets;
mod time;
mod trail;

use std::{path::Path, sync::Arc};

use access::ServiceUser;
use report::Report;

use super::{
    ConfigFile, Exit,
    layout::{relative, span},
    output::{Look, conclude},
    remote::block_on,
};
use crate::{
    app::{self, CannotStart},
    budget::CallBudget,
    clock::{Clock, SystemClock},
    config::{Config, Environment, LoadedCredentials, Warning},
    hardening::protect_memory,
    issuer::TokenIssuer,
};

const EXIT_CODES: &str = "\
Run it as the broker's user: what another user can read and write says nothing of that one. \
As root, --online becomes the owner of the state directory before it writes there.

Exit codes: 0 ok, 1 the upstream refuses the login, 2 usage, 69 there was no call left for --online or the upstream gave \
no answer, 78 something is wrong";

/// Check everything that can be known before starting
#[derive(clap::Args, Debug)]
#[command(after_help = EXIT_CODES)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    file: ConfigFile,
    /// Log in once as well, if the upstream's limit leaves a call for it
    #[arg(long)]
    online: bool,
}

/// What it takes to log in.
type Upstream = (Arc<dyn TokenIssuer>, Arc<CallBudget>);

pub(super) fn run(args: &CheckArgs) -> Exit {
    // Secrets are read here as well.
    protect_memory();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let mut report = Report::default();
    let checked = offline(&args.file.config, &clock, &mut report);
    let exit = match checked {
        Some((config, upstream)) if !report.has_errors() => {
            if args.online {
                login(&config, upstream, &clock, &mut report)
            } else {
                Exit::Done
            }
        }
        _ => {
            if args.online {
                report.section("Online");
                report.note("not tried: put the errors right first");
            }
            Exit::BadConfig
        }
    };
    conclude(&report.render(Look::of_stdout()), exit)
}

fn offline(file: &Path, clock: &Arc<dyn Clock>, report: &mut Report) -> Option<(Config, Upstream)> {
    report.section("Configuration");
    let config = match Config::load(file) {
        Ok(config) => config,
        Err(errors) => {
            report.errors(&errors);
            return None;
        }
    };
    report.ok(file.display().to_string());
    for warning in &config.warnings {
        report.warning(placed(&config, warning));
    }
    let user = ServiceUser::of(&config);
    if let Some(user) = &user {
        access::files(&config, user, report);
    }
    let credentials = credentials(&config, clock, user.as_ref(), report);
    let upstream = credentials.and_then(|credentials| upstream(&config, credentials, clock, report));
    host::state(&config, clock.now(), report);
    trail::trail(&config, report);
    sockets::sockets(&config, report);
    certificates::certificates(&config, clock.now().wall, report);
    host::callers(&config, report);
    time::clock(report);
    upstream.map(|upstream| (config, upstream))
}

/// A warning in the form of the errors, which editors know.
fn placed(config: &Config, Warning { position, message }: &Warning) -> String {
    let position = position.map(|position| format!(":{position}")).unwrap_or_default();
    format!("{}{position}: {message}", config.file.display())
}

fn credentials(
    config: &Config,
    clock: &Arc<dyn Clock>,
    user: Option<&ServiceUser>,
    report: &mut Report,
) -> Option<LoadedCredentials> {
    report.section("Credentials");
    let now = clock.now().wall;
    match config.read_credentials(&Environment::from_process(), now) {
        Ok(loaded) => {
            for source in &loaded.sources {
                let written = source.modified.map(|at| format!(", written {}", relative(at, now)));
                report.ok(format!(
                    "{}: {}{}",
                    source.name,
                    source.path.display(),
                    written.unwrap_or_default()
                ));
                if let Some(user) = user {
                    let what = format!("credentials.{}", source.name);
                    user.look(
                        &what,
                        &source.path,
                        ", unless systemd hands it over (LoadCredential=)",
                        report,
                    );
                }
            }
            if let Some((_, until)) = &loaded.previous {
                report.note(format!("signs of the previous ones are accepted until {until}"));
            }
            for warning in &loaded.warnings {
                report.warning(placed(config, warning));
            }
            Some(loaded)
        }
        Err(errors) => {
            report.errors(&errors);
            None
        }
    }
}

fn upstream(
    config: &Config,
    loaded: LoadedCredentials,
    clock: &Arc<dyn Clock>,
    report: &mut Report,
) -> Option<Upstream> {
    report.section("Upstream");
    let made = config
        .read_authorities()
        .map_err(CannotStart::from)
        .and_then(|authorities| app::upstream(config, authorities, loaded.credentials, clock));
    match made {
        Ok(upstream) => {
            let configured = &config.upstream;
            let budget = &configured.budget;
            report.ok(format!(
                "{} at {}, at most {} calls in {}",
                configured.api,
                configured.base_url,
                budget.requests,
                span(budget.window)
            ));
            Some(upstream)
        }
        Err(error) => {
            report.errors(&error);
            None
        }
    }
}

fn login(config: &Config, (issuer, budget): Upstream, clock: &Arc<dyn Clock>, report: &mut Report) -> Exit {
    if let Err(why) = online::become_owner(&config.state_directory) {
        report.section("Online");
        report.error(format!("not tried: {why}"));
        return Exit::BadConfig;
    }
    block_on(async {
        Ok(online::login(issuer, budget, clock, config.upstream.request_timeout, report).await)
    })
}
