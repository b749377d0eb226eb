//! `[[listen]]`: each way to write it wrong, and what is told.

use super::*;

const TLS: &str = "cert = \"server.pem\"\nkey = \"/keys/server.key\"\nclient_ca = \"clients.pem\"\n";

#[test]
fn a_port_has_its_files_beside_the_configuration() {
    let config = right(&format!(
        "{MINIMAL}[[listen]]\ntcp = \"[::1]:7443\"\n{TLS}client_crl = [\"a.crl\", \"b.crl\"]\nmin_tls = \"1.2\"\n\
         [[listen]]\nunix = \"/run/a\"\n[[listen]]\ntcp = \"127.0.0.1:0\"\n{TLS}[[listen]]\ntcp = \"127.0.0.1:0\"\n{TLS}"
    ));
    let [Listen::Tcp { address, tls }, Listen::Unix { .. }, Listen::Tcp { tls: other, .. }, _] =
        &config.listen[..]
    else {
        panic!("{:?}", config.listen)
    };
    assert_eq!(address.to_string(), "[::1]:7443");
    let files: Vec<_> = [&tls.cert, &tls.key, &tls.client_ca]
        .into_iter()
        .chain(&tls.client_crls)
        .map(|file| (file.key, file.path.to_str().unwrap(), file.position.to_string()))
        .collect();
    assert_eq!(
        files,
        [
            ("listen.cert", "/etc/b/server.pem", "9:8".to_owned()),
            ("listen.key", "/keys/server.key", "10:7".to_owned()),
            ("listen.client_ca", "/etc/b/clients.pem", "11:13".to_owned()),
            ("listen.client_crl", "/etc/b/a.crl", "12:15".to_owned()),
            ("listen.client_crl", "/etc/b/b.crl", "12:24".to_owned()),
        ]
    );
    assert!(tls.tls12);
    assert!(!other.tls12, "1.3 is what is spoken unless the operator says otherwise");
}

#[test]
fn a_port_needs_all_its_files() {
    assert_eq!(
        errors_after_minimal("[[listen]]\ntcp = \"0.0.0.0:7443\"\n"),
        ["cert", "key", "client_ca"].map(|key| format!(
            "7:1: listen.{key} is missing: over TCP both sides show certificates; write cert, key and client_ca"
        ))
    );
    assert_eq!(
        errors_after_minimal(&format!(
            "[[listen]]\ntcp = 7443\n{TLS}client_crl = \"a.crl\"\nmin_tls = 1.2\n"
        )),
        [
            "8:7: listen.tcp is an IP address and a port in quotes, such as \"0.0.0.0:7443\"",
            "12:14: listen.client_crl is a list of names of files in brackets, such as [\"tls/clients-crl.pem\"]",
            "13:11: listen.min_tls must be one of \"1.2\", \"1.3\"",
        ]
    );
}

#[test]
fn an_address_is_one_of_a_host_and_never_its_name() {
    for address in
        ["7443", ":7443", "0.0.0.0", "localhost:7443", "0.0.0.0:99999", "::1:7443", "https://1.2.3.4:1"]
    {
        assert_eq!(
            errors_after_minimal(&format!("[[listen]]\ntcp = \"{address}\"\n{TLS}")),
            [
                "8:7: listen.tcp must be an IP address and a port, such as \"0.0.0.0:7443\" for all of IPv4, or \"[::]:7443\" for all of IPv6"
            ],
            "{address}"
        );
    }
}

#[test]
fn a_place_is_a_socket_or_a_port_and_has_what_belongs_to_it() {
    assert_eq!(
        errors_after_minimal(&format!("[[listen]]\ntcp = \"0.0.0.0:7443\"\nunix = \"/run/a\"\n{TLS}")),
        ["8:7: listen.tcp stands beside listen.unix: write a [[listen]] for each of them"]
    );
    assert_eq!(
        errors_after_minimal(&format!("[[listen]]\ntcp = \"0.0.0.0:7443\"\nmode = \"0666\"\n{TLS}")),
        ["9:8: listen.mode is for a Unix socket: over TCP, certificates decide who connects"]
    );
    assert_eq!(
        errors_after_minimal("[[listen]]\nunix = \"/run/a\"\nmode = \"999\"\nclient_ca = \"clients.pem\"\n"),
        [
            "9:8: listen.mode is three or four octal digits in quotes, at most \"0777\", such as \"0666\"",
            "10:13: listen.client_ca is for tcp: the kernel vouches for who connects to a Unix socket",
        ]
    );
    assert_eq!(
        errors_after_minimal("[[listen]]\ncert = \"server.pem\"\n"),
        [
            "7:1: this [[listen]] doesn't say where; write unix = and the socket's path, tcp = and an address with its port, or systemd = and the FileDescriptorName= of a .socket unit"
        ]
    );
}

