//! Every key there is: the one table that the reader checks values against, that suggests what was meant, and that
//! `docs/configuration.md` is made from. What it says is what holds.

/// A key of the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Where it stands: sections and name, with dots between.
    pub path: &'static str,
    /// What its value looks like.
    pub kind: Kind,
    /// What holds where it isn't written.
    pub unset: Unset,
    /// What it does, and why its default and its range are what they are.
    pub description: &'static str,
}

/// What a value looks like, and which values are accepted.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// One of these words.
    Choice(&'static [&'static str]),
    /// Text of this sort.
    Text(&'static str),
    /// Several words of this sort.
    Words(&'static str),
    /// A duration, see [`super::parse_duration`].
    Duration(Range<&'static str>),
    /// A whole number.
    Number(Range<u64>),
    /// A number of bytes.
    Size(Range<u64>),
    /// A number that need not be whole.
    Fraction(Range<f64>),
    /// A point in time with an offset.
    Instant,
}

/// The values that are accepted, ends included, and the reason for the ends, fit to follow a colon.
#[derive(Clone, Copy, Debug)]
pub struct Range<T> {
    /// The least.
    pub from: T,
    /// The most.
    pub to: T,
    /// Why no less and no more.
    pub why: &'static str,
}

/// What holds where a key isn't written. Values are as one would write them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unset {
    /// It must be written where its section is. This is an example.
    Refused(&'static str),
    /// Nothing. This is an example.
    Nothing(&'static str),
    /// This value.
    Is(&'static str),
}

impl Unset {
    /// A value that can be written.
    pub const fn example(self) -> &'static str {
        match self {
            Self::Refused(example) | Self::Nothing(example) | Self::Is(example) => example,
        }
    }
}

impl Key {
    /// The section that it stands in, and its own name.
    pub fn split(&self) -> (&'static str, &'static str) {
        self.path.rsplit_once('.').unwrap_or(("", self.path))
    }
}

/// The sections that may stand more than once, in double brackets.
pub(super) const LISTS: [&str; 2] = ["listen", "caller"];

/// Keys and sections that are designed but not built. They are no typing mistakes, and who writes one must learn that
/// it would have no effect. Whoever builds one takes its line out.
pub(super) const LATER: [&str; 2] = ["http", "ha"];

/// Keys whose value counts from the start to the end of the process: a reload with another one is refused. All others are taken
/// over by a reload.
pub(super) const AT_START: [&str; 18] = [
    "state.directory",
    "listen.unix",
    "listen.mode",
    "listen.tcp",
    "listen.systemd",
    "log.format",
    "log.level",
    "limits.max_streams_per_connection",
    "limits.max_header_bytes",
    "limits.max_message_bytes",
    "limits.first_byte_timeout",
    "limits.handshake_timeout",
    "limits.max_handshakes",
    "limits.keepalive_interval",
    "limits.keepalive_timeout",
    "limits.max_connection_age",
    "limits.drain_deadline",
    "audit.file",
];

const fn within<T>(from: T, to: T, why: &'static str) -> Range<T> {
    Range { from, to, why }
}

const FILE: Kind = Kind::Text("the name of a file");
const PATH: Kind = Kind::Text("an absolute path");

/// Every key, in the order of the reference.
pub const KEYS: &[Key] = &[
    Key {
        path: "upstream.api",
        kind: Kind::Choice(&["v2", "v3"]),
        unset: Unset::Refused("\"v3\""),
        description: "The generation of B2BINPAY's API that the credentials are for. v3 is what production accounts use.",
    },
    Key {
        path: "upstream.environment",
        kind: Kind::Choice(&["production", "sandbox"]),
        unset: Unset::Nothing("\"production\""),
        description: "Which of B2BINPAY's own servers to use. Exactly one of `environment` and `base_url` is written.",
    },
    Key {
        path: "upstream.base_url",
        kind: Kind::Text("a URL"),
        unset: Unset::Nothing("\"https://v3.api.coinsbuy.com\""),
        description: "Another server with the same API. It begins with `https://`; `http://` only for a loopback address, because the credentials travel to it.",
    },
    Key {
        path: "upstream.ca_file",
        kind: FILE,
        unset: Unset::Nothing("\"upstream-ca.pem\""),
        description: "PEM certificates of the authorities that the upstream's certificate is checked against, in place of the system's. A relative name is looked up beside the configuration file.",
    },
    Key {
        path: "upstream.proxy",
        kind: Kind::Text("a URL"),
        unset: Unset::Nothing("\"http://proxy.internal:3128\""),
        description: "An HTTP proxy to reach the upstream through. The proxy variables of the environment are not read: whoever can set one of those could read along.",
    },
    Key {
        path: "upstream.connect_timeout",
        kind: Kind::Duration(within(
            "100ms",
            "10s",
            "a shorter one fails on healthy networks, and a connection counts into request_timeout, which is 10s at most",
        )),
        unset: Unset::Is("\"3s\""),
        description: "How long a connection to the upstream may take, TLS included. The default leaves room for one lost packet and its repetition. At most `request_timeout`, to which the default gives way.",
    },
    Key {
        path: "upstream.request_timeout",
        kind: Kind::Duration(within(
            "1s",
            "10s",
            "a call that is given up here may still arrive at the upstream that much later, and the budget holds one call in reserve for that, no more",
        )),
        unset: Unset::Is("\"10s\""),
        description: "How long a call to the upstream may take as a whole. With 15 calls in 60s, the budget spends a burst of 4 and then one each 6s, which is 14 in any 60s: the fifteenth is the reserve for a late arrival.",
    },
    Key {
        path: "upstream.budget.requests",
        kind: Kind::Number(within(
            3,
            1000,
            "with fewer than 3 nothing is left for a burst, a steady rate and the reserve; the record of call times is made for 1000 at most",
        )),
        unset: Unset::Is("15"),
        description: "How many calls to the upstream may be made in any `window`. The default is B2BINPAY's own limit for each client address; make it less where other programs share this host's address.",
    },
    Key {
        path: "upstream.budget.window",
        kind: Kind::Duration(within(
            "1s",
            "1h",
            "a window below a second is shorter than a call, and when the budget is spent a broker may have to wait for a whole window",
        )),
        unset: Unset::Is("\"60s\""),
        description: "The time in which `requests` calls may be made. The default is B2BINPAY's own.",
    },
    Key {
        path: "credentials.key_file",
        kind: FILE,
        unset: Unset::Refused("\"api-key\""),
        description: "The file that holds the API key (v2: login, v3: client id).",
    },
    Key {
        path: "credentials.secret_file",
        kind: FILE,
        unset: Unset::Refused("\"api-secret\""),
        description: "The file that holds the API secret (v2: password, v3: client secret).",
    },
    Key {
        path: "credentials.callback_secret_file",
        kind: FILE,
        unset: Unset::Nothing("\"callback-secret\""),
        description: "The file that holds the callback secret. v3 only: v2 signs with the API key and secret. Without it VerifySign answers `NO_CALLBACK_SECRET`.",
    },
    Key {
        path: "credentials.previous.api",
        kind: Kind::Choice(&["v2", "v3"]),
        unset: Unset::Refused("\"v2\""),
        description: "The API that the previous credentials were for.",
    },
    Key {
        path: "credentials.previous.key_file",
        kind: FILE,
        unset: Unset::Refused("\"old-key\""),
        description: "The file that holds the previous API key.",
    },
    Key {
        path: "credentials.previous.secret_file",
        kind: FILE,
        unset: Unset::Refused("\"old-secret\""),
        description: "The file that holds the previous API secret.",
    },
    Key {
        path: "credentials.previous.callback_secret_file",
        kind: FILE,
        unset: Unset::Nothing("\"old-callback-secret\""),
        description: "The file that holds the previous callback secret. Required where the previous API is v3, refused where it is v2.",
    },
    Key {
        path: "credentials.previous.until",
        kind: Kind::Instant,
        unset: Unset::Refused("2026-12-01T00:00:00Z"),
        description: "When the previous credentials are forgotten. It has no default, because keys that nobody ends stay for ever.",
    },
    Key {
        path: "token.refresh_at",
        kind: Kind::Fraction(within(
            0.1,
            0.9,
            "sooner spends the budget on tokens that are still young, later leaves no time to try again",
        )),
        unset: Unset::Is("0.67"),
        description: "The part of each token's granted lifetime after which it is renewed. The default leaves a third for failures; it is a fraction because a fixed margin would be longer than the life of a short token.",
    },
    Key {
        path: "token.min_validity",
        kind: Kind::Duration(within(
            "1s",
            "5m",
            "less is over before a caller has used the token, more than a few minutes is what callers ask for themselves",
        )),
        unset: Unset::Is("\"10s\""),
        description: "How long a token that is handed out is good for at least, though never more than a quarter of the granted lifetime. The default covers a call to the API and a slow network.",
    },
    Key {
        path: "state.directory",
        kind: PATH,
        unset: Unset::Is("\"/var/lib/b2binpay-broker\""),
        description: "Where the times of calls to each upstream are kept, so that a restart doesn't overspend. All instances of a host share it. Never a token or a secret is written there.",
    },
    Key {
        path: "listen.unix",
        kind: PATH,
        unset: Unset::Is("\"/run/b2binpay-broker/broker.sock\""),
        description: "A Unix socket to serve on. Without any `[[listen]]` it is the default alone, which is also where the commands look for the broker.",
    },
    Key {
        path: "listen.mode",
        kind: Kind::Text("an octal file mode"),
        unset: Unset::Is("\"0666\""),
        description: "The socket's file mode. Everybody may connect by default, because the policy decides, by the kernel's word, and answers with a reason where a file mode could only refuse.",
    },
    Key {
        path: "listen.tcp",
        kind: Kind::Text("an IP address and a port"),
        unset: Unset::Nothing("\"0.0.0.0:7443\""),
        description: "A TCP port to serve on, in place of `unix`. Always with certificates on both sides. `[::]` is all of IPv6 and nothing of IPv4: write both where you need both.",
    },
    Key {
        path: "listen.systemd",
        kind: Kind::Text("a FileDescriptorName"),
        unset: Unset::Nothing("\"broker\""),
        description: "Sockets that the service manager opened and hands over, in place of `unix` and `tcp`: those whose `.socket` unit has this `FileDescriptorName=`. Callers queue there while the broker restarts, instead of being refused. Unix sockets go without the keys below; TCP ones need them.",
    },
    Key {
        path: "listen.cert",
        kind: FILE,
        unset: Unset::Nothing("\"tls/server.pem\""),
        description: "Over TCP: the broker's certificate in PEM, and after it those between it and the authority that clients know. This and the three files below are looked up beside the configuration file, and read again by themselves when they change; where the new ones don't fit, the old ones stay in force.",
    },
    Key {
        path: "listen.key",
        kind: FILE,
        unset: Unset::Nothing("\"tls/server.key\""),
        description: "Over TCP: the certificate's private key in PEM, without a passphrase.",
    },
    Key {
        path: "listen.client_ca",
        kind: FILE,
        unset: Unset::Nothing("\"tls/clients-ca.pem\""),
        description: "Over TCP: PEM certificates of the authorities that may vouch for callers. The system's don't. They should sign certificates for this port's callers and nothing else: one that doesn't say what it is for (no extended key usage) is taken as a client's.",
    },
    Key {
        path: "listen.client_crl",
        kind: Kind::Words("names of files"),
        unset: Unset::Nothing("[\"tls/clients-crl.pem\"]"),
        description: "Over TCP: lists of revoked certificates in PEM. Where any is named, there must be one of each authority between a caller's certificate and `client_ca`, that included: who can't be looked up is refused. Of several lists that one key signed, the newest counts; an authority that was renewed under its old name needs one of each key. A list that is past its next update goes on revoking what it lists, and is told of.",
    },
    Key {
        path: "listen.min_tls",
        kind: Kind::Choice(&["1.2", "1.3"]),
        unset: Unset::Is("\"1.3\""),
        description: "Over TCP: the oldest TLS that is spoken. 1.2 is for clients that can't do better; it shows callers' certificates to whoever listens on the wire.",
    },
    Key {
        path: "caller.name",
        kind: Kind::Text("a name"),
        unset: Unset::Refused("\"payouts\""),
        description: "What the caller is called in logs, metrics and answers: 1 to 64 letters, digits, dots, dashes or underscores.",
    },
    Key {
        path: "caller.unix_user",
        kind: Kind::Text("the name or number of a user, as text"),
        unset: Unset::Nothing("\"payouts\""),
        description: "The user whose processes are this caller. Exactly one of `unix_user`, `unix_group`, `systemd_unit`, `spiffe_id` and `dns_name` is written. Names are looked up when the configuration is read.",
    },
    Key {
        path: "caller.unix_group",
        kind: Kind::Text("the name or number of a group, as text"),
        unset: Unset::Nothing("\"payouts\""),
        description: "The group whose members' processes are this caller, be it their primary group or another. A process that matches two callers is denied, and a user of this host who would be two is an error.",
    },
    Key {
        path: "caller.systemd_unit",
        kind: Kind::Text("the full name of a system service"),
        unset: Unset::Nothing("\"payouts.service\""),
        description: "The system service whose processes are this caller, whatever their user: the kernel tells the process, and its control group tells the service. Services of a user's own manager and what runs in a container's or a session's scope are none.",
    },
    Key {
        path: "caller.spiffe_id",
        kind: Kind::Text("a SPIFFE ID"),
        unset: Unset::Nothing("\"spiffe://example.org/payouts\""),
        description: "The workload that is this caller, over TCP: the one URI in the certificate that it shows.",
    },
    Key {
        path: "caller.dns_name",
        kind: Kind::Text("a DNS name"),
        unset: Unset::Nothing("\"payouts.example.org\""),
        description: "The host that is this caller, over TCP: the one DNS name in the certificate that it shows, which has no URI. Wildcards match nothing.",
    },
    Key {
        path: "caller.networks",
        kind: Kind::Words("networks"),
        unset: Unset::Nothing("[\"10.1.0.0/16\"]"),
        description: "Where the caller may connect from, for callers over TCP: addresses with the length of their prefix. Unset: from anywhere, with its certificate.",
    },
    Key {
        path: "caller.rate",
        kind: Kind::Text("a rate"),
        unset: Unset::Nothing("\"50/s\""),
        description: "How often the caller may call: so many calls for each second (`s`), minute (`m`) or hour (`h`), which may come all at once. Every call that it is allowed counts, health included; more are answered `CALLER_RATE_LIMITED`. Unset: as often as it likes.",
    },
    Key {
        path: "caller.allow",
        kind: Kind::Words("permissions"),
        unset: Unset::Refused("[\"GetAccessToken\", \"VerifySign\"]"),
        description: "What the caller may do: `GetAccessToken`, `WatchAccessToken`, `VerifySign`, `VerifySign:message`, `Health`, `Reflection`, `Admin:GetStatus`, `Admin:Reload`, `Admin:Lockdown`, `Admin:Unlock`, or `Admin` for all of `Admin:…`. Nothing else is allowed.",
    },
    Key {
        path: "audit.file",
        kind: PATH,
        unset: Unset::Nothing("\"/var/log/b2binpay-broker/audit.jsonl\""),
        description: "Where the audit log is written, one JSON object to a line ([audit.md](audit.md)). The file is made with mode 0640 in a folder that exists, and opened again when it was moved away. Unset: between the lines of the log, which the journal keeps.",
    },
    Key {
        path: "log.format",
        kind: Kind::Choice(&["json", "text"]),
        unset: Unset::Nothing("\"json\""),
        description: "How log lines look. Unset: text where stderr is a terminal, JSON elsewhere.",
    },
    Key {
        path: "log.level",
        kind: Kind::Choice(&["error", "warn", "info", "debug", "trace"]),
        unset: Unset::Is("\"info\""),
        description: "The least important lines that are written.",
    },
    Key {
        path: "limits.max_connections",
        kind: Kind::Number(within(1, 65_536, "each connection takes a file descriptor")),
        unset: Unset::Is("1024"),
        description: "How many connections of callers are served at once; more are closed at once. Processes that are no callers share a sixteenth of that, but at least 4, beside them, and callers with a permission of `Admin:…` find 16 more when all are taken. The default needs a limit of file descriptors (`LimitNOFILE=`) somewhat above 1024.",
    },
    Key {
        path: "limits.max_connections_per_caller",
        kind: Kind::Number(within(1, 65_536, "each connection takes a file descriptor")),
        unset: Unset::Is("256"),
        description: "How many connections of one caller are served at once; more are closed at once, with a line in the log and in the audit log. The default is a quarter of `max_connections`, so that one caller that opens them without end leaves most to the others.",
    },
    Key {
        path: "limits.max_calls_per_caller",
        kind: Kind::Number(within(
            1,
            1_000_000,
            "each open call takes memory, and more than that is no bound",
        )),
        unset: Unset::Is("1024"),
        description: "How many calls one caller may have open at once, over all its connections, with its watch streams and those that wait for a token; more are answered `TOO_MANY_STREAMS`. The default is far beyond what a service needs that shares one connection and one stream in each process.",
    },
    Key {
        path: "limits.max_streams_per_connection",
        kind: Kind::Number(within(
            1,
            10_000,
            "each open call takes memory, and one connection could otherwise take all",
        )),
        unset: Unset::Is("128"),
        description: "How many calls may be open on one connection, watch streams included. A client waits with more. The default is generous for one service's watchers and calls in flight, and bounds the memory that a hostile one can take.",
    },
    Key {
        path: "limits.max_header_bytes",
        kind: Kind::Size(within(
            1 << 10,
            1 << 20,
            "less refuses honest clients, and no call here needs more",
        )),
        unset: Unset::Is("\"16KiB\""),
        description: "How large the headers of a call may be together. The default is what HTTP/2 servers commonly take.",
    },
    Key {
        path: "limits.max_message_bytes",
        kind: Kind::Size(within(
            4 << 10,
            16 << 20,
            "less refuses ordinary callbacks, and no callback is verified that is larger than 256KiB",
        )),
        unset: Unset::Is("\"320KiB\""),
        description: "How large a request may be. The default is the largest callback that is verified, 256KiB, and room around it, so that a larger one is told so properly. Of requests over 8KiB that are on their way, one caller may have 32 times this at once, and all callers 128 times.",
    },
    Key {
        path: "limits.first_byte_timeout",
        kind: Kind::Duration(within(
            "100ms",
            "1m",
            "less fails on a busy machine, more lets silent connections pile up",
        )),
        unset: Unset::Is("\"5s\""),
        description: "How long a new connection may stay silent before it is closed. A client speaks at once.",
    },
    Key {
        path: "limits.handshake_timeout",
        kind: Kind::Duration(within(
            "100ms",
            "1m",
            "less fails on a busy machine or a far network, more lets silent connections pile up",
        )),
        unset: Unset::Is("\"5s\""),
        description: "How long the TLS handshake of a new connection may take before it is closed.",
    },
    Key {
        path: "limits.max_handshakes",
        kind: Kind::Number(within(
            8,
            65_536,
            "fewer would make honest clients give way to each other, and each takes a file descriptor",
        )),
        unset: Unset::Is("256"),
        description: "How many TLS handshakes may be under way at once on each listener, beside `max_connections`. Where there are more, one of the address that has most gives way, so that who never ends his keeps nobody out who comes from elsewhere.",
    },
    Key {
        path: "limits.keepalive_interval",
        kind: Kind::Duration(within("1s", "1h", "less is noise, more finds a dead client too late")),
        unset: Unset::Is("\"30s\""),
        description: "How often a client is asked whether it is still there. The default finds a dead watcher within a minute.",
    },
    Key {
        path: "limits.keepalive_timeout",
        kind: Kind::Duration(within("1s", "1m", "less fails on a paused client, more keeps the dead")),
        unset: Unset::Is("\"10s\""),
        description: "How long the answer to that may take before the connection is closed.",
    },
    Key {
        path: "limits.max_connection_age",
        kind: Kind::Duration(within("1s", "7d", "less is all reconnecting, more is as good as none")),
        unset: Unset::Nothing("\"1h\""),
        description: "When a connection is asked to end, politely, so that clients spread over the instances again. Off by default: on one host there is nothing to spread over.",
    },
    Key {
        path: "limits.drain_deadline",
        kind: Kind::Duration(within(
            "100ms",
            "5m",
            "less breaks calls off, and supervisors kill what takes longer to stop",
        )),
        unset: Unset::Is("\"10s\""),
        description: "How long calls may go on after the broker was told to stop. The last half second of it is for telling those who still wait for a token that they won't get one; so the default lets a call without a deadline wait for 9.5 of its 10s.",
    },
];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_key_stands_twice_and_none_is_both_built_and_for_later() {
        let mut seen = HashSet::new();
        for path in KEYS.iter().map(|key| key.path).chain(LATER) {
            assert!(seen.insert(path), "{path}");
        }
    }

    #[test]
    fn the_description_of_permissions_names_them_all() {
        let allow = KEYS.iter().find(|key| key.path == "caller.allow").unwrap();
        for word in crate::policy::Permissions::words() {
            assert!(allow.description.contains(&format!("`{word}`")), "{word}");
        }
    }
}
