//! Configurations that are wrong, and what is said of them.

use super::*;
use crate::policy::Permissions;

#[test]
fn an_empty_file_is_told_what_it_needs() {
    assert_eq!(
        errors(""),
        [
            "1:1: the section [upstream] is missing; it needs at least api = \"v3\"",
            "1:1: the section [credentials] is missing; it needs at least key_file = \"api-key\" and secret_file = \"api-secret\"",
        ]
    );
}

#[test]
fn all_mistakes_are_told_in_one_go_and_in_the_order_of_the_file() {
    let text = r#"
[credentials]
secret_file = 5
[upstream]
api = "v4"
base_url = "http://api.example"
reqest_timeout = "5s"
request_timeout = "11s"
connect_timeout = 3
[upstream.budget]
requests = 2
window = "2m30"
[token]
refresh_at = 0.95
min_validity = "10"
[state]
directory = "state"
[[listen]]
unix = "/run/a.sock"
mode = 0o666
[log]
level = "verbose"
json = true
[limits]
max_connections = "many"
max_header_bytes = "16KB"
max_message_bytes = 100
"#;
    assert_eq!(
        errors(text),
        [
            "2:1: credentials.key_file is missing; write for example key_file = \"api-key\"",
            "3:15: credentials.secret_file is the name of a file in quotes, such as \"api-secret\"",
            "5:7: upstream.api must be one of \"v2\", \"v3\"",
            "6:12: upstream.base_url is no base URL that can be used: http:// is for a loopback address (127.0.0.0/8, [::1] or localhost): use https://",
            "7:1: there is no such key under [upstream]; did you mean request_timeout?",
            "8:19: upstream.request_timeout must lie between 1s and 10s: a call that is given up here may still arrive at the upstream that much later, and the budget holds one call in reserve for that, no more",
            "9:19: upstream.connect_timeout is a duration: write a number and its unit in quotes, such as \"3s\"",
            "11:12: upstream.budget.requests must lie between 3 and 1000: with fewer than 3 nothing is left for a burst, a steady rate and the reserve; the record of call times is made for 1000 at most",
            "12:10: upstream.budget.window can't be read: a duration is a whole number with its unit (d, h, m, s or ms), or several from the largest unit to the smallest, such as \"250ms\", \"10s\" or \"1h30m\"",
            "14:14: token.refresh_at must lie between 0.1 and 0.9: sooner spends the budget on tokens that are still young, later leaves no time to try again",
            "15:16: token.min_validity can't be read: a duration is a whole number with its unit (d, h, m, s or ms), or several from the largest unit to the smallest, such as \"250ms\", \"10s\" or \"1h30m\"",
            "17:13: state.directory must be an absolute path, such as \"/var/lib/b2binpay-broker\"",
            "20:8: listen.mode is an octal file mode in quotes, such as \"0666\"",
            "22:9: log.level must be one of \"error\", \"warn\", \"info\", \"debug\", \"trace\"",
            "23:1: there is no such key under [log]; there are format, level",
            "25:19: limits.max_connections is a whole number, without quotes, such as 1024",
            "26:20: limits.max_header_bytes can't be read: a size is a number of bytes such as 16384, or text with a unit (KiB or MiB) such as \"16KiB\"",
            "27:21: limits.max_message_bytes must lie between 4KiB and 16MiB: less refuses ordinary callbacks, and no callback is verified that is larger than 256KiB",
        ]
    );
}

#[test]
fn a_key_in_the_wrong_section_is_shown_the_right_one() {
    assert_eq!(
        errors_after_minimal("refresh_at = 0.5\n[limits]\nrequests = 5\n[upstraem]\n"),
        [
            "7:1: refresh_at doesn't belong under [credentials] but under [token]",
            "9:1: requests doesn't belong under [limits] but under [upstream.budget]",
            "10:2: there is no such key at the top of the file; did you mean upstream?",
        ]
    );
}

#[test]
fn what_a_later_version_will_know_is_no_typing_mistake() {
    let text = "[[caller]]\nname = \"a\"\nunix_user = \"1\"\nallow = [\"Health\"]\n[http]\n\
                listen = \"127.0.0.1:9464\"\n[ha]\n";
    assert_eq!(
        errors_after_minimal(text),
        [
            "11:2: http is not part of this version: take it out",
            "13:2: ha is not part of this version: take it out",
        ]
    );
}

