//! Credentials, and callbacks whose every value can be chosen.

use hmac::{Hmac, KeyInit as _, Mac as _};
use jiff::Timestamp;
use sha2::Sha256;

use crate::{
    credentials::{ApiVersion, Credentials},
    sign::{Finding, SignKeys, Subject, VerifyError, verify},
};

/// The callback secret of [`v3`].
pub(in crate::sign) const SECRET: &[u8] = b"cbs_4f1d2c9e";

pub(in crate::sign) fn v2() -> Credentials {
    Credentials {
        api: ApiVersion::V2,
        key: "nQns0adI5CZNj".to_owned().into(),
        secret: "3BXNFKKthfRk07tM".to_owned().into(),
        callback_secret: None,
    }
}

pub(in crate::sign) fn v3() -> Credentials {
    Credentials { api: ApiVersion::V3, callback_secret: Some("cbs_4f1d2c9e".to_owned().into()), ..v2() }
}

/// A moment after [`Draft`]'s `meta.time`.
pub(in crate::sign) fn now() -> Timestamp {
    "2026-11-21T12:01:00Z".parse().unwrap()
}

pub(in crate::sign) fn hex_sign(key: &[u8], message: &[u8]) -> String {
    let mac = Hmac::<Sha256>::new_from_slice(key).unwrap().chain_update(message).finalize().into_bytes();
    format!("{:x}", bytes::Bytes::copy_from_slice(&mac))
}

/// Judges a callback under [`v3`]'s key.
pub(in crate::sign) fn judged(body: impl AsRef<[u8]>) -> Result<Finding, VerifyError> {
    verify(&SignKeys::new(&v3(), None), Subject::Callback(body.as_ref()), None, now())
}

/// The parts of a callback, each a piece of JSON. The default is a genuine one.
#[derive(Clone, Copy)]
pub(in crate::sign) struct Draft<'a> {
    pub(in crate::sign) kind: &'a str,
    pub(in crate::sign) tracking_id: &'a str,
    pub(in crate::sign) status: &'a str,
    pub(in crate::sign) amount: &'a str,
    pub(in crate::sign) time: &'a str,
    /// Before the transfer in `included`, with the comma.
    pub(in crate::sign) currency: &'a str,
    /// The transfer, with `$status` and `$amount` in it. Empty: none.
    pub(in crate::sign) transfer: &'a str,
}

/// The currency of [`Draft`]'s default.
pub(in crate::sign) const CURRENCY: &str =
    r#"{"type":"currency","id":"1002","attributes":{"iso":1002,"alpha":"ETH","exp":8}}"#;

/// The transfer of [`Draft`]'s default.
pub(in crate::sign) const TRANSFER: &str = r#"{"type":"transfer","id":"17618","attributes":{"confirmations":3,"amount":$amount,"fee":"0.0","status":$status,"user_message":null},"relationships":{"currency":{"data":{"type":"currency","id":"1002"}}}}"#;

impl Default for Draft<'_> {
    fn default() -> Self {
        Self {
            kind: r#""deposit""#,
            tracking_id: r#""order-77""#,
            status: "2",
            amount: r#""0.30000000""#,
            time: r#""2026-11-21T12:00:00.000001Z""#,
            currency: CURRENCY,
            transfer: TRANSFER,
        }
    }
}

impl Draft<'_> {
    /// The body with this piece of JSON as its sign.
    pub(in crate::sign) fn with_sign(&self, sign: &str) -> String {
        let Self { kind, tracking_id, status, amount, time, currency, transfer } = self;
        let transfer = transfer.replace("$status", status).replace("$amount", amount);
        let comma = if currency.is_empty() || transfer.is_empty() { "" } else { "," };
        format!(
            r#"{{"data":{{"type":{kind},"id":"11203","attributes":{{"address":"0xcb","tracking_id":{tracking_id},"destination":{{"address":"0xcb"}}}},"relationships":{{"transfer":{{"data":{{"type":"transfer","id":"17618"}}}}}}}},"included":[{currency}{comma}{transfer}],"meta":{{"time":{time},"sign":{sign}}}}}"#
        )
    }

    /// The message that the values make, the strings decoded.
    pub(in crate::sign) fn message(&self) -> String {
        let decoded =
            |source: &str| serde_json::from_str::<String>(source).unwrap_or_else(|_| source.to_owned());
        [self.status.to_owned(), decoded(self.amount), decoded(self.tracking_id), decoded(self.time)].concat()
    }

    /// The body with the right sign under `key`.
    pub(in crate::sign) fn signed(&self, key: &[u8]) -> String {
        self.signed_for(key, &self.message())
    }

    /// The body with the sign of another message.
    pub(in crate::sign) fn signed_for(&self, key: &[u8], message: &str) -> String {
        self.with_sign(&format!("\"{}\"", hex_sign(key, message.as_bytes())))
    }
}
