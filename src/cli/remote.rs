//! What the commands that call a broker have in common: where it is, how long it may take, and which exit code an
//! error means.

use std::{fs, future::Future, path::PathBuf, time::Duration};

use tokio::runtime::Builder;

use super::{Exit, complain};
use crate::{
    config::{NotADuration, parse_duration},
    grpc::client::{CallError, Client, ConnectError, Endpoint, Meaning, Tls},
    hardening::protect_memory,
};

/// Which broker to ask.
#[derive(clap::Args, Debug)]
#[command(next_help_heading = "The broker")]
pub(super) struct Remote {
    /// Where it is: unix:PATH, or https://HOST:PORT with --ca, --cert and --key
    #[arg(
        long,
        env = "B2BINPAY_BROKER_ENDPOINT",
        value_name = "ENDPOINT",
        default_value = "unix:/run/b2binpay-broker/broker.sock"
    )]
    endpoint: Endpoint,
    /// The authorities that may vouch for it, in PEM
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The certificate to show it, in PEM
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// The certificate's private key, in PEM
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// How long it may take to connect, and to answer
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = timeout)]
    timeout: Duration,
}

/// A time to wait. Longer ones than a day would not fit the protocol's header.
fn timeout(text: &str) -> Result<Duration, String> {
    let timeout = parse_duration(text).map_err(|error: NotADuration| error.to_string())?;
    if (Duration::from_millis(1)..=Duration::from_secs(86_400)).contains(&timeout) {
        Ok(timeout)
    } else {
        Err("must be between 1ms and 1d".to_owned())
    }
}

impl Remote {
    /// Connects.
    pub(super) async fn connect(&self) -> Result<Client, Exit> {
        let tls = self.tls()?;
        // Tokens and keys are in this process as well.
        protect_memory();
        Client::connect(&self.endpoint, tls.as_ref(), self.timeout).await.map_err(|error| {
            complain(&error);
            exit_of_connect(&error)
        })
    }

    fn tls(&self) -> Result<Option<Tls>, Exit> {
        let (Some(ca), Some(cert), Some(key)) = (&self.ca, &self.cert, &self.key) else { return Ok(None) };
        let read = |path: &PathBuf| {
            fs::read(path).map_err(|error| {
                complain(format_args!("{}: can't be read: {error}", path.display()));
                Exit::Failed
            })
        };
        Ok(Some(Tls { authorities: read(ca)?, certificate: read(cert)?, key: read(key)? }))
    }
}

const fn exit_of_connect(error: &ConnectError) -> Exit {
    match error {
        ConnectError::Closed { .. } => Exit::NotAllowed,
        ConnectError::CertificatesMissing(_) => Exit::Usage,
        _ => Exit::Unavailable,
    }
}

/// Tells a person what the broker said, and which exit code that is.
pub(super) fn refused(error: &CallError) -> Exit {
    complain(error);
    // Our broker's messages name the fields already.
    for (field, description) in error.violations.iter().filter(|(_, why)| !error.message.contains(why)) {
        complain(format_args!("{field}: {description}"));
    }
    exit_of_call(error)
}

const fn exit_of_call(error: &CallError) -> Exit {
    match error.meaning {
        Meaning::Unavailable => Exit::Unavailable,
        Meaning::NotAllowed => Exit::NotAllowed,
        Meaning::Failed => Exit::Failed,
    }
}

/// Runs a command to its end, on this thread.
pub(super) fn block_on(command: impl Future<Output = Result<Exit, Exit>>) -> Exit {
    match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(command).unwrap_or_else(|exit| exit),
        Err(error) => {
            complain(format_args!("can't wait for the network: {error}"));
            Exit::Failed
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_the_exit_codes_of_the_contract() {
        let call = |meaning| CallError {
            code: "X",
            reason: None,
            message: String::new(),
            retry_after: None,
            violations: Vec::new(),
            meaning,
        };
        assert_eq!(exit_of_call(&call(Meaning::Unavailable)), Exit::Unavailable);
        assert_eq!(exit_of_call(&call(Meaning::NotAllowed)), Exit::NotAllowed);
        assert_eq!(exit_of_call(&call(Meaning::Failed)), Exit::Failed);

        let socket = PathBuf::from("/s");
        assert_eq!(exit_of_connect(&ConnectError::NoSocket(socket.clone())), Exit::Unavailable);
        assert_eq!(exit_of_connect(&ConnectError::NobodyListens(socket.clone())), Exit::Unavailable);
        assert_eq!(exit_of_connect(&ConnectError::Closed { path: socket, uid: 7 }), Exit::NotAllowed);
    }

    #[test]
    fn a_time_to_wait_is_neither_nothing_nor_for_ever() {
        assert_eq!(timeout("1m30s"), Ok(Duration::from_secs(90)));
        for text in ["0s", "2d", "10"] {
            assert!(timeout(text).is_err(), "{text}");
        }
    }
}