#[test]
fn the_audit_log_s_file_is_an_absolute_path() {
    assert_eq!(
        errors_after_minimal("[audit]\nfile = \"audit.jsonl\"\n"),
        ["8:8: audit.file must be an absolute path, such as \"/var/log/b2binpay-broker/audit.jsonl\""]
    );
}

#[test]
fn the_upstream_is_named_once() {
    let credentials = "[credentials]\nkey_file = \"key\"\nsecret_file = \"secret\"\n";
    let upstream = |lines: &str| errors(&format!("[upstream]\napi = \"v2\"\n{lines}{credentials}"));
    assert_eq!(
        upstream(""),
        [
            "1:1: upstream.environment is missing; write environment = \"production\" or \"sandbox\", or base_url for another server"
        ]
    );
    assert_eq!(
        upstream("environment = \"sandbox\"\nbase_url = \"https://api.example\"\n"),
        [
            "4:12: upstream.base_url stands beside upstream.environment: one of them says where the upstream is, remove the other"
        ]
    );
    assert_eq!(
        upstream("base_url = \"https://me:pass@api.example\"\nproxy = \"socks5://proxy:1\"\n"),
        [
            "3:12: upstream.base_url is no base URL that can be used: it has an '@': a user or a password does not belong here, since the URL is shown in logs",
            "4:9: upstream.proxy is no proxy that can be used: it must begin with http:// or https://",
        ]
    );
}

#[test]
fn a_connection_may_not_take_longer_than_the_call_it_is_part_of() {
    let with = |lines: &str| MINIMAL.replace("[credentials]", &format!("{lines}\n[credentials]"));
    assert_eq!(right(&with("request_timeout = \"2s\"")).upstream.connect_timeout, Duration::from_secs(2));
    assert_eq!(
        errors(&with("request_timeout = \"2s\"\nconnect_timeout = \"2001ms\"")),
        [
            "5:19: upstream.connect_timeout must not be longer than upstream.request_timeout, of which it is a part"
        ]
    );
}

#[test]
fn what_is_wrong_with_callers_is_told_of_each() {
    let text = r#"[[caller]]
name = "pay outs"
unix_user = "paymets"
allow = ["GetAcessToken", "Fly", "Health"]
[[caller]]
name = "b"
unix_user = "payouts"
unix_group = "payouts"
allow = []
[[caller]]
name = "c"
allow = "Health"
[[caller]]
unix_group = "4294967295"
[[caller]]
name = "e"
unix_user = "broken"
allow = ["Health"]
"#;
    let words = Permissions::words().collect::<Vec<_>>().join(", ");
    assert_eq!(
        errors_after_minimal(text),
        [
            "8:8: caller.name can't be used: a caller's name is 1 to 64 letters, digits, dots, dashes or underscores, all of them ASCII".to_owned(),
            "9:13: caller.unix_user names a user \"paymets\" that this host doesn't know; create it first, or write its number".to_owned(),
            format!("10:10: caller.allow: no such permission; there are {words}; did you mean GetAccessToken?"),
            format!("10:27: caller.allow: no such permission; there are {words}"),
            "14:14: caller.unix_group stands beside caller.unix_user: a caller is one or the other, write two callers".to_owned(),
            "15:9: caller.allow is a list of permissions in brackets, such as [\"GetAccessToken\", \"VerifySign\"]".to_owned(),
            "16:1: this caller has none of unix_user, unix_group, systemd_unit, spiffe_id, dns_name; exactly one says who it is".to_owned(),
            "18:9: caller.allow is a list of permissions in brackets, such as [\"GetAccessToken\", \"VerifySign\"]".to_owned(),
            "19:1: caller.name is missing; write for example name = \"payouts\"".to_owned(),
            "19:1: caller.allow is missing; write for example allow = [\"GetAccessToken\", \"VerifySign\"]".to_owned(),
            "20:14: caller.unix_group is no number that a group can have".to_owned(),
            "23:13: caller.unix_user can't be looked up: the name service is down".to_owned(),
        ]
    );
}

