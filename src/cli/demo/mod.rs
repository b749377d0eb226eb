//! `demo`: the whole thing on one machine, with nothing to configure and nothing real.
//!
//! What runs is the product itself: the daemon from a configuration file like any other, in a folder of its own that is
//! removed at the end, against the built-in simulator of B2BINPAY.

mod home;
mod tour;

use std::{
    io::{self, Write},
    sync::Arc,
    time::Duration,
};

use b2binpay_simulator::{Api, Settings, Simulator};
use clap::ValueEnum;
use home::DemoHome;
use tokio_util::sync::CancellationToken;

use super::{Exit, complain, serve};
use crate::{
    app::{self, Bound},
    clock::{Clock, SystemClock},
    config::{Config, Environment, LogFormat},
    hardening::protect_memory,
    service_manager::HandedOver,
    telemetry::start_logging,
};

/// How long the demo's tokens live: long enough to use one, short enough to see the next.
const LIFETIME: Duration = Duration::from_secs(60);

/// The same for the tour, which waits for a rotation.
const LIFETIME_ON_TOUR: Duration = Duration::from_secs(12);

/// What the demo may be told.
#[derive(clap::Args, Debug)]
pub(super) struct DemoArguments {
    /// Walk through a token, its rotation, a verified and a forged callback, a failing upstream; then end
    #[arg(long)]
    tour: bool,
    /// Which API generation to play
    #[arg(long, value_enum, default_value_t = DemoApi::V3)]
    api: DemoApi,
    /// Show the daemon's log as well
    #[arg(long)]
    log: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum, Debug)]
enum DemoApi {
    V2,
    V3,
}

impl DemoApi {
    const fn as_str(self) -> &'static str {
        match self {
            Self::V2 => "v2",
            Self::V3 => "v3",
        }
    }
}

/// What kept the demo from running.
#[derive(Debug, thiserror::Error)]
enum DemoFailed {
    #[error("the demo's folder: {0}")]
    Folder(io::Error),
    #[error("the simulator did not start: {0}")]
    Simulator(#[from] b2binpay_simulator::StartError),
    #[error("{0}")]
    Config(#[from] crate::config::ConfigErrors),
    #[error("{0}")]
    Credentials(#[from] crate::config::CredentialErrors),
    #[error("{0}")]
    Broker(#[from] app::CannotStart),
    #[error("{0}")]
    Ended(#[from] app::TaskEnded),
    #[error("the tour stops here: {0}")]
    Tour(String),
    #[error("{0}")]
    Output(#[from] io::Error),
}

pub(super) fn run(arguments: &DemoArguments) -> Exit {
    let ran =
        serve::runtime().map_err(DemoFailed::Output).and_then(|runtime| runtime.block_on(demo(arguments)));
    match ran {
        Ok(()) => Exit::Done,
        // Whoever pipes the demo into `head` has seen enough.
        Err(DemoFailed::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Done,
        Err(error) => {
            complain(error);
            Exit::Failed
        }
    }
}

async fn demo(arguments: &DemoArguments) -> Result<(), DemoFailed> {
    protect_memory();
    let api = arguments.api;
    let settings = Settings {
        api: if api == DemoApi::V2 { Api::V2 } else { Api::V3 },
        access_lifetime: Some(if arguments.tour { LIFETIME_ON_TOUR } else { LIFETIME }),
        ..Settings::default()
    };
    let simulator = Simulator::start(settings).await?;
    let home = DemoHome::new(&simulator, api.as_str()).map_err(DemoFailed::Folder)?;
    let bound = broker(&home, arguments.log)?;

    let stop = CancellationToken::new();
    let serving = bound.run(stop.clone().cancelled_owned());
    let showing = async {
        let shown = if arguments.tour {
            tour::walk(&simulator, &home, api, &mut io::stdout()).await
        } else {
            let greeted = greet(&simulator, &home, api, &mut io::stdout());
            if greeted.is_ok() {
                serve::told_to_stop().await;
            }
            greeted.map_err(DemoFailed::Output)
        };
        stop.cancel();
        shown
    };
    let (served, shown) = tokio::join!(serving, showing);
    shown?;
    Ok(served?)
}

fn broker(home: &DemoHome, log: bool) -> Result<Bound, DemoFailed> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let config = Config::load(&home.config())?;
    if log {
        start_logging(LogFormat::Auto, config.log.level);
    }
    let loaded = config.read_credentials(&Environment::default(), clock.now().wall)?;
    Ok(app::build(config, Environment::default(), &loaded, HandedOver::default(), &clock)?)
}

fn greet(simulator: &Simulator, home: &DemoHome, api: DemoApi, out: &mut dyn Write) -> io::Result<()> {
    let alias = home::program_off_path().map(|path| format!("  alias b2binpay-broker={}\n", path.display()));
    write!(
        out,
        "\
b2binpay-broker demo: the whole thing on this machine, and nothing of it real

  simulator  {url}
             plays B2BINPAY {api}; its tokens live {lifetime} s
  broker     {endpoint}
             holds the simulator's credentials, and keeps a token fresh
  config     {config}
             what a real one looks like

Paste into another terminal, these lines first:

  export B2BINPAY_BROKER_ENDPOINT={endpoint}
  export B2BINPAY_SIMULATOR={url}
{alias}
and then any of these:

  # an access token, and one that is used without ever standing in the arguments
  b2binpay-broker token
  b2binpay-broker token --header | curl -s -H @- $B2BINPAY_SIMULATOR/wallet/

  # each new token as it comes; how everything is
  b2binpay-broker watch
  b2binpay-broker status

  # a callback that B2BINPAY signed, and one that somebody changed
  b2binpay-broker simulate callback --api {api} | b2binpay-broker verify --explain
  b2binpay-broker simulate callback --api {api} --change-amount-to 9000 | b2binpay-broker verify

  # the upstream hangs, and is well again
  b2binpay-broker simulate fault hang --until-cleared
  b2binpay-broker simulate fault clear

Ctrl-C ends it and removes its folder. A guided walk: b2binpay-broker demo --tour
",
        url = simulator.base_url(),
        api = api.as_str(),
        lifetime = LIFETIME.as_secs(),
        endpoint = home.endpoint(),
        config = home.config().display(),
        alias = alias.unwrap_or_default(),
    )?;
    out.flush()
}
