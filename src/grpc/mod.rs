//! The broker over gRPC: the only place that knows tonic and prost.
//!
//! A request passes, in this order: the [`listener`], which bounds what a connection may take and knows who is at its
//! other end; `guard`, which lets through only what policy allows that peer; tonic's routes; a service, which does
//! nothing but parse, ask the [`Broker`], convert; and on the way back `guard` again, which gives
//! errors that tonic made the details that ours have.

pub mod client;
mod codec;
mod connection;
mod convert;
mod deadline;
mod errors;
mod guard;
mod health;
pub mod listener;
#[cfg(test)]
mod lockdown_tests;
mod methods;
mod open_call;
mod peer;
pub mod proto;
mod request_body;
mod services;
#[cfg(test)]
mod test_broker;
pub mod tls;

use std::sync::Arc;

pub use errors::{ErrorReason, reason_of};
use guard::Guard;
pub use health::{follow_readiness, health};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
pub use tonic_health::server::HealthReporter;

use crate::broker::{Broker, Reload, SMALL_MESSAGE};

/// Descriptions of all services, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// Everything that is served, behind its guard.
pub type Service = Guard<Routes>;

/// The services could not be described to reflection clients. A mistake of the build, not of the operator.
#[derive(Debug, thiserror::Error)]
#[error("the descriptions of the services can't be read: {0}")]
pub struct BadDescriptors(#[from] tonic_reflection::server::Error);

/// Makes the services. `reload` reads everything again; `health` tells how they are; `drain` ends their streams.
pub fn service(
    broker: Arc<Broker>,
    reload: Arc<dyn Reload>,
    ports: Vec<Arc<tls::TlsMaterial>>,
    max_message_bytes: usize,
    health: HealthReporter,
    drain: CancellationToken,
) -> Result<Service, BadDescriptors> {
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let tokens = proto::token_broker_service_server::TokenBrokerServiceServer::new(services::Tokens::new(
        Arc::clone(&broker),
    ));
    let admin = proto::broker_admin_service_server::BrokerAdminServiceServer::new(services::Admin::new(
        Arc::clone(&broker),
        reload,
        ports,
    ));
    let health = tonic_health::server::HealthService::from_health_reporter(health);
    // Names are all that these are asked for. And for what comes on reflection's streams the guard makes no room.
    let small = max_message_bytes.min(SMALL_MESSAGE);
    let routes = Routes::new(tokens.max_decoding_message_size(max_message_bytes))
        .add_service(admin.max_decoding_message_size(small))
        .add_service(
            tonic_health::pb::health_server::HealthServer::new(health).max_decoding_message_size(small),
        )
        .add_service(reflection().build_v1()?.max_decoding_message_size(small))
        .add_service(reflection().build_v1alpha()?.max_decoding_message_size(small))
        .prepare();
    Ok(Guard::new(routes, broker, drain, max_message_bytes))
}
