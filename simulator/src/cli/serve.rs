//! Running a simulator from the command line.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use jiff::SignedDuration;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use super::{CliError, DEFAULT_ADDRESS};
use crate::duration;
use crate::server::tls::TlsFiles;
use crate::settings::{
    Api, Credentials, DEMO_CALLBACK_SECRET, DEMO_KEY, DEMO_SECRET, Limit, Settings, UtcOffset,
};
use crate::simulator::Simulator;

#[derive(clap::Args)]
pub(super) struct ServeArgs {
    /// Address to listen on; port 0 takes any free one. Whoever reaches it controls the simulator
    #[arg(long, value_name = "ADDRESS", default_value = DEFAULT_ADDRESS)]
    listen: SocketAddr,
    /// Which generations to serve: v2, v3 or both
    #[arg(long, default_value = "both")]
    api: Api,
    /// The API key to accept: v2's login, v3's client_id. Fake ones only
    #[arg(long, visible_aliases = ["login", "client-id"], default_value = DEMO_KEY)]
    key: String,
    /// The API secret to accept: v2's password, v3's client_secret. Fake ones only
    #[arg(long, visible_aliases = ["password", "client-secret"], default_value = DEMO_SECRET)]
    secret: String,
    /// The secret that signs v3 callbacks. Fake ones only
    #[arg(long, default_value = DEMO_CALLBACK_SECRET)]
    callback_secret: String,
    /// How long access tokens live [default: 15m in v2, 3599s in v3]
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    access_lifetime: Option<Duration>,
    /// How long refresh tokens live
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, default_value = "6h")]
    refresh_lifetime: Duration,
    /// How far the server's clock is ahead of this machine's; negative if it is behind
    #[arg(long, value_name = "DURATION", value_parser = duration::parse_signed, default_value = "0s",
          allow_hyphen_values = true)]
    clock_offset: SignedDuration,
    /// How many calls without an access token are let in, per client address, in any window
    #[arg(long, value_name = "CALLS", default_value = "15", value_parser = at_least_one)]
    limit: usize,
    /// How long the window is
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, default_value = "60s")]
    limit_window: Duration,
    /// The offset in which access_expired_at is written: Z, or something like +03:00
    #[arg(long, value_name = "OFFSET", default_value = "Z", allow_hyphen_values = true)]
    expiry_offset: UtcOffset,
    /// Serve TLS with this certificate (PEM, followed by its intermediates)
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The private key of the certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Post callbacks to any host, not only to loopback addresses
    #[arg(long)]
    callbacks_anywhere: bool,
    /// Say where it listens in one line of JSON, for scripts
    #[arg(long)]
    json: bool,
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("write a number from 1 up".to_owned()),
        Ok(number) => Ok(number),
    }
}

impl ServeArgs {
    fn settings(&self) -> Settings {
        let mut settings = Settings {
            api: self.api,
            credentials: Credentials::new(&self.key, &self.secret),
            callback_secret: self.callback_secret.clone(),
            access_lifetime: self.access_lifetime,
            refresh_lifetime: self.refresh_lifetime,
            clock_offset: self.clock_offset,
            limit: Limit { calls: self.limit, window: self.limit_window },
            callbacks_anywhere: self.callbacks_anywhere,
            ..Settings::default()
        };
        settings.forms.expiry_offset = self.expiry_offset;
        settings
    }
}

pub(super) async fn serve(args: ServeArgs, out: &mut (dyn Write + Send)) -> Result<(), CliError> {
    // Before the first line goes out, so that whoever waits for that line can already stop it politely.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut builder = Simulator::builder().settings(args.settings()).listen(args.listen);
    if let (Some(cert), Some(key)) = (args.tls_cert.clone(), args.tls_key.clone()) {
        builder = builder.tls(TlsFiles { cert, key });
    }
    let simulator = builder.start().await?;
    let url = simulator.base_url();
    let greeting = if args.json { json!({ "base_url": url }).to_string() } else { greeting(&args, &url) };
    writeln!(out, "{greeting}")?;
    out.flush()?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    simulator.shutdown().await;
    Ok(())
}

/// Where it is, what to call it with, and lines to paste. Credentials are repeated only where they are the demo's.
fn greeting(args: &ServeArgs, url: &str) -> String {
    let shown = |given: &str, demo: &'static str| if given == demo { demo } else { "(as given)" };
    let key = shown(&args.key, DEMO_KEY);
    let secret = shown(&args.secret, DEMO_SECRET);
    let callback_secret = shown(&args.callback_secret, DEMO_CALLBACK_SECRET);
    let versions = match args.api {
        Api::V2 => "v2",
        Api::V3 => "v3",
        Api::Both => "v2 and v3",
    };
    let (key_name, secret_name) =
        if args.api == Api::V2 { ("login", "password") } else { ("client_id", "client_secret") };
    let insecure = if url.starts_with("https") { " -k" } else { "" };
    let attributes = json!({ key_name: key, secret_name: secret });
    let login = json!({ "data": { "type": "auth-token", "attributes": attributes } });
    format!(
        "Simulating B2BINPAY {versions} at {url}\n\
         \n\
         Accepted credentials, made up and good for nothing else:\n\
         \x20 API key          {key}\n\
         \x20 API secret       {secret}\n\
         \x20 callback secret  {callback_secret}\n\
         \n\
         Ask for a token:\n\
         \x20 curl -s{insecure} {url}/token/ -H 'Content-Type: application/vnd.api+json' -d '{login}'\n\
         Make the next token call fail:\n\
         \x20 curl -s{insecure} --json '{{\"kind\": \"html\"}}' {url}/_simulator/faults\n\
         Everything else:\n\
         \x20 curl -s{insecure} {url}/_simulator/\n\
         \n\
         Ctrl-C stops it."
    )
}
