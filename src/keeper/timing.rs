//! When to renew, how long to try, how long to pause. Everything is a fraction of the *granted* lifetime: a fixed margin
//! melts down when a token lives 60 s.

use std::time::Duration;

use crate::{clock::BootInstant, issuer::IssueError, token::Grant};

/// Settings of the keeper, from the configuration.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct TokenSettings {
    /// After which fraction of its granted lifetime a token is renewed.
    pub refresh_at: f64,
    /// The validity under which a token is handed to nobody; never more than a quarter of the granted lifetime.
    pub min_validity: Duration,
    /// The longest that a call to the upstream may take.
    pub request_timeout: Duration,
}

/// More validity is asked for than any token can have for long enough to be handed over.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "min_validity is more than {longest:?}, which is 0.9 of the lifetime that the upstream grants; ask for less"
)]
pub struct TooLong {
    /// The most that can be asked for now.
    pub longest: Duration,
}

impl TooLong {
    /// The most of its granted lifetime that can be asked of a token, so that there is time to hand it over.
    const SHARE: f64 = 0.9;

    /// Whether tokens of this lifetime can have this validity when they are handed over. As long as none was granted,
    /// nobody knows.
    pub fn check(min_validity: Duration, last_lifetime: Option<Duration>) -> Result<(), Self> {
        match last_lifetime.map(|lifetime| lifetime.mul_f64(Self::SHARE)) {
            Some(longest) if min_validity > longest => Err(Self { longest }),
            _ => Ok(()),
        }
    }
}

/// Renewals are spread by this fraction of their distance to either side, so that brokers started together part.
const SPREAD: f64 = 0.02;

/// Of what lies between now and the floor, a try may use this much, so that a hanging one leaves time for another.
const SHARE_OF_A_TRY: u32 = 2;
const SHORTEST_TRY: Duration = Duration::from_secs(1);
const TRY_WITHOUT_TOKEN: Duration = Duration::from_secs(4);

const BACKOFF_BASE: Duration = Duration::from_millis(250);
const BACKOFF_CAP_WITH_TOKEN: Duration = Duration::from_secs(2);
const BACKOFF_CAP_WITHOUT: Duration = Duration::from_secs(5);

/// Wrong credentials and a forbidden address are mended by people, so they are asked about in people's time.
const REFUSAL_BASE: Duration = Duration::from_secs(30);
const REFUSAL_CAP: Duration = Duration::from_secs(5 * 60);
const REFUSAL_SHORTEST: Duration = Duration::from_secs(10);

/// What a `Retry-After` is believed to be, and what is assumed without one.
const RETRY_AFTER: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(120);
const RETRY_AFTER_UNSAID: Duration = Duration::from_secs(6);

impl TokenSettings {
    /// The validity under which a token of this lifetime is handed to nobody.
    pub fn floor(&self, lifetime: Duration) -> Duration {
        self.min_validity.min(lifetime / 4)
    }

    /// When to renew what was just granted.
    pub(super) fn renewal(&self, grant: &Grant, rng: &mut fastrand::Rng) -> BootInstant {
        let spread = 1.0 + SPREAD * (rng.f64() * 2.0 - 1.0);
        let planned = grant.lifetime.mul_f64(self.refresh_at * spread);
        // However late `refresh_at` is, a tenth of the time to the floor is left for trying.
        let latest = grant.lifetime.saturating_sub(self.floor(grant.lifetime)).mul_f64(0.9);
        grant.asked_at + planned.min(latest)
    }

    /// How long a try may last. `left` is what remains of the token in hand until the floor; `None` without one.
    pub(super) fn patience(&self, left: Option<Duration>) -> Duration {
        let patience = match left {
            Some(left) => (left / SHARE_OF_A_TRY).max(SHORTEST_TRY),
            None => TRY_WITHOUT_TOKEN,
        };
        patience.min(self.request_timeout)
    }
}

