//! Lists of revoked certificates: which of several counts, and what they end.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "for tests alone: a panic is their way to fail")]

mod support;

use std::time::Duration;

use b2binpay_simulator::Credentials;
use support::{
    pki::{Authority, HOUR, Issued, Says, replace},
    soon,
    tls::{PAYOUTS, Port},
    told,
};
use tonic::Code;

const LISTS: &str = "client_crl = [\"first.crl\", \"second.crl\"]\n";

/// A port that believes these authorities and knows these lists.
async fn port(authorities: &[&Authority], lists: [&str; 2]) -> Port {
    let (simulator, home, clients, servers) = Port::prepare(LISTS, "").await;
    let pem: String = authorities.iter().map(|one| one.pem()).collect();
    replace(&home.path().join("clients.pem"), &pem);
    replace(&home.path().join("first.crl"), lists[0]);
    replace(&home.path().join("second.crl"), lists[1]);
    Port::serve(simulator, home, clients, servers).await
}

fn payouts() -> Says {
    Says::uri(PAYOUTS)
}

#[tokio::test]
async fn of_two_lists_of_an_authority_the_newer_counts_wherever_it_stands() {
    let clients = Authority::new("clients");
    let [early, late] = [clients.issue(&payouts()), clients.issue(&payouts())];
    let older = clients.revoke_by(Issued { at: -2 * HOUR, number: 7, ..Issued::default() }, &[&early.serial]);
    let newer = clients.revoke_by(Issued { number: 8, ..Issued::default() }, &[&early.serial, &late.serial]);
    // Of one second, the higher number.
    let newest = clients.revoke_by(Issued { number: 300, ..Issued::default() }, &[&late.serial]);
    let both = |a: &str, b: &str| format!("{a}{b}");
    let other = Authority::new("others").revoke(&[]);
    for (lists, revoked, good) in [
        ([older.as_str(), newer.as_str()], vec![&early, &late], vec![]),
        ([&newer, &older], vec![&early, &late], vec![]),
        ([&both(&older, &newer), &other], vec![&early, &late], vec![]),
        ([&newer, &newest], vec![&late], vec![&early]),
    ] {
        let port = port(&[&clients], lists).await;
        for identity in revoked {
            assert!(port.client(identity).greet().await.is_err());
        }
        for identity in good {
            assert!(port.client(identity).greet().await.is_ok());
        }
        assert!(port.client(&clients.issue(&payouts())).caller().token().await.is_ok());
        port.daemon.logged("TLS handshake failed: its certificate is revoked").await;
        port.daemon.logged("the list of CN=clients from").await;
        port.daemon.logged("remove the older").await;
        let status = port.client(&clients.issue(&payouts())).caller().status().await.unwrap();
        let counting = status.certificates.iter().filter(|one| one.names == ["CN=clients"]).count();
        assert_eq!(counting, 2, "the authority, and the one list of it that counts");
    }
}

#[tokio::test]
async fn an_authority_that_was_renewed_under_its_name_has_a_list_of_each_key() {
    let [old, new] = [Authority::new("clients"), Authority::new("clients")];
    let [old_bad, new_bad] = [old.issue(&payouts()), new.issue(&payouts())];
    let [of_old, of_new] = [old.revoke(&[&old_bad]), new.revoke(&[&new_bad])];
    // A list of the old key that is older does not count beside the newer, whichever key has its turn.
    let outdated = old.revoke_by(Issued { at: -2 * HOUR, ..Issued::default() }, &[]);
    let all = format!("{of_new}{outdated}");
    for lists in [[of_old.as_str(), of_new.as_str()], [&of_new, &of_old], [&all, &of_old]] {
        for authorities in [[&old, &new], [&new, &old]] {
            let port = port(&authorities, lists).await;
            for authority in authorities {
                let good = port.client(&authority.issue(&payouts()));
                assert!(good.caller().token().await.is_ok());
            }
            for bad in [&old_bad, &new_bad] {
                assert!(port.client(bad).greet().await.is_err());
            }
            port.daemon.logged("TLS handshake failed: its certificate is revoked").await;
        }
    }
}