#[test]
fn callers_that_overlap_are_told_with_both_places() {
    let caller = |name: &str, user: &str| {
        format!("[[caller]]\nname = \"{name}\"\nunix_user = \"{user}\"\nallow = [\"Health\"]\n")
    };
    let text = caller("a", "payouts") + &caller("b", "1000") + &caller("a", "7");
    assert_eq!(
        errors_after_minimal(&text),
        [
            "11:1: this caller \"b\" is the same uid 1000 as the caller \"a\" of line 7: give each peer one caller, and each caller its own name",
            "15:1: this caller's name \"a\" is already that of the caller of line 7: give each peer one caller, and each caller its own name",
        ]
    );
}

#[test]
fn a_user_who_would_be_two_callers_is_told_with_both() {
    let caller =
        |name: &str, who: &str| format!("[[caller]]\nname = \"{name}\"\n{who}\nallow = [\"Health\"]\n");
    let user = caller("a", "unix_user = \"payouts\"");
    assert_eq!(
        errors_after_minimal(&(user + &caller("b", "unix_group = \"50\""))),
        [
            "11:1: uid 1000 would be this caller \"b\" (gid 50) and also the caller \"a\" (uid 1000) of line 7: take the user out of the group, or remove one of the two callers"
        ]
    );
    let two_groups = caller("c", "unix_group = \"60\"") + &caller("d", "unix_group = \"50\"");
    assert_eq!(
        errors_after_minimal(&two_groups),
        [
            "11:1: uid 1001 would be this caller \"d\" (gid 50) and also the caller \"c\" (gid 60) of line 7: take the user out of the group, or remove one of the two callers"
        ]
    );
    right(&format!(
        "{MINIMAL}{}",
        caller("a", "unix_user = \"payouts\"") + &caller("c", "unix_group = \"60\"")
    ));
}

#[test]
fn who_a_remote_caller_is_and_how_it_may_call_is_told_precisely() {
    let text = r#"[[caller]]
name = "a"
spiffe_id = "spiffe://Example.org/a"
networks = ["10.1.0.1/16", "10.1.0.0/33", "192.0.2.1"]
rate = "50"
allow = ["Health"]
[[caller]]
name = "b"
dns_name = "*.example.org"
systemd_unit = "b"
allow = ["Health"]
[[caller]]
name = "c"
unix_user = "1"
networks = ["10.0.0.0/8"]
allow = ["Health"]
[[caller]]
name = "d"
systemd_unit = "payouts"
allow = ["Health"]
"#;
    assert_eq!(
        errors_after_minimal(text),
        [
            "9:13: caller.spiffe_id can't be used: a SPIFFE ID is spiffe://, a trust domain in lower case, and a path, such as spiffe://example.org/payouts",
            "10:13: caller.networks: the address has bits beyond the length of its prefix; write 10.1.0.0/16",
            "10:28: caller.networks: a network is an address and a length, such as \"10.1.0.0/16\" or \"2001:db8::/32\"",
            "11:8: caller.rate can't be read: a rate is a whole number from 1 to 1000000, a slash, and s, m or h, such as \"50/s\" or \"600/m\"",
            "15:12: caller.dns_name stands beside caller.systemd_unit: a caller is one or the other, write two callers",
            "21:12: caller.networks is for callers over TCP, by spiffe_id or dns_name: take it out, a process of this host has no address",
            "25:16: caller.systemd_unit can't be used: a unit is the full name of a system service, such as payouts.service or worker@7.service; user@….service is none: what runs there is its user's",
        ]
    );
}

#[test]
fn credentials_fit_their_api() {
    assert_eq!(
        errors_after_minimal("callback_secret_file = \"key\"\n"),
        [
            "7:24: credentials.callback_secret_file must go: v2 has no callback secret, it signs with the API key and secret",
            "7:24: credentials.callback_secret_file names the same file as key_file",
        ]
    );
    let v3 = right(&MINIMAL.replace("v2", "v3"));
    assert_eq!(
        v3.warnings[1].to_string(),
        "line 4:1: [credentials] has no callback_secret_file: VerifySign will answer NO_CALLBACK_SECRET"
    );
}

