//! What both APIs' answers must pass.

use std::time::Duration;

use super::wire::unusable;
use crate::{
    issuer::IssueError,
    secret::SecretString,
    token::{AccessToken, BELIEVABLE_LIFETIME},
};

/// The access token, if there is one and a header can carry it.
pub(super) fn access_token(token: Option<SecretString>) -> Result<AccessToken, IssueError> {
    let token = token.ok_or_else(|| unusable("there is no access token in it"))?;
    AccessToken::parse(token).map_err(|error| unusable(&error.to_string()))
}

/// The lifetime, if a token can have it.
pub(super) fn believable(lifetime: Duration) -> Result<Duration, IssueError> {
    if BELIEVABLE_LIFETIME.contains(&lifetime) {
        return Ok(lifetime);
    }
    Err(unusable(&format!(
        "it gives the token {}s to live, and less than {}s or more than {}s is a mistake",
        lifetime.as_secs(),
        BELIEVABLE_LIFETIME.start().as_secs(),
        BELIEVABLE_LIFETIME.end().as_secs(),
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lifetime_from_5_seconds_to_7_days_is_believed() {
        for seconds in [5, 60, 604_800] {
            assert_eq!(believable(Duration::from_secs(seconds)), Ok(Duration::from_secs(seconds)));
        }
        for lifetime in
            [Duration::ZERO, Duration::from_millis(4999), Duration::from_secs(604_801), Duration::MAX]
        {
            assert_eq!(believable(lifetime).unwrap_err().word(), "unusable", "{lifetime:?}");
        }
    }

    #[test]
    fn a_token_that_no_header_carries_is_refused_without_being_shown() {
        for (token, why) in [
            (None, "there is no access token in it"),
            (Some(""), "the token is empty"),
            (Some("s3cret\r\nX-Admin: 1"), "the token has characters that don't belong in an HTTP header"),
        ] {
            let error = access_token(token.map(SecretString::from)).unwrap_err();
            assert_eq!(error, unusable(why));
        }
    }
}
