//! Configurations that are right: what they mean, and what they are warned of.

use super::*;
use crate::{
    caller::Peer,
    credentials::ApiVersion,
    policy::{Decision, Permission},
    upstream::{BaseUrl, Environment as Servers, ProxyUrl},
};

#[test]
fn what_is_not_written_has_its_default() {
    let config = right(MINIMAL);
    assert_eq!(
        config.upstream,
        Upstream {
            api: ApiVersion::V2,
            base_url: BaseUrl::well_known(ApiVersion::V2, Servers::Sandbox),
            ca_file: None,
            proxy: None,
            connect_timeout: Duration::from_secs(3),
            request_timeout: Duration::from_secs(10),
            budget: Budget { requests: 15, window: Duration::from_secs(60) },
        }
    );
    assert_eq!(config.token, TokenRules { refresh_at: 0.67, min_validity: Duration::from_secs(10) });
    assert_eq!(config.state_directory, Path::new("/var/lib/b2binpay-broker"));
    assert_eq!(
        config.listen,
        [Listen::Unix { path: "/run/b2binpay-broker/broker.sock".into(), mode: 0o666 }]
    );
    assert_eq!(config.log, Log { format: LogFormat::Auto, level: Level::INFO });
    assert_eq!(
        config.limits,
        Limits {
            max_connections: 1024,
            max_connections_per_caller: 256,
            max_calls_per_caller: 1024,
            max_streams_per_connection: 128,
            max_header_bytes: 16 * 1024,
            max_message_bytes: 320 * 1024,
            first_byte_timeout: Duration::from_secs(5),
            handshake_timeout: Duration::from_secs(5),
            max_handshakes: 256,
            keepalive_interval: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(10),
            max_connection_age: None,
            drain_deadline: Duration::from_secs(10),
        }
    );
    assert_eq!(config.previous, None);
    assert_eq!(config.policy().rules(), []);
}

#[test]
fn a_default_that_is_written_out_changes_nothing() {
    let required = |key: &Key| {
        key.path.starts_with("upstream.environment")
            || (matches!(key.unset, Unset::Refused(_))
                && ["upstream", "credentials"].contains(&key.split().0))
    };
    let unset = right(&written(required));
    // A socket has no TLS.
    let other = |key: &Key| key.path == "listen.min_tls";
    let set = right(&written(|key| required(key) || (matches!(key.unset, Unset::Is(_)) && !other(key))));
    assert_eq!(set.upstream, unset.upstream);
    assert_eq!(set.token, unset.token);
    assert_eq!(set.state_directory, unset.state_directory);
    assert_eq!(set.listen, unset.listen);
    assert_eq!(set.log, unset.log);
    assert_eq!(set.limits, unset.limits);
}

#[test]
fn every_key_can_be_written_as_its_example_says() {
    let config = right(
        &written(|key| {
            let other = [
                "caller.unix_user",
                "caller.unix_group",
                "caller.systemd_unit",
                "caller.dns_name",
                "listen.unix",
                "listen.mode",
                "listen.systemd",
            ];
            !other.contains(&key.path)
                && !["upstream.environment", "credentials.previous.callback_secret_file"].contains(&key.path)
        })
        .replace("\"1h\"", "\"2h\""),
    );
    assert_eq!(config.upstream.base_url.as_str(), "https://v3.api.coinsbuy.com");
    assert_eq!(config.upstream.ca_file.as_deref(), Some(Path::new("/etc/b/upstream-ca.pem")));
    assert_eq!(config.upstream.proxy, ProxyUrl::parse("http://proxy.internal:3128").ok());
    assert_eq!(config.previous.unwrap().until, "2026-12-01T00:00:00Z".parse().unwrap());
    assert_eq!(config.limits.max_connection_age, Some(Duration::from_secs(7200)));
    assert_eq!(config.log.format, LogFormat::Json);
}

