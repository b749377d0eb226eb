//! What `verify` promises: the rulings one by one, the published vectors, and what holds for any input.

mod properties;
mod rulings;
pub(in crate::sign) mod support;
mod vectors;
