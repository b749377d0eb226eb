//! Who may do what, and who is told what.

use super::*;
use crate::caller::{CertifiedName, NoName};

fn rule(name: &str, selector: Selector, allow: &[Permission]) -> Rule {
    Rule::new(name.parse().unwrap(), selector, allow.iter().copied().collect())
}

fn peer(uid: u32, gid: u32, groups: &[u32]) -> Peer {
    Peer::Unix { uid, gid, groups: groups.to_vec(), pid: Some(4711), unit: None }
}

fn policy() -> Policy {
    Policy::new(vec![
        rule("payouts", Selector::UnixUser(1000), &[Permission::GetAccessToken]),
        rule("ops", Selector::UnixGroup(20), &[Permission::AdminGetStatus]),
        rule("hooks", Selector::UnixGroup(30), &[Permission::VerifySign]),
    ])
    .unwrap()
}

fn decide(peer: &Peer, permission: Permission) -> Decision {
    policy().decide(peer, permission)
}

fn allowed(name: &str) -> Decision {
    Decision::Allowed(name.parse().unwrap())
}

fn denial(peer: &Peer, permission: Permission) -> String {
    match decide(peer, permission) {
        Decision::Allowed(name) => panic!("allowed as {name}"),
        Decision::Denied(denial) => denial.to_string(),
    }
}

#[test]
fn every_permission_is_written_as_it_is_read() {
    for permission in Permission::ALL {
        assert_eq!(permission.to_string().parse(), Ok(permission));
        assert_eq!(
            Permissions::of_word(permission.as_str()).unwrap().iter().collect::<Vec<_>>(),
            [permission]
        );
    }
}

#[test]
fn an_unknown_word_is_answered_with_the_known_ones_and_not_repeated() {
    for word in ["getaccesstoken", "VerifySign:", "Admin:", "", "s3cr3t"] {
        let answer = Permissions::of_word(word).unwrap_err().to_string();
        assert_eq!(
            answer,
            "no such permission; there are GetAccessToken, WatchAccessToken, VerifySign, VerifySign:message, \
             Health, Reflection, Admin:GetStatus, Admin:Reload, Admin:Lockdown, Admin:Unlock, Admin"
        );
    }
}

#[test]
fn admin_is_every_admin_permission_and_no_other() {
    let admin = Permissions::of_word("Admin").unwrap();
    assert_eq!(
        admin.iter().collect::<Vec<_>>(),
        [
            Permission::AdminGetStatus,
            Permission::AdminReload,
            Permission::AdminLockdown,
            Permission::AdminUnlock
        ]
    );
    assert_eq!("Admin".parse::<Permission>(), Err(UnknownPermission));
}

#[test]
fn verifying_a_callback_does_not_include_verifying_a_message() {
    let hooks = peer(7, 30, &[]);
    assert_eq!(decide(&hooks, Permission::VerifySign), allowed("hooks"));
    assert!(matches!(decide(&hooks, Permission::VerifySignMessage), Decision::Denied(_)));
}

#[test]
fn an_empty_policy_denies_everything_to_everybody_root_included() {
    for permission in Permission::ALL {
        let decision = Policy::default().decide(&peer(0, 0, &[]), permission);
        assert!(matches!(decision, Decision::Denied(Denial::CallerUnknown { .. })), "{permission}");
    }
}

#[test]
fn a_user_is_known_by_its_number_whatever_its_groups() {
    assert_eq!(decide(&peer(1000, 5, &[5, 6]), Permission::GetAccessToken), allowed("payouts"));
}

#[test]
fn a_group_is_known_as_the_primary_and_as_a_supplementary_one() {
    for ops in [peer(7, 20, &[]), peer(7, 8, &[20]), peer(7, 20, &[20, 21])] {
        assert_eq!(decide(&ops, Permission::AdminGetStatus), allowed("ops"), "{ops}");
    }
}

#[test]
fn a_user_s_number_is_not_a_group_s() {
    assert_eq!(policy().identify(&peer(20, 1000, &[])), Identity::Unknown);
}

#[test]
fn a_stranger_is_told_who_it_is_taken_for() {
    assert_eq!(
        denial(&peer(1001, 8, &[9]), Permission::Health),
        "this process (uid 1001, gid 8, pid 4711) is no caller that the broker knows: its configuration needs a \
         [[caller]] with this user as unix_user, or one of the process's groups as unix_group"
    );
}

#[test]
fn a_caller_is_told_what_it_lacks() {
    assert_eq!(
        denial(&peer(1000, 8, &[]), Permission::VerifySignMessage),
        "caller payouts may not use VerifySign:message: its [[caller]] in the broker's configuration doesn't list \
         that word under allow"
    );
}