#[test]
fn the_example_is_right_as_it_is_and_with_its_comments_taken_for_keys() {
    let config = right(EXAMPLE);
    assert_eq!(config.warnings, []);
    let opened: String = EXAMPLE
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(rest) if rest.starts_with("base_url") => line,
            // The previous API is v2, which has none.
            Some(rest) if rest.starts_with("callback_secret_file") => line,
            Some(rest)
                if rest.starts_with('[')
                    || rest.split_once(" = ").is_some_and(|(key, _)| !key.contains(' ')) =>
            {
                rest
            }
            _ => line,
        })
        .flat_map(|line| [line, "\n"])
        .collect();
    let config = right(&opened);
    assert_eq!(config.warnings, []);
    assert_eq!(config.policy().rules().len(), 6);
    assert!(config.previous.is_some());
    for key in KEYS {
        assert!(EXAMPLE.contains(&format!("{} = ", key.split().1)), "{} is not in the example", key.path);
    }
}

#[test]
fn a_budget_beyond_b2binpay_s_own_limit_is_warned_of() {
    let config = right(&format!("{MINIMAL}[upstream.budget]\nrequests = 16\n"));
    assert_eq!(
        config.warnings[1].to_string(),
        "line 8:12: upstream.budget.requests allows more calls than B2BINPAY does, which is 15 in 60s for each address: expect \
         to be throttled"
    );
    let own = MINIMAL.replace("environment = \"sandbox\"", "base_url = \"http://127.0.0.1:1\"");
    let config = right(&format!(
        "{own}[upstream.budget]\nrequests = 16\n[[caller]]\nname = \"a\"\nunix_user = \"1\"\nallow = [\"Health\"]"
    ));
    assert_eq!(config.warnings, []);
}

#[test]
fn callers_are_known_by_the_numbers_of_their_names() {
    let config = right(&format!(
        "{MINIMAL}[[caller]]\nname = \"a\"\nunix_user = \"payouts\"\nallow = [\"GetAccessToken\"]\n\
         [[caller]]\nname = \"b\"\nunix_group = \"2000\"\nallow = [\"Admin\", \"Health\"]\n"
    ));
    let decide = |uid, gid, permission| {
        config
            .policy()
            .decide(&Peer::Unix { uid, gid, groups: Vec::new(), pid: None, unit: None }, permission)
    };
    assert_eq!(decide(1000, 1, Permission::GetAccessToken), Decision::Allowed("a".parse().unwrap()));
    assert_eq!(decide(1, 2000, Permission::AdminGetStatus), Decision::Allowed("b".parse().unwrap()));
    assert!(matches!(decide(1, 2000, Permission::GetAccessToken), Decision::Denied(_)));
    assert_eq!(config.warnings, []);
}

#[test]
fn a_caller_that_every_unmapped_process_would_be_is_warned_of() {
    let config =
        right(&format!("{MINIMAL}[[caller]]\nname = \"a\"\nunix_user = \"nobody\"\nallow = [\"Health\"]\n"));
    assert!(config.warnings[0].message.contains("such processes are let in too"), "{:?}", config.warnings);
}

#[test]
fn a_configuration_without_callers_is_warned_of() {
    assert_eq!(right(MINIMAL).warnings[0].message, "there is no [[caller]]: every call will be refused");
}

#[test]
fn an_end_is_the_same_instant_in_any_offset() {
    for until in ["2026-12-01T00:00:00Z", "2026-12-01 02:00:00.000+02:00", "2026-11-30T19:00-05:00"] {
        let text = format!(
            "{MINIMAL}[credentials.previous]\napi = \"v2\"\nkey_file = \"a\"\nsecret_file = \"b\"\nuntil = {until}\n"
        );
        assert_eq!(right(&text).previous.unwrap().until, "2026-12-01T00:00:00Z".parse().unwrap(), "{until}");
    }
}

#[test]
fn a_file_is_read_as_windows_editors_write_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.toml");
    fs::write(&file, format!("\u{feff}{}", MINIMAL.replace('\n', "\r\n"))).unwrap();
    assert_eq!(Config::load(&file).unwrap().upstream.api, ApiVersion::V2);
}
