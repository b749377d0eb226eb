//! What may not be seen.
//!
//! A secret lives in a [`SecretString`] from the file it was read from to the HMAC and the request body: its
//! `Debug` shows nothing and its memory is overwritten when it is freed. Who takes it out with
//! [`ExposeSecret::expose_secret`] answers for where it goes. Copies that libraries make on the way (HTTP and
//! JSON buffers) are overwritten by the process's allocator, see `main.rs`.

pub use secrecy::{ExposeSecret, SecretString};
