//! A token broker for B2BINPAY: one daemon holds one credential set, keeps its access token fresh inside the
//! upstream's call limit, hands it over gRPC to the services that policy allows, and verifies what B2BINPAY
//! signs with the set.
//!
//! The modules form rings, and each names only those before it (`tests/layering.rs` holds them to it):
//!
//! 1. words: [`secret`], [`clock`], [`credentials`], [`token`]
//! 2. domain: [`issuer`], [`sign`]
//! 3. adapters: [`upstream`]

pub mod clock;
pub mod credentials;
pub mod issuer;
pub mod secret;
pub mod sign;
pub mod token;
pub mod upstream;
