//! Health, in the words of `grpc.health.v1`.

use std::sync::Arc;

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

/// Keeps `health` at what the broker can do. It looks by itself when the token in hand ends, and does not rely on being
/// told.
pub async fn follow_readiness(broker: Arc<Broker>, health: HealthReporter, clock: Arc<dyn Clock>) {
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
                Some(until) => sleep_until(&*clock, until + std::time::Duration::from_nanos(1)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            told = changes.changed() => if told.is_err() { return },
            () = lapse => {}
        }
    }
}