#[test]
fn previous_credentials_need_an_end() {
    let previous = |lines: &str| {
        errors_after_minimal(&format!(
            "[credentials.previous]\nkey_file = \"a\"\nsecret_file = \"b\"\n{lines}"
        ))
    };
    assert_eq!(
        previous("api = \"v2\"\n"),
        ["7:1: credentials.previous.until is missing; write for example until = 2026-12-01T00:00:00Z"]
    );
    for until in ["2026-12-01", "2026-12-01T00:00:00", "00:00:00"] {
        assert_eq!(
            previous(&format!("api = \"v2\"\nuntil = {until}\n")),
            [
                "11:9: credentials.previous.until needs a date, a time and an offset (Z, or such as +02:00), as in 2026-12-01T00:00:00Z"
            ]
        );
    }
    assert_eq!(
        previous("api = \"v2\"\nuntil = \"2026-12-01T00:00:00Z\"\n"),
        ["11:9: credentials.previous.until is a date and time without quotes, such as 2026-12-01T00:00:00Z"]
    );
    assert_eq!(
        previous("api = \"v3\"\nuntil = 2026-12-01T02:00:00+02:00\n"),
        [
            "7:1: credentials.previous.callback_secret_file is missing: it is all that v3 signs are verified with"
        ]
    );
}

#[test]
fn sections_stand_in_their_brackets() {
    assert_eq!(
        errors_after_minimal("[listen]\nunix = \"/run/a\"\n[[log]]\n[[token]]\n[caller]\n"),
        [
            "7:1: write [[listen]] in double brackets, and its keys below: there may be several",
            "9:1: [log] stands once, in single brackets",
            "10:1: [token] stands once, in single brackets",
            "11:1: write [[caller]] in double brackets, and its keys below: there may be several",
        ]
    );
    assert_eq!(
        errors(&format!("log = 1\nlisten = \"a\"\n{MINIMAL}")),
        [
            "1:7: log is a section: write [log] and its keys below",
            "2:10: write [[listen]] in double brackets, and its keys below: there may be several",
        ]
    );
}

#[test]
fn sockets_have_paths_that_the_kernel_takes() {
    let long = "x".repeat(107);
    assert_eq!(
        errors_after_minimal(&format!(
            "[[listen]]\nunix = \"/{long}\"\n[[listen]]\nunix = \"@abstract\"\n[[listen]]\nmode = \"999\"\n\
             [[listen]]\nunix = \"/run/a\"\n[[listen]]\nunix = \"/run/a\"\n"
        )),
        [
            "8:8: listen.unix is longer than the 107 bytes that a socket's path can have",
            "10:8: listen.unix must be an absolute path, such as \"/run/b2binpay-broker/broker.sock\"",
            "11:1: this [[listen]] doesn't say where; write unix = and the socket's path, tcp = and an address with its port, or systemd = and the FileDescriptorName= of a .socket unit",
            "15:1: another [[listen]] is at the same place",
        ]
    );
}

#[test]
fn what_is_no_toml_is_told_at_each_of_its_places() {
    assert_eq!(
        errors(
            "a = v3\nmode = 0666\n[b]\n[b]\nc = \"unended\nd = 'it''s'\ne = [1,, 2]\nf = \"a\\q\"\ng = \n"
        ),
        [
            "1:5: here belongs a number, a list in brackets, or text in quotes",
            "2:8: a number doesn't begin with 0; a file mode is text, such as \"0666\"",
            "4:2: this key or section stands twice: keep one",
            "5:13: text stands between quotes that end on the same line",
            "6:9: write name = value, one to a line, under a [section]",
            "7:8: a list is written as [\"a\", \"b\"]",
            "8:8: write a backslash in text as \\\\, or the text between single quotes",
            "9:5: here belongs a number, a list in brackets, or text in quotes",
        ]
    );
    assert_eq!(errors("[a\nb = 1"), ["1:3: a bracket is opened and not closed"]);
    assert_eq!(errors("name payouts"), ["1:6: write name = value, one to a line, under a [section]"]);
    assert_eq!(
        errors("a = 1\na.b = 2"),
        ["2:1: this section's name is a value elsewhere: a name is one or the other"]
    );
}

#[test]
fn a_file_that_cannot_be_read_is_told_as_such() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.toml");
    let told = || Config::load(&file).unwrap_err().to_string().replace(&file.display().to_string(), "FILE");
    assert_eq!(told(), "FILE: there is no such file; name another with --config");
    fs::write(&file, b"[upstream]\napi = \"\xFF\"\n").unwrap();
    assert_eq!(told(), "FILE:2:8: the file must be UTF-8 text, and this character isn't");
    fs::write(&file, "#".repeat(1 << 21)).unwrap();
    assert_eq!(told(), "FILE: the file is larger than 1048576 bytes: it can't be the configuration");
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    assert_eq!(told(), "FILE: this is not a regular file");
}
