//! v3: a login gives an access token and how many seconds it lives; there is nothing else.

use std::time::Duration;

use super::{
    checks::{access_token, believable},
    client::{Call, Client},
    errors::accepted,
    wire::{self, V3Attributes, unusable},
};
use crate::{
    clock::BootInstant,
    credentials::{ApiVersion, Credentials},
    issuer::{Answer, IssueError, TokenIssuer},
    token::{Grant, RefreshToken},
};

pub(super) struct V3 {
    client: Client,
    credentials: Credentials,
}

impl V3 {
    pub(super) fn new(client: Client, credentials: Credentials) -> Self {
        Self { client, credentials }
    }

    async fn log_in(&self, timeout: Duration) -> Result<Grant, IssueError> {
        let Credentials { key, secret, .. } = &self.credentials;
        let request = wire::v3_login(key, secret)?;
        self.client
            .call(Call::Login, request, timeout, |reply, asked_at| {
                grant(accepted(ApiVersion::V3, Call::Login, reply, &[key, secret])?, asked_at)
            })
            .await
    }
}

impl TokenIssuer for V3 {
    fn fetch_token(&self, timeout: Duration) -> Answer<'_> {
        Box::pin(self.log_in(timeout))
    }

    /// Logs in: v3 gives no refresh tokens, so one that turns up here is another API's and worth nothing.
    fn refresh_token<'a>(&'a self, _: &'a RefreshToken, timeout: Duration) -> Answer<'a> {
        self.fetch_token(timeout)
    }
}

/// What the body of an answer gives. The upstream counts the lifetime from its answer, we from before the request: the
/// difference is on the safe side.
fn grant(body: &[u8], asked_at: BootInstant) -> Result<Grant, IssueError> {
    let (attributes, _) = wire::token_answer::<V3Attributes>(body)?;
    if attributes.token_type.is_some_and(|kind| !kind.eq_ignore_ascii_case("bearer")) {
        return Err(unusable("its token is not of the type Bearer"));
    }
    let access = access_token(attributes.access)?;
    let seconds =
        attributes.expires_in.ok_or_else(|| unusable("it does not say how long the token lives"))?;
    let lifetime = believable(Duration::from_secs(seconds))?;
    Ok(Grant { access, asked_at, lifetime, refresh: None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::ExposeSecret;

    const ASKED_AT: BootInstant = BootInstant::since_boot(Duration::from_secs(1000));

    fn read(attributes: &str) -> Result<Grant, IssueError> {
        let body = format!(r#"{{"data":{{"type":"auth-token","id":"0","attributes":{{{attributes}}}}}}}"#);
        grant(body.as_bytes(), ASKED_AT)
    }

    #[test]
    fn a_token_lives_from_before_the_request() {
        let grant = read(r#""access":"eyJ.a.b","expires_in":3599,"token_type":"Bearer""#).unwrap();
        assert_eq!(grant.access.secret().expose_secret(), "eyJ.a.b");
        assert_eq!((grant.asked_at, grant.lifetime), (ASKED_AT, Duration::from_secs(3599)));
        assert!(grant.refresh.is_none());
    }

    #[test]
    fn a_token_is_a_bearer_token_unless_it_says_otherwise() {
        for kind in [r#","token_type":"bearer""#, r#","token_type":"BEARER""#, r#","token_type":null"#, ""] {
            assert!(read(&format!(r#""access":"a","expires_in":60{kind}"#)).is_ok(), "{kind}");
        }
        for kind in ["MAC", "", "Bearer "] {
            let error = read(&format!(r#""access":"a","expires_in":60,"token_type":"{kind}""#)).unwrap_err();
            assert_eq!(error, unusable("its token is not of the type Bearer"), "{kind:?}");
        }
    }

    #[test]
    fn an_answer_without_a_token_or_a_believable_lifetime_is_unusable() {
        for attributes in [
            r#""expires_in":60"#,
            r#""access":"","expires_in":60"#,
            r#""access":null,"expires_in":60"#,
            r#""access":"a"#,
            r#""access":"a""#,
            r#""access":"a","expires_in":null"#,
            r#""access":"a","expires_in":0"#,
            r#""access":"a","expires_in":4"#,
            r#""access":"a","expires_in":-60"#,
            r#""access":"a","expires_in":604801"#,
            r#""access":"a","expires_in":18446744073709551615"#,
            r#""access":"a","expires_in":60.5"#,
            r#""access":"a b","expires_in":60"#,
        ] {
            assert_eq!(read(attributes).unwrap_err().word(), "unusable", "{attributes}");
        }
    }
}
