//! The messages and services of `proto/b2binpay/broker/v1`, as generated.
#![allow(
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    reason = "generated code"
)]

tonic::include_proto!("b2binpay.broker.v1");
