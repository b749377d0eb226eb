//! Health, in the words of `grpc.health.v1`: what a client may count on now. Nothing is said to serve before somebody has
//! looked, nor once the broker stops.

use std::{sync::Arc, time::Duration};

use futures_util::FutureExt;
use tokio_util::sync::CancellationToken;
use tonic_health::{ServingStatus, server::HealthReporter};

use crate::{
    broker::Broker,
    clock::{Clock, sleep_until},
};

/// Serves while tokens can be handed out.
const TOKENS: &str = "b2binpay.broker.v1.TokenBrokerService";
/// A name of its own: verifying signs needs no token.
const SIGNS: &str = "b2binpay.broker.v1.TokenBrokerService/VerifySign";
const ADMIN: &str = "b2binpay.broker.v1.BrokerAdminService";
/// The whole.
const ALL: &str = "";

/// A reporter for [`follow_readiness`], by which nothing serves yet.
pub fn health() -> HealthReporter {
    // The library's own beginning is that the whole serves.
    let reporter = HealthReporter::new();
    // It waits for nobody: nobody else has the reporter yet.
    let _ = all_stopped(&reporter).now_or_never();
    reporter
}

async fn all_stopped(health: &HealthReporter) {
    for name in [ALL, TOKENS, SIGNS, ADMIN] {
        health.set_service_status(name, ServingStatus::NotServing).await;
    }
}

/// Keeps `health` at what the broker can do, until `drain` is cancelled. It looks by itself when the token in hand ends,
/// and does not rely on being told.
pub async fn follow_readiness(
    broker: Arc<Broker>,
    health: HealthReporter,
    clock: Arc<dyn Clock>,
    drain: CancellationToken,
) {
    let _ = drain.run_until_cancelled(follow(broker, &health, clock)).await;
    all_stopped(&health).await;
}

async fn follow(broker: Arc<Broker>, health: &HealthReporter, clock: Arc<dyn Clock>) {
    health.set_service_status(SIGNS, ServingStatus::Serving).await;
    health.set_service_status(ADMIN, ServingStatus::Serving).await;
    let mut changes = broker.changes();
    loop {
        changes.mark_unchanged();
        let (ready, until) = broker.readiness();
        let status = if ready { ServingStatus::Serving } else { ServingStatus::NotServing };
        health.set_service_status(TOKENS, status).await;
        health.set_service_status(ALL, status).await;
        let lapse = async {
            match until {
                Some(until) => sleep_until(&*clock, until + Duration::from_nanos(1)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            told = changes.changed() => if told.is_err() { return },
            () = lapse => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use tonic::{Code, Request};
    use tonic_health::{
        pb::{HealthCheckRequest, health_check_response::ServingStatus as Answer, health_server::Health},
        server::HealthService,
    };

    use super::{super::test_broker::broker, *};
    use crate::clock::SystemClock;

    async fn said_of(name: &str, health: &HealthReporter) -> Result<Answer, Code> {
        let service = HealthService::from_health_reporter(health.clone());
        let asked = Request::new(HealthCheckRequest { service: name.into() });
        service.check(asked).await.map(|answer| answer.into_inner().status()).map_err(|status| status.code())
    }

    #[tokio::test]
    async fn nothing_serves_before_somebody_has_looked() {
        let health = health();
        for name in [ALL, TOKENS, SIGNS, ADMIN] {
            assert_eq!(said_of(name, &health).await, Ok(Answer::NotServing), "{name:?}");
        }
        assert_eq!(said_of("somebody.Else", &health).await, Err(Code::NotFound));
    }

    #[tokio::test]
    async fn without_a_token_signs_are_verified_all_the_same_until_the_broker_stops() {
        let health = health();
        let drain = CancellationToken::new();
        let following = follow_readiness(broker(), health.clone(), Arc::new(SystemClock), drain.clone());
        let following = tokio::spawn(following);
        while said_of(SIGNS, &health).await != Ok(Answer::Serving) {
            tokio::task::yield_now().await;
        }
        assert_eq!(said_of(TOKENS, &health).await, Ok(Answer::NotServing));
        drain.cancel();
        following.await.unwrap();
        for name in [ALL, TOKENS, SIGNS, ADMIN] {
            assert_eq!(said_of(name, &health).await, Ok(Answer::NotServing), "{name:?}");
        }
    }
}
