//! Mutual TLS: the certificates on both sides, and how they change while connections go on.
//!
//! It promises:
//!
//! - that a peer has the one name that its certificate gives it, that the certificate was signed by one of the configured
//!   authorities, is in its time and not revoked, when it connects, whenever what is believed changes, and at the
//!   certificate's end (`Trust`). A resumed session would skip the first of these, so there are none;
//! - that files which change are read again by themselves ([`follow`]), all of a listener's at once or none, and that
//!   connections go on over it, unless their certificates are no longer believed;
//! - that the dates of all certificates are known ([`CertificateFacts`]), and that one that ends is told in time.
//!
//! It does not ask anybody whether a certificate was revoked: the lists of that are files.

mod facts;
mod files;
mod follow;
mod lists;
mod material;
mod names;
mod reasons;
mod revocation;
#[cfg(test)]
mod tests;
mod trust;

pub use facts::{CertificateFacts, CertificateRole, CertificateState};
pub use files::{FileFault, TlsProblem};
pub use follow::follow;
pub use material::{Prepared, Replaced, TlsMaterial};
pub(super) use names::certified_name;
pub(super) use reasons::{Reason, in_words};
pub(super) use trust::Trust;
