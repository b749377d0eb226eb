//! Delivering a callback: again and again until the service answers 200, as the real server does, but not for ever.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode, Uri};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::client::{self, Call};
use crate::duration;
use crate::wire::MEDIA_TYPE;

/// The most times one order may post; a typo in a plan should not turn into a flood.
const MOST: u32 = 1000;

/// How persistently a callback is delivered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DeliveryPlan {
    /// How often it is tried until the service answers 200, 1 to 1000.
    pub tries: u32,
    /// How long to wait between tries, and how long an answer may take.
    #[serde(with = "duration::plain")]
    pub pause: Duration,
    /// How often the very same body is sent once more after a 200, as happens when the 200 was lost. At most 1000.
    pub duplicates: u32,
}

impl Default for DeliveryPlan {
    fn default() -> Self {
        Self { tries: 5, pause: Duration::from_secs(1), duplicates: 0 }
    }
}

/// What became of a callback.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Delivery {
    /// Whether the service answered 200.
    pub delivered: bool,
    /// What came of each post, in order: the HTTP status, or why there was none.
    pub attempts: Vec<Attempt>,
}

/// What came of one post.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Attempt {
    /// The service answered with this status.
    Status(u16),
    /// It did not answer.
    Failed(String),
}

/// A callback that can't be sent at all.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DeliveryError {
    /// The URL is none that the simulator posts to.
    #[error("{url} can't be posted to: {reason}")]
    Url {
        /// The URL.
        url: String,
        /// Why not, and what to do.
        reason: &'static str,
    },
    /// The plan can't be followed.
    #[error("{0}")]
    Plan(&'static str),
}

/// Posts `body` to `url` by the plan. Only plain HTTP, and only to a loopback address unless `anywhere`.
pub(crate) async fn deliver(
    url: &str,
    body: Vec<u8>,
    plan: &DeliveryPlan,
    anywhere: bool,
) -> Result<Delivery, DeliveryError> {
    let uri = checked(url, anywhere)?;
    if !(1..=MOST).contains(&plan.tries) || plan.duplicates > MOST {
        return Err(DeliveryError::Plan("tries must be from 1 to 1000, and duplicates at most 1000"));
    }
    let body = Bytes::from(body);
    let mut delivery = Delivery { delivered: false, attempts: Vec::new() };
    for attempt in 0..plan.tries {
        if attempt > 0 {
            tokio::time::sleep(plan.pause).await;
        }
        let posted = post(&uri, &body, plan.pause).await;
        delivery.delivered = posted == Attempt::Status(200);
        delivery.attempts.push(posted);
        if delivery.delivered {
            for _ in 0..plan.duplicates {
                delivery.attempts.push(post(&uri, &body, plan.pause).await);
            }
            break;
        }
    }
    Ok(delivery)
}

async fn post(uri: &Uri, body: &Bytes, pause: Duration) -> Attempt {
    // A service gets at least a second: a short pause is meant to make a test fast, not the service late.
    let patience = pause.max(Duration::from_secs(1));
    let call = Call { method: Method::POST, uri: uri.clone(), media_type: MEDIA_TYPE, body: body.clone() };
    match tokio::time::timeout(patience, client::send(call)).await {
        Ok(Ok((status, _))) => Attempt::Status(StatusCode::as_u16(&status)),
        Ok(Err(error)) => Attempt::Failed(error.to_string()),
        Err(_) => Attempt::Failed(format!("no answer within {}", duration::friendly(patience))),
    }
}

fn checked(url: &str, anywhere: bool) -> Result<Uri, DeliveryError> {
    let refused = |reason| DeliveryError::Url { url: url.to_owned(), reason };
    let uri: Uri =
        url.parse().map_err(|_| refused("it is no URL; write something like http://127.0.0.1:8080/"))?;
    if uri.scheme_str() != Some("http") {
        return Err(refused("callbacks go over plain http:// only; let them in before your TLS"));
    }
    let host = uri.host().ok_or_else(|| refused("it names no host"))?;
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    let is_loopback = host == "localhost" || address.is_ok_and(|address| address.is_loopback());
    if is_loopback || anywhere {
        Ok(uri)
    } else {
        Err(refused("only loopback addresses are posted to, unless the setting callbacks_anywhere is on"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_http_to_a_loopback_address_is_posted_to() {
        for url in ["http://127.0.0.1:80/a", "http://localhost/", "http://[::1]:9/", "http://127.9.9.9/"] {
            assert!(checked(url, false).is_ok(), "{url}");
        }
        for url in ["https://127.0.0.1/", "http://192.0.2.1/", "http://localhost.example/", "/hook", ""] {
            assert!(checked(url, false).is_err(), "{url}");
        }
        assert!(checked("http://payouts:8080/hook", true).is_ok());
    }
}
