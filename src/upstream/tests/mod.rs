//! The issuers against servers that do what they are told, over real sockets; and what the tests of this module share.

mod server;
mod tls;
mod transport;

use std::{env, process::Command, sync::Arc, time::Duration};

use bytes::Bytes;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::{BaseUrl, Settings, issuer};
use crate::{
    clock::{Clock as _, SystemClock},
    credentials::{ApiVersion, Credentials},
    issuer::TokenIssuer,
    token::{RefreshToken, ServerClock},
};

/// Enough for anything that should not take any time.
const AMPLE: Duration = Duration::from_secs(20);

/// For calls that are to run into it.
const SHORT: Duration = Duration::from_millis(200);

const LOGIN: &str = "the-api-key";
const PASSWORD: &str = "the-\"api\"-secret";
const REFRESH: &str = "the-refresh-token";

pub(super) fn credentials(api: ApiVersion) -> Credentials {
    Credentials { api, key: LOGIN.into(), secret: PASSWORD.into(), callback_secret: None }
}

/// B2BINPAY's sign of a login's answer, computed without our own code for it.
pub(super) fn v2_sign(time: &str, refresh: &str) -> String {
    let key = Sha256::digest(format!("{LOGIN}{PASSWORD}"));
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
    mac.update(format!("{time}{refresh}").as_bytes());
    format!("{:x}", Bytes::copy_from_slice(&mac.finalize().into_bytes()))
}

/// A JWT that claims these times, signed by nobody.
pub(super) fn jwt(issued_at: i64, expires_at: i64) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let claims = json!({"iat": issued_at, "exp": expires_at}).to_string();
    let encoded = claims.as_bytes().chunks(3).flat_map(|group| {
        let bits = group.iter().fold(0_usize, |bits, byte| bits << 8 | usize::from(*byte))
            << (8 * (3 - group.len()));
        (0..=group.len()).map(move |letter| char::from(ALPHABET[bits >> (18 - 6 * letter) & 63]))
    });
    format!("header.{}.signature", encoded.collect::<String>())
}

fn settings(api: ApiVersion, base_url: &str) -> Settings {
    let _ = rustls::crypto::ring::default_provider().install_default();
    Settings {
        api,
        base_url: BaseUrl::parse(base_url).unwrap(),
        ca_pem: None,
        proxy: None,
        connect_timeout: AMPLE,
        request_timeout: AMPLE,
    }
}

fn issuer_with(settings: Settings) -> Arc<dyn TokenIssuer> {
    let credentials = credentials(settings.api);
    issuer(settings, credentials, Arc::new(SystemClock)).unwrap()
}

fn issuer_at(api: ApiVersion, base_url: &str) -> Arc<dyn TokenIssuer> {
    issuer_with(settings(api, base_url))
}

fn a_refresh_token() -> RefreshToken {
    let now = SystemClock.now();
    RefreshToken {
        secret: REFRESH.into(),
        expires_at: now.boot + Duration::from_secs(3600),
        server_clock: ServerClock { boot: now.boot, server: now.wall },
    }
}

/// Runs the named test once more in a process of its own, with these variables in its environment: the environment is a
/// process's, and so is what tracing remembers of who listens. Gives whether this *is* that process, for the test to go
/// on there and there alone.
fn is_alone(test: &str, environment: &[(&str, &str)]) -> bool {
    const ALONE: &str = "UPSTREAM_TEST_IS_ALONE";
    if env::var_os(ALONE).is_some() {
        return true;
    }
    let output = Command::new(env::current_exe().unwrap())
        .args(["--exact", &format!("upstream::tests::{test}")])
        .env(ALONE, "1")
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(said.contains("1 passed"), "{said}");
    false
}
