//! `[limits]`: what the broker takes from a connection. And paths that are absolute.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    keys::Unset,
    section::{Section, Value, own_keys},
};

/// What is taken from connections. The defaults and ranges, and the reasons for them, are in [`super::KEYS`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Connections of callers served at once. 1024 unless configured.
    pub max_connections: usize,
    /// Connections of one caller served at once. 256 unless configured: a quarter of all.
    pub max_connections_per_caller: usize,
    /// Open calls of one caller, over all its connections. 1024 unless configured.
    pub max_calls_per_caller: usize,
    /// Open calls on one connection. 128 unless configured.
    pub max_streams_per_connection: u32,
    /// Bytes of all headers of a call. 16 KiB unless configured.
    pub max_header_bytes: u32,
    /// Bytes of a request. 320 KiB unless configured: the largest callback, and room around it.
    pub max_message_bytes: usize,
    /// How long a new connection may stay silent. 5 s unless configured.
    pub first_byte_timeout: Duration,
    /// How long a TLS handshake may take. 5 s unless configured.
    pub handshake_timeout: Duration,
    /// TLS handshakes under way at once, on each listener. 256 unless configured; beyond, one of the
    /// busiest address gives way.
    pub max_handshakes: usize,
    /// How often a client is asked whether it is there. 30 s unless configured.
    pub keepalive_interval: Duration,
    /// How long it may take to answer that. 10 s unless configured.
    pub keepalive_timeout: Duration,
    /// When a connection is asked to end. Never unless configured.
    pub max_connection_age: Option<Duration>,
    /// How long calls may go on after the broker was told to stop. 10 s unless configured: about as long as a call
    /// without a deadline waits for a token.
    pub drain_deadline: Duration,
}

impl Limits {
    pub(super) fn read(section: &Section<'_>) -> Self {
        // The table's ranges are narrower than any of these types.
        let small = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        let large = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        Self {
            max_connections: large(section.number("max_connections")),
            max_connections_per_caller: large(section.number("max_connections_per_caller")),
            max_calls_per_caller: large(section.number("max_calls_per_caller")),
            max_streams_per_connection: small(section.number("max_streams_per_connection")),
            max_header_bytes: small(section.size("max_header_bytes")),
            max_message_bytes: large(section.size("max_message_bytes")),
            first_byte_timeout: section.duration("first_byte_timeout"),
            handshake_timeout: section.duration("handshake_timeout"),
            max_handshakes: large(section.number("max_handshakes")),
            keepalive_interval: section.duration("keepalive_interval"),
            keepalive_timeout: section.duration("keepalive_timeout"),
            max_connection_age: section.optional_duration("max_connection_age"),
            drain_deadline: section.duration("drain_deadline"),
        }
    }
}

/// An absolute path: a daemon's working directory is nobody's promise.
pub(super) fn absolute(text: &str, value: &Value<'_>) -> Option<PathBuf> {
    let path = Path::new(text);
    if path.is_absolute() && !text.contains('\0') {
        Some(path.to_owned())
    } else {
        value.wrong(format!("must be an absolute path, such as {}", value.key.unset.example()));
        None
    }
}

/// The path that holds where this key isn't written.
pub(super) fn default_path(section: &str, name: &str) -> PathBuf {
    match own_keys(section).find(|key| key.split().1 == name).map(|key| key.unset) {
        Some(Unset::Is(text)) => text.trim_matches('"').into(),
        _ => unreachable!("the table of keys has no default for {section}.{name}"),
    }
}