#[tokio::test]
async fn a_renewed_authority_without_a_list_of_its_new_key_is_told_and_its_clients_are_refused() {
    let [old, new] = [Authority::new("clients"), Authority::new("clients")];
    let port = port(&[&old, &new], [&old.revoke(&[]), &Authority::new("others").revoke(&[])]).await;
    assert!(port.client(&old.issue(&payouts())).caller().token().await.is_ok());
    assert!(port.client(&new.issue(&payouts())).greet().await.is_err());
    port.daemon.logged("has no list of 1 of the authorities, CN=clients").await;
    port.daemon.logged("or listen.client_crl has no list signed with that key").await;
}

#[tokio::test]
async fn an_intermediate_that_is_revoked_takes_its_certificates_along() {
    let root = Authority::new("root");
    let [good, bad] = [root.intermediate("good"), root.intermediate("bad")];
    let lists = [root.revoke_by(Issued::default(), &[bad.serial()]), good.revoke(&[]) + &bad.revoke(&[])];
    let port = port(&[&root], [&lists[0], &lists[1]]).await;
    assert!(port.client(&good.issue(&payouts())).caller().token().await.is_ok());
    assert!(port.client(&bad.issue(&payouts())).greet().await.is_err());
    port.daemon.logged("TLS handshake failed: its certificate is revoked").await;
    let unlisted = root.intermediate("unlisted").issue(&payouts());
    assert!(port.client(&unlisted).greet().await.is_err());
    port.daemon.logged("listen.client_crl has no list of an authority of its certificate").await;
}

#[tokio::test]
async fn a_list_past_its_next_update_revokes_on_with_a_warning() {
    let clients = Authority::new("clients");
    let bad = clients.issue(&payouts());
    let issued = Issued { at: -2 * HOUR, next: -HOUR, number: 1 };
    let late = clients.revoke_by(issued, &[&bad.serial]);
    let port = port(&[&clients], [&late, &Authority::new("others").revoke(&[])]).await;
    assert!(port.client(&bad).greet().await.is_err());
    let good = port.client(&clients.issue(&payouts()));
    assert!(good.caller().token().await.is_ok());
    port.daemon.logged("should have been followed by another").await;
    port.daemon.logged("TLS handshake failed: its certificate is revoked").await;
}

#[tokio::test]
async fn a_list_that_is_forged_lets_nobody_in() {
    let clients = Authority::new("clients");
    let bad = clients.issue(&payouts());
    // Of the authority's name and newer than its own, but of another key: whoever serves lists over plain HTTP can make it.
    let forged =
        Authority::new("clients").revoke_by(Issued { at: -10, number: 99, ..Issued::default() }, &[]);
    let port = port(&[&clients], [&forged, &clients.revoke(&[&bad])]).await;
    assert!(port.client(&bad).greet().await.is_err());
    assert!(port.client(&clients.issue(&payouts())).caller().token().await.is_ok());
}

#[tokio::test]
async fn a_list_that_is_forged_with_an_authority_s_key_id_neither_lets_in_nor_keeps_out() {
    let clients = Authority::new("clients");
    let bad = clients.issue(&payouts());
    let forged =
        Authority::new("clients").forge(&clients, Issued { at: -10, number: 99, ..Issued::default() }, &[]);
    let genuine = clients.revoke(&[&bad]);
    let port = port(&[&clients], [&forged, &genuine]).await;
    let good = port.client(&clients.issue(&payouts()));
    let come_and_go = async || {
        assert!(port.client(&bad).greet().await.is_err());
        assert!(good.caller().token().await.is_ok());
    };
    come_and_go().await;
    port.daemon.logged("was signed by no authority of that name in listen.client_ca").await;
    // In the very place of the genuine one, which goes on counting.
    replace(&port.file("second.crl"), &forged);
    port.daemon.logged("goes on counting, though its file no longer has it").await;
    come_and_go().await;
}