/// How long to pause after the `failures`th failure in a row.
pub(super) fn pause(error: &IssueError, failures: u32, has_token: bool, rng: &mut fastrand::Rng) -> Duration {
    match error {
        IssueError::Throttled { retry_after } => {
            let asked = retry_after.unwrap_or(RETRY_AFTER_UNSAID);
            asked.clamp(*RETRY_AFTER.start(), *RETRY_AFTER.end()) + up_to(BACKOFF_BASE, rng)
        }
        IssueError::CredentialsRejected { .. } | IssueError::Forbidden { .. } => {
            up_to(grown(REFUSAL_BASE, REFUSAL_CAP, failures), rng).max(REFUSAL_SHORTEST)
        }
        _ => {
            let cap = if has_token { BACKOFF_CAP_WITH_TOKEN } else { BACKOFF_CAP_WITHOUT };
            up_to(grown(BACKOFF_BASE, cap, failures), rng)
        }
    }
}

fn grown(base: Duration, cap: Duration, failures: u32) -> Duration {
    base.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(cap)
}

/// Full jitter: anything up to `most`, so that brokers that failed together don't come back together.
fn up_to(most: Duration, rng: &mut fastrand::Rng) -> Duration {
    most.mul_f64(rng.f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: TokenSettings = TokenSettings {
        refresh_at: 0.67,
        min_validity: Duration::from_secs(10),
        request_timeout: Duration::from_secs(10),
    };

    fn secs(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    #[test]
    fn the_floor_is_never_more_than_a_quarter_of_the_lifetime() {
        assert_eq!(SETTINGS.floor(secs(3600)), secs(10));
        assert_eq!(SETTINGS.floor(secs(60)), secs(10));
        assert_eq!(SETTINGS.floor(secs(20)), secs(5));
    }

    #[test]
    fn a_try_takes_half_of_what_is_left_and_never_less_than_a_second() {
        assert_eq!(SETTINGS.patience(Some(secs(10))), secs(5));
        assert_eq!(SETTINGS.patience(Some(secs(1))), secs(1));
        assert_eq!(SETTINGS.patience(Some(secs(3600))), secs(10));
        assert_eq!(SETTINGS.patience(None), secs(4));
        let hurried = TokenSettings { request_timeout: secs(2), ..SETTINGS };
        assert_eq!(hurried.patience(None), secs(2));
    }

    #[test]
    fn pauses_grow_to_their_cap_and_are_spread_from_zero_on() {
        let mut rng = fastrand::Rng::with_seed(1);
        let failed = IssueError::AnswerLost { detail: String::new() };
        let mut longest = |has_token, failures| {
            (0..2000).map(|_| pause(&failed, failures, has_token, &mut rng)).max().unwrap()
        };
        assert!(longest(true, 1) <= Duration::from_millis(250));
        assert!((secs(1)..=secs(2)).contains(&longest(true, 30)));
        assert!((secs(4)..=secs(5)).contains(&longest(false, 1000)));
        let shortest = (0..2000).map(|_| pause(&failed, 9, false, &mut rng)).min().unwrap();
        assert!(shortest < Duration::from_millis(50));
    }

    #[test]
    fn wrong_credentials_are_not_tried_in_a_loop() {
        let mut rng = fastrand::Rng::with_seed(1);
        let refused = IssueError::CredentialsRejected { detail: String::new() };
        for failures in 1..50 {
            let pause = pause(&refused, failures, true, &mut rng);
            assert!((REFUSAL_SHORTEST..=REFUSAL_CAP).contains(&pause), "{pause:?}");
        }
    }

    #[test]
    fn retry_after_is_obeyed_within_reason() {
        let mut rng = fastrand::Rng::with_seed(1);
        let mut pause = |after: Option<u64>| {
            pause(&IssueError::Throttled { retry_after: after.map(secs) }, 1, true, &mut rng).as_secs()
        };
        assert_eq!([pause(Some(37)), pause(Some(0)), pause(Some(1_000_000)), pause(None)], [37, 1, 120, 6]);
    }
}