#[test]
fn a_socket_of_the_service_manager_has_a_name_and_over_tcp_its_files() {
    let config = right(&format!(
        "{MINIMAL}[[listen]]\nsystemd = \"broker\"\n[[listen]]\nsystemd = \"port\"\n{TLS}min_tls = \"1.2\"\n"
    ));
    let [Listen::Systemd { name, tls: None }, Listen::Systemd { name: port, tls: Some(tls) }] =
        &config.listen[..]
    else {
        panic!("{:?}", config.listen)
    };
    assert_eq!((name.as_str(), port.as_str(), tls.tls12), ("broker", "port", true));
    assert_eq!(
        errors_after_minimal("[[listen]]\nsystemd = \"a:b\"\nmode = \"0666\"\n"),
        [
            "8:11: listen.systemd is the FileDescriptorName= of a .socket unit: 1 to 255 ASCII characters without a colon, such as \"broker\"",
            "9:8: listen.mode is for a Unix socket of the broker's own; that of the service manager has the SocketMode= of its unit",
        ]
    );
    assert_eq!(
        errors_after_minimal(
            "[[listen]]\nsystemd = \"a\"\nunix = \"/run/a\"\n[[listen]]\ntcp = \"0.0.0.0:1\"\nsystemd = \"b\"\n"
        ),
        [
            "8:11: listen.systemd stands beside listen.unix: write a [[listen]] for each of them",
            "12:11: listen.systemd stands beside listen.tcp: write a [[listen]] for each of them",
        ]
    );
    assert_eq!(
        errors_after_minimal("[[listen]]\nsystemd = \"a\"\ncert = \"server.pem\"\n"),
        ["key", "client_ca"].map(|key| format!(
            "7:1: listen.{key} is missing: over TCP both sides show certificates; write cert, key and client_ca"
        ))
    );
    assert_eq!(
        errors_after_minimal("[[listen]]\nsystemd = \"a\"\n[[listen]]\nsystemd = \"a\"\n"),
        ["9:1: another [[listen]] is at the same place"]
    );
}

#[test]
fn no_two_listen_at_one_place() {
    for (one, other) in [
        ("127.0.0.1:7443", "127.0.0.1:7443"),
        ("0.0.0.0:7443", "127.0.0.1:7443"),
        ("127.0.0.1:7443", "0.0.0.0:7443"),
        ("[::]:7443", "[::1]:7443"),
    ] {
        let text = format!("[[listen]]\ntcp = \"{one}\"\n{TLS}[[listen]]\ntcp = \"{other}\"\n{TLS}");
        assert_eq!(
            errors_after_minimal(&text),
            ["12:1: another [[listen]] is at the same place"],
            "{one} {other}"
        );
    }
    for (one, other) in
        [("0.0.0.0:7443", "[::]:7443"), ("127.0.0.1:1", "127.0.0.1:2"), ("127.0.0.1:1", "127.0.0.2:1")]
    {
        right(&format!("{MINIMAL}[[listen]]\ntcp = \"{one}\"\n{TLS}[[listen]]\ntcp = \"{other}\"\n{TLS}"));
    }
}

#[test]
fn a_key_that_was_pasted_in_place_of_its_file_is_not_shown() {
    let text = format!(
        "{MINIMAL}[[listen]]\ntcp = \"0.0.0.0:7443\"\ncert = \"{PLANTED}\"\nkey = \"{PLANTED}\"\nclient_ca = \"{PLANTED}\"\n"
    );
    let config = right(&text);
    assert!(!format!("{config:?}").contains(PLANTED));
}