#[tokio::test]
async fn a_list_that_is_older_than_the_one_in_force_does_not_take_its_place() {
    let clients = Authority::new("clients");
    let [bad, worse] = [clients.issue(&payouts()), clients.issue(&payouts())];
    let list = |number, revoked: &[&[u8]]| {
        // The older by its number, whatever some clock said.
        let at = -HOUR - i64::try_from(number).unwrap();
        clients.revoke_by(Issued { at, number, ..Issued::default() }, revoked)
    };
    let other = Authority::new("others").revoke(&[]);
    let port = port(&[&clients], [&list(8, &[&bad.serial]), &other]).await;
    let good = port.client(&clients.issue(&payouts())).caller();
    assert!(port.client(&bad).greet().await.is_err());
    replace(&port.file("first.crl"), &list(7, &[]));
    port.daemon.logged("is older than the one in force").await;
    assert!(port.client(&bad).greet().await.is_err());
    // A reload does not take it either, however often it is put there.
    replace(&port.file("first.crl"), &list(6, &[]));
    good.reload().await.unwrap();
    assert!(port.client(&bad).greet().await.is_err());
    assert!(port.client(&worse).greet().await.is_ok());
    replace(&port.file("first.crl"), &list(9, &[&worse.serial]));
    good.reload().await.unwrap();
    assert!(port.client(&worse).greet().await.is_err());
    assert!(port.client(&bad).greet().await.is_ok());
}

#[tokio::test]
async fn who_is_revoked_along_with_a_rotation_never_gets_the_new_token() {
    let clients = Authority::new("clients");
    let port = port(&[&clients], [&clients.revoke(&[]), &Authority::new("others").revoke(&[])]).await;
    let good = port.client(&clients.issue(&payouts())).caller();
    let mut revoked = Vec::new();
    let (mut ended, mut refused) = (0, 0);
    for round in 0..15 {
        let identity = clients.issue(&payouts());
        let caller = port.client(&identity).caller();
        let current = caller.token().await.unwrap().token_id;
        let mut watches = Vec::new();
        for _ in 0..4 {
            let mut watch = caller.watch().await.unwrap();
            assert_eq!(told(&mut watch).await.1, current);
            watches.push(watch);
        }
        // It waits for a login, or for another token, since callers may provoke one login each 20 s.
        let waiting = tokio::spawn({
            let current = current.clone();
            async move { caller.token_for(Duration::ZERO, &current, Some(Duration::from_secs(50))).await }
        });
        port.simulator.set(|settings| {
            settings.credentials =
                Credentials { key: format!("key-of-{round}"), secret: format!("secret-of-{round}") };
        });
        port.daemon.home.write_credentials(&port.simulator);
        revoked.push(identity);
        let list = clients.revoke(&revoked.iter().collect::<Vec<_>>());
        replace(&port.file("first.crl"), &list);
        let answer = good.reload().await.unwrap();
        let new = good.token().await.unwrap().token_id;
        assert!(answer.changes[0].contains(&new), "{:?}", answer.changes);

        for mut watch in watches {
            // A renewal that the waiting call provoked is told before the end, and is of the old credentials.
            loop {
                match soon("the end of the stream", watch.message()).await {
                    Ok(Some(more)) => assert_ne!(more.token.unwrap().token_id, new, "round {round}"),
                    Ok(None) => break,
                    Err(status) => {
                        ended += usize::from(status.code() == Code::Unauthenticated);
                        break;
                    }
                }
            }
        }
        match soon("the waiting call", waiting).await.unwrap() {
            Ok(token) => assert_ne!(token.token_id, new, "round {round}"),
            Err(status) => refused += usize::from(status.code == Code::Unauthenticated),
        }
    }
    println!("{ended} of 60 streams and {refused} of 15 waiting calls were told that they are unknown");
    assert!(ended > 30 && refused > 5, "{ended}, {refused}");
}
