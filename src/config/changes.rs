//! What differs between two configurations, by the names of the keys.

use std::{net::SocketAddr, path::Path};

use super::{Config, Listen};

/// A key of [`super::keys::AT_START`], and whether it differs.
type Comparison = (&'static str, fn(&Config, &Config) -> bool);

const COMPARISONS: [Comparison; 18] = [
    ("state.directory", |a, b| a.state_directory != b.state_directory),
    ("listen.unix", |a, b| !a.listen.iter().map(path).eq(b.listen.iter().map(path))),
    ("listen.mode", |a, b| !a.listen.iter().map(mode).eq(b.listen.iter().map(mode))),
    ("listen.tcp", |a, b| !a.listen.iter().map(address).eq(b.listen.iter().map(address))),
    ("listen.systemd", |a, b| !a.listen.iter().map(name).eq(b.listen.iter().map(name))),
    ("log.format", |a, b| a.log.format != b.log.format),
    ("log.level", |a, b| a.log.level != b.log.level),
    ("limits.max_streams_per_connection", |a, b| {
        a.limits.max_streams_per_connection != b.limits.max_streams_per_connection
    }),
    ("limits.max_header_bytes", |a, b| a.limits.max_header_bytes != b.limits.max_header_bytes),
    ("limits.max_message_bytes", |a, b| a.limits.max_message_bytes != b.limits.max_message_bytes),
    ("limits.first_byte_timeout", |a, b| a.limits.first_byte_timeout != b.limits.first_byte_timeout),
    ("limits.handshake_timeout", |a, b| a.limits.handshake_timeout != b.limits.handshake_timeout),
    ("limits.max_handshakes", |a, b| a.limits.max_handshakes != b.limits.max_handshakes),
    ("limits.keepalive_interval", |a, b| a.limits.keepalive_interval != b.limits.keepalive_interval),
    ("limits.keepalive_timeout", |a, b| a.limits.keepalive_timeout != b.limits.keepalive_timeout),
    ("limits.max_connection_age", |a, b| a.limits.max_connection_age != b.limits.max_connection_age),
    ("limits.drain_deadline", |a, b| a.limits.drain_deadline != b.limits.drain_deadline),
    ("audit.file", |a, b| a.audit_file != b.audit_file),
];

fn path(listen: &Listen) -> Option<&Path> {
    match listen {
        Listen::Unix { path, .. } => Some(path),
        Listen::Tcp { .. } | Listen::Systemd { .. } => None,
    }
}

fn mode(listen: &Listen) -> Option<u32> {
    match listen {
        Listen::Unix { mode, .. } => Some(*mode),
        Listen::Tcp { .. } | Listen::Systemd { .. } => None,
    }
}

fn address(listen: &Listen) -> Option<SocketAddr> {
    match listen {
        Listen::Tcp { address, .. } => Some(*address),
        Listen::Unix { .. } | Listen::Systemd { .. } => None,
    }
}

/// And whether it speaks TLS: a port that does is another than one that doesn't.
fn name(listen: &Listen) -> Option<(&str, bool)> {
    match listen {
        Listen::Systemd { name, tls } => Some((name, tls.is_some())),
        Listen::Unix { .. } | Listen::Tcp { .. } => None,
    }
}

impl Config {
    /// The keys that `other` has another value for and that only a restart can take over.
    pub fn needs_restart_for(&self, other: &Self) -> Vec<&'static str> {
        COMPARISONS.iter().filter(|(_, differs)| differs(self, other)).map(|(key, _)| *key).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{KEYS, Unset, keys::AT_START};

    /// Another value than the key's default that is right, too.
    fn another(path: &str) -> &'static str {
        match path {
            "state.directory" => "\"/var/lib/other\"",
            "listen.unix" => "\"/run/other.sock\"",
            "listen.mode" => "\"0600\"",
            "listen.tcp" => "\"127.0.0.1:7443\"",
            "listen.systemd" => "\"other\"",
            "log.format" => "\"text\"",
            "log.level" => "\"debug\"",
            "audit.file" => "\"/var/log/other.jsonl\"",
            "limits.max_header_bytes" => "\"32KiB\"",
            "limits.max_message_bytes" => "\"512KiB\"",
            "limits.max_streams_per_connection" | "limits.max_handshakes" => "77",
            _ => "\"17s\"",
        }
    }

    fn with(path: &str, value: &str) -> Config {
        let (section, name) = path.rsplit_once('.').unwrap();
        let brackets = crate::config::section::brackets(section);
        let text = format!(
            "[upstream]\napi = \"v2\"\nenvironment = \"sandbox\"\n[credentials]\nkey_file = \"k\"\nsecret_file = \"s\"\n\
             {brackets}\n{name} = {value}\n{}",
            // A listener is somewhere.
            match path {
                "listen.mode" => "unix = \"/run/b2binpay-broker/broker.sock\"",
                "listen.tcp" => "cert = \"a\"\nkey = \"b\"\nclient_ca = \"c\"",
                _ => "",
            }
        );
        Config::parse(&text, Path::new("/etc/b/config.toml")).unwrap()
    }

    #[test]
    fn each_key_that_counts_from_the_start_is_named_when_it_differs_and_alone() {
        for path in AT_START {
            let key = KEYS.iter().find(|key| key.path == path).unwrap();
            let before = with(path, key.unset.example());
            assert!(matches!(key.unset, Unset::Is(_) | Unset::Nothing(_)), "{path}");
            assert_eq!(before.needs_restart_for(&with(path, another(path))), [path]);
            assert_eq!(before.needs_restart_for(&before.clone()), [""; 0]);
        }
    }

    #[test]
    fn the_reference_and_the_comparison_name_the_same_keys() {
        assert_eq!(COMPARISONS.map(|(key, _)| key), AT_START);
    }
}
