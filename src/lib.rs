//! A token broker for B2BINPAY: one daemon holds one credential set, keeps its access token fresh inside the
//! upstream's call limit, hands it over gRPC to the services that policy allows, and verifies what B2BINPAY
//! signs with the set.
//!
//! The modules form rings, and each names only those before it (`tests/layering.rs` holds them to it):
//!
//! 1. words: [`secret`], [`clock`], [`credentials`], [`token`], [`caller`], [`lockdown`], [`security`]
//! 2. domain: [`issuer`], [`budget`], [`keeper`], [`policy`], [`sign`], [`audit`], [`broker`]
//! 3. adapters: [`upstream`], [`state`], [`trail`], [`grpc`]
//!
//! 4. [`app`], which puts them together, and [`cli`], which people see
//!
//! Beside them stand [`config`], which turns settings into checked values, and what any process needs: [`telemetry`],
//! [`hardening`].

pub mod app;
pub mod audit;
pub mod broker;
pub mod budget;
pub mod caller;
pub mod cli;
pub mod clock;
pub mod config;
pub mod credentials;
pub mod grpc;
pub mod hardening;
pub mod issuer;
pub mod keeper;
pub mod lockdown;
pub mod policy;
pub mod secret;
pub mod security;
pub mod service_manager;
pub mod sign;
pub mod state;
pub mod telemetry;
pub mod token;
pub mod trail;
pub mod upstream;