#[test]
fn a_peer_that_could_be_two_callers_is_neither() {
    let user_and_group = peer(1000, 8, &[20]);
    assert_eq!(
        denial(&user_and_group, Permission::GetAccessToken),
        "this process (uid 1000, gid 8, pid 4711) matches more than one [[caller]] of the broker's configuration: \
         ops (by gid 20) and payouts (by uid 1000). Which one it is must be decided there: take the user out of \
         all but one of the groups, or remove all but one of these callers"
    );
    let two_groups = peer(7, 30, &[20]);
    assert!(denial(&two_groups, Permission::VerifySign).contains("hooks (by gid 30) and ops (by gid 20)"));
}

#[test]
fn rules_that_overlap_make_no_policy_and_all_overlaps_are_told() {
    let conflicts = Policy::new(vec![
        rule("a", Selector::UnixUser(1), &[]),
        rule("b", Selector::UnixUser(1), &[]),
        rule("a", Selector::UnixGroup(1), &[]),
    ])
    .unwrap_err();
    let told: Vec<_> = conflicts.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "the callers a and b are both uid 1: a peer can be only one of them, remove one",
            "two callers have the name a (numbers 1 and 3): give each its own",
        ]
    );
}

fn remote(address: &str, name: Result<&str, NoName>) -> Peer {
    let name = name.map(|name| name.parse().map_or_else(|_| dns(name), CertifiedName::Spiffe));
    Peer::Tls { address: address.parse().unwrap(), name }
}

fn dns(name: &str) -> CertifiedName {
    CertifiedName::Dns(name.parse().unwrap())
}

fn over_tls() -> Policy {
    let get = [Permission::GetAccessToken];
    let payouts =
        Selector::Certificate(CertifiedName::Spiffe("spiffe://example.org/payouts".parse().unwrap()));
    let mut payouts = rule("payouts", payouts, &get);
    payouts.networks = vec!["10.1.0.0/16".parse().unwrap(), "2001:db8::/32".parse().unwrap()];
    Policy::new(vec![payouts, rule("hooks", Selector::Certificate(dns("hooks.example.org")), &get)]).unwrap()
}

#[test]
fn a_certificate_is_known_by_its_one_name() {
    let policy = over_tls();
    let get = |address, name| policy.decide(&remote(address, name), Permission::GetAccessToken);
    assert_eq!(get("192.0.2.1:1", Ok("hooks.example.org")), allowed("hooks"));
    assert_eq!(get("10.1.2.3:1", Ok("spiffe://example.org/payouts")), allowed("payouts"));
    for stranger in [Ok("spiffe://example.org/hooks"), Ok("payouts"), Err(NoName::SeveralUris)] {
        let decision = get("10.1.2.3:1", stranger);
        assert!(matches!(decision, Decision::Denied(Denial::CallerUnknown { .. })), "{stranger:?}");
    }
}

#[test]
fn a_caller_with_networks_calls_from_there_alone() {
    let policy = over_tls();
    let get = |address| {
        policy.decide(&remote(address, Ok("spiffe://example.org/payouts")), Permission::GetAccessToken)
    };
    for inside in ["10.1.255.255:1", "[2001:db8::1]:1", "[::ffff:10.1.2.3]:1"] {
        assert_eq!(get(inside), allowed("payouts"), "{inside}");
    }
    for outside in ["10.2.0.0:1", "[2001:db9::1]:1", "[::ffff:10.2.0.1]:1"] {
        let Decision::Denied(denial) = get(outside) else { panic!("let in from {outside}") };
        assert!(matches!(denial, Denial::NetworkNotAllowed { .. }), "{denial}");
    }
}

#[test]
fn a_unit_is_known_as_such_and_a_process_that_is_a_user_and_a_unit_is_neither() {
    let in_unit = |uid, unit: &str| Peer::Unix {
        uid,
        gid: 8,
        groups: Vec::new(),
        pid: Some(4711),
        unit: Some(unit.parse().unwrap()),
    };
    let unit = |name: &str| Selector::SystemdUnit(name.parse().unwrap());
    let policy = Policy::new(vec![
        rule("payouts", unit("payouts.service"), &[Permission::GetAccessToken]),
        rule("cron", Selector::UnixUser(1000), &[Permission::GetAccessToken]),
    ])
    .unwrap();
    let get = |peer: &Peer| policy.decide(peer, Permission::GetAccessToken);
    assert_eq!(get(&in_unit(7, "payouts.service")), allowed("payouts"));
    assert_eq!(get(&in_unit(1000, "cron.service")), allowed("cron"));
    assert!(matches!(get(&in_unit(1000, "payouts.service")), Decision::Denied(Denial::Ambiguous { .. })));
    assert!(matches!(get(&in_unit(7, "other.service")), Decision::Denied(Denial::CallerUnknown { .. })));
}
