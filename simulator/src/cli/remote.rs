//! How the commands reach a running simulator. They only put words into JSON: the control API does the rest, so
//! that both always can the same.

use bytes::Bytes;
use clap::Args;
use http::{Method, Uri};
use serde_json::Value;

use super::{CliError, DEFAULT_ADDRESS};
use crate::client::{self, Call};
use crate::control::PREFIX;

/// Where the running simulator is.
#[derive(Args)]
pub(super) struct Remote {
    /// The running simulator's URL, http:// only [default: where one listens by default]
    #[arg(long, value_name = "URL", env = "B2BINPAY_SIMULATOR", hide_env_values = true)]
    simulator: Option<String>,
}

impl Remote {
    /// Asks the control API, and returns what it answers to a request that it carried out.
    pub(super) async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<Bytes, CliError> {
        let default = || format!("http://{DEFAULT_ADDRESS}");
        let url = self.simulator.clone().unwrap_or_else(default);
        let base: Uri = url.parse().map_err(|_| CliError::Usage(format!("'{url}' is no URL")))?;
        if base.scheme_str() != Some("http") {
            let reason =
                "commands reach a simulator over http:// only; control one that serves TLS with curl";
            return Err(CliError::Usage(reason.to_owned()));
        }
        let uri = format!("{}{PREFIX}/{path}", url.trim_end_matches('/'));
        let uri = uri.parse().map_err(|_| CliError::Usage(format!("'{uri}' is no URL")))?;
        let body = body.map(|body| body.to_string().into()).unwrap_or_default();
        let call = Call { method, uri, media_type: "application/json", body };
        let unreachable =
            |error: client::ClientError| CliError::Unreachable { url, reason: error.to_string() };
        let (status, body) = client::send(call).await.map_err(unreachable)?;
        if status.is_success() { Ok(body) } else { Err(CliError::Refused(reason(&body))) }
    }
}

/// The reason in a refusal, or whatever came instead of one.
fn reason(body: &[u8]) -> String {
    let error = serde_json::from_slice::<Value>(body).ok();
    let error = error.and_then(|body| body.get("error")?.as_str().map(str::to_owned));
    error.unwrap_or_else(|| String::from_utf8_lossy(body).into_owned())
}

/// Reads `NAME=VALUE`. The value is JSON where it can be, otherwise a text.
pub(super) fn pair(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("'{text}' is not NAME=VALUE"))?;
    // A secret that happens to look like a number is a text all the same.
    let is_text = matches!(name, "key" | "secret" | "callback_secret");
    let json = if is_text { None } else { serde_json::from_str(value).ok() };
    Ok((name.to_owned(), json.unwrap_or_else(|| value.into())))
}
