//! Sentences about replacements.

use super::*;

#[test]
fn a_replacement_is_proved_by_one_login_and_then_takes_the_place_of_all() {
    let mut rig = Rig::with_v2_token(900.0);
    rig.advance(secs(100.0));
    let replacement = rig.proposes(20.0);
    assert_eq!(rig.tries, ["login", "proof"]);
    assert_eq!(rig.begun.as_ref().unwrap().purpose, crate::budget::Purpose::Schedule);
    let old = rig.current();
    assert!(old.is_some(), "the old token serves while the proof runs");
    rig.v2 = false;
    let token = rig.grants(60.0);
    assert_eq!((rig.conclusion(replacement), rig.current()), (Some(&Ok(token)), old), "it is held back");
    rig.adopts(replacement);
    assert_eq!(rig.adopted(replacement), Some(Replaced { generation: 2, token }));
    assert_eq!(rig.current(), Some(token));
    let held = rig.snapshot.token.clone().unwrap();
    assert_eq!((held.generation, rig.snapshot.generation, held.floor), (2, 2, secs(15.0)));
    rig.pass_until_try();
    assert_eq!(rig.tries, ["login", "proof", "login"], "the old refresh token is dropped unused");
}

#[test]
fn a_replacement_that_is_not_proved_changes_nothing() {
    let mut rig = Rig::with_v2_token(900.0);
    rig.pass_until_try();
    rig.fails(not_sent());
    let (token, wakes, shown) = (rig.current(), rig.core.wake_at(rig.now.boot), rig.snapshot.clone());
    let replacement = rig.proposes(20.0);
    rig.fails(wrong_credentials());
    let why = NotReplaced::NotProved(wrong_credentials());
    assert_eq!(rig.conclusion(replacement), Some(&Err(why)));
    assert_eq!((rig.current(), rig.core.wake_at(rig.now.boot)), (token, wakes));
    assert_eq!((rig.state(), rig.snapshot.last_call.clone()), (KeeperState::Degraded, shown.last_call));
    rig.pass_until_try();
    assert_eq!(rig.tries, ["login", "refresh", "proof", "refresh"], "the old refresh token is good still");
    rig.grants(900.0);
    assert_eq!(rig.snapshot.token.as_ref().unwrap().generation, 1);
}

#[test]
fn a_replacement_waits_for_the_try_under_way_and_for_no_pause_after_a_failure() {
    let mut rig = Rig::new();
    let replacement = rig.proposes(10.0);
    assert_eq!(rig.tries, ["login"]);
    rig.fails(wrong_credentials());
    assert_eq!(
        (rig.state(), rig.tries.as_slice()),
        (KeeperState::CredentialsRejected, ["login", "proof"].as_slice())
    );
    rig.grants(900.0);
    rig.adopts(replacement);
    assert_eq!((rig.state(), rig.adopted(replacement).is_some()), (KeeperState::Fresh, true));
}

#[test]
fn a_refresh_of_the_old_chain_ends_first_and_its_fruit_is_replaced() {
    let mut rig = Rig::with_v2_token(60.0);
    rig.pass_until_try();
    let replacement = rig.proposes(10.0);
    let old = rig.grants(60.0);
    assert_eq!((rig.current(), rig.begun.is_some()), (Some(old), true));
    let new = rig.grants(60.0);
    rig.adopts(replacement);
    assert_eq!((rig.current(), rig.tries.as_slice()), (Some(new), ["login", "refresh", "proof"].as_slice()));
}

#[test]
fn a_replacement_waits_for_a_call_of_the_budget_as_long_as_it_may() {
    let mut rig = Rig::with_token(900.0);
    let patient = rig.proposes(10.0);
    rig.no_turn_for(6.0);
    assert_eq!(rig.conclusion(patient), None);
    assert_eq!(rig.pass_until_try(), secs(6.0));
    rig.no_turn_for(6.0);
    let retry_after = secs(6.0);
    assert_eq!(rig.conclusion(patient), Some(&Err(NotReplaced::BudgetExhausted { retry_after })));
    assert!(rig.pass_until_try() > secs(500.0), "nothing of it is left");
}

#[test]
fn a_replacement_whose_turn_does_not_come_in_time_is_refused() {
    let mut rig = Rig::new();
    let replacement = rig.proposes(10.0);
    rig.pass(9.999);
    assert_eq!(rig.conclusion(replacement), None);
    rig.pass(0.001);
    assert_eq!(rig.conclusion(replacement), Some(&Err(NotReplaced::Busy)));
    rig.grants(900.0);
    assert_eq!(rig.tries, ["login"]);
}

#[test]
fn replacements_are_proved_one_after_the_other() {
    let mut rig = Rig::with_token(900.0);
    let (first, second) = (rig.proposes(10.0), rig.proposes(20.0));
    assert_eq!(rig.tries, ["login", "proof"]);
    rig.fails(lost());
    assert_eq!((rig.conclusion(first).unwrap().is_err(), rig.tries.len()), (true, 3));
    rig.grants(900.0);
    rig.adopts(second);
    assert_eq!(rig.adopted(second).unwrap().generation, 2);
}

#[test]
fn a_replacement_that_nobody_waits_for_is_not_adopted() {
    let mut rig = Rig::with_token(900.0);
    let token = rig.current();
    let (first, second) = (rig.proposes(10.0), rig.proposes(20.0));
    rig.takes_back(second);
    rig.takes_back(first);
    rig.grants(900.0);
    assert_eq!((rig.current(), rig.conclusions.len(), rig.tries.len()), (token, 0, 2));
    assert!(rig.pass_until_try() > secs(500.0), "the schedule goes on");
}

#[test]
fn those_who_wait_get_the_new_token_and_a_failed_proof_is_not_their_failure() {
    let mut rig = Rig::new();
    rig.fails(lost());
    rig.proposes(10.0);
    let waiter = rig.wants(any());
    rig.fails(wrong_credentials());
    assert_eq!(rig.answer(waiter), None, "a try that it is owed has not been made yet");
    let replacement = rig.proposes(10.0);
    let token = rig.grants(900.0);
    rig.adopts(replacement);
    assert_eq!(rig.answer(waiter), Some(&Ok(token)));
}

#[test]
fn bad_replacements_in_a_loop_do_not_keep_a_good_set_from_its_renewal() {
    let mut rig = Rig::with_token(60.0);
    rig.pass_until_try();
    rig.fails(lost());
    while rig.tries.len() < 40 {
        rig.proposes(10.0);
        if rig.begun.is_none() {
            rig.pass_until_try();
        }
        // A call takes longer than the pause after a failure: when it ends, both want the next.
        rig.advance(secs(5.0));
        rig.fails(lost());
    }
    let logins = rig.tries.iter().filter(|kind| **kind == "login").count();
    assert!((18..=22).contains(&logins), "{:?}", rig.tries);
}

#[test]
fn a_report_about_the_old_token_is_settled_by_the_replacement() {
    let mut rig = Rig::with_token(900.0);
    let replacement = rig.proposes(10.0);
    let bad = rig.current();
    let waiter = rig.wants(rig.rejects("a"));
    rig.wants(rig.rejects("b"));
    assert_eq!(rig.current(), bad, "a proof may fail: the token is not withdrawn for it");
    let token = rig.grants(900.0);
    assert_eq!(rig.tries, ["login", "proof", "login"], "what is in force goes on, whatever is held");
    rig.adopts(replacement);
    assert_eq!(rig.answer(waiter), Some(&Ok(token)));
    rig.grants(900.0);
    assert_eq!(rig.current(), Some(token), "what was asked for with the old set is not kept");
    assert!(rig.pass_until_try() > secs(500.0), "nothing is left to ask for");
    assert_eq!(rig.tries.len(), 4);
}

#[test]
fn stopping_answers_replacements_too() {
    let mut rig = Rig::new();
    let replacement = rig.proposes(10.0);
    rig.happens(Event::Stopping);
    assert_eq!(rig.conclusion(replacement), Some(&Err(NotReplaced::ShuttingDown)));
}

// ---- held back

#[test]
fn while_a_token_is_held_back_the_old_set_goes_on_and_no_other_proof_begins() {
    let mut rig = Rig::with_v2_token(60.0);
    let first = rig.proposes(10.0);
    let held = rig.grants(600.0);
    let second = rig.proposes(10.0);
    let renewal = rig.pass_until_try();
    assert!((secs(35.0)..secs(45.0)).contains(&renewal), "{renewal:?}");
    assert_eq!(rig.tries, ["login", "proof", "refresh"]);
    assert_eq!(rig.conclusion(second), Some(&Err(NotReplaced::Busy)));
    let renewed = rig.grants(60.0);
    assert_eq!((rig.current(), rig.snapshot.generation), (Some(renewed), 1));
    rig.adopts(first);
    assert_eq!((rig.current(), rig.snapshot.token.as_ref().unwrap().generation), (Some(held), 2));
    let third = rig.proposes(10.0);
    rig.grants(60.0);
    assert!(rig.conclusion(third).unwrap().is_ok());
}

#[test]
fn a_refresh_of_the_old_chain_that_ends_after_the_adoption_is_for_nothing() {
    for ends in [
        |rig: &mut Rig| {
            rig.grants(900.0);
        },
        |rig: &mut Rig| rig.fails(wrong_credentials()),
        |rig: &mut Rig| rig.no_turn_for(100.0),
    ] {
        let mut rig = Rig::with_v2_token(60.0);
        let replacement = rig.proposes(10.0);
        let held = rig.grants(600.0);
        rig.pass_until_try();
        let waiter = rig.wants(Want { min_validity: secs(100.0), ..any() });
        assert_eq!(rig.tries, ["login", "proof", "refresh"]);
        rig.adopts(replacement);
        assert_eq!(rig.current(), Some(held));
        ends(&mut rig);
        assert_eq!((rig.current(), rig.state()), (Some(held), KeeperState::Fresh));
        assert_eq!(rig.core.refresh.as_ref().map(|token| token.expires_at > rig.now.boot), Some(true));
        assert!(rig.pass_until_try() > secs(300.0), "what is due is due by the new token");
        assert!(rig.answer(waiter).is_some());
    }
}

#[test]
fn what_was_proved_and_is_taken_back_leaves_everything_as_it_was() {
    let mut rig = Rig::with_v2_token(900.0);
    let (token, wakes, shown) = (rig.current(), rig.core.wake_at(rig.now.boot), rig.snapshot.clone());
    let replacement = rig.proposes(20.0);
    rig.grants(60.0);
    rig.takes_back(replacement);
    assert!(rig.core.replacing.held_token().is_none());
    assert_eq!((rig.current(), rig.core.wake_at(rig.now.boot)), (token, wakes));
    assert_eq!((rig.snapshot.generation, rig.snapshot.last_call.clone()), (1, shown.last_call));
    rig.adopts(replacement);
    assert_eq!((rig.current(), rig.adopted(replacement)), (token, None), "nobody can adopt it now");
    rig.pass_until_try();
    assert_eq!(rig.tries, ["login", "proof", "refresh"]);
}

#[test]
fn what_is_held_back_for_longer_than_it_lives_is_replaced_at_once() {
    let mut rig = Rig::with_token(900.0);
    let replacement = rig.proposes(10.0);
    rig.grants(20.0);
    rig.advance(secs(30.0));
    rig.adopts(replacement);
    assert_eq!((rig.current(), rig.tries.as_slice()), (None, ["login", "proof", "login"].as_slice()));
    rig.grants(900.0);
    assert_eq!(rig.snapshot.token.as_ref().unwrap().generation, 2);
}

#[test]
fn a_keeper_that_stops_adopts_what_is_held_and_begins_nothing() {
    let mut rig = Rig::with_token(900.0);
    let replacement = rig.proposes(10.0);
    let held = rig.grants(900.0);
    rig.happens(Event::Stopping);
    rig.adopts(replacement);
    assert_eq!((rig.current(), rig.tries.len()), (Some(held), 2));
}

// ---- lockdown

#[test]
fn a_replacement_under_lockdown_is_proved_and_its_token_is_not_kept() {
    let mut rig = Rig::with_v2_token(900.0);
    rig.locks(&Scope::Everyone);
    let replacement = rig.proposes(10.0);
    rig.grants(900.0);
    assert!(rig.core.replacing.held_token().is_none());
    rig.adopts(replacement);
    assert_eq!(rig.adopted(replacement).unwrap().generation, 2);
    assert!(rig.snapshot.token.is_none() && rig.core.hand.is_none() && rig.core.refresh.is_none());
    assert_eq!((rig.state(), rig.snapshot.generation), (KeeperState::LockedDown, 2));
    rig.unlocks(&Scope::Everyone);
    rig.grants(900.0);
    assert_eq!(
        (rig.state(), rig.tries.as_slice()),
        (KeeperState::Fresh, ["login", "proof", "login"].as_slice())
    );
}

#[test]
fn a_proof_that_a_lockdown_overtakes_counts_but_its_token_is_not_kept() {
    let mut rig = Rig::with_token(900.0);
    let replacement = rig.proposes(10.0);
    rig.locks(&Scope::Everyone);
    // Even where the lock is gone by then: it was asked for before.
    rig.unlocks(&Scope::Everyone);
    rig.grants(900.0);
    assert!(rig.conclusion(replacement).unwrap().is_ok() && rig.core.replacing.held_token().is_none());
    rig.adopts(replacement);
    assert_eq!((rig.adopted(replacement).unwrap().generation, rig.snapshot.token.is_none()), (2, true));
    rig.fails(lost());
    assert_eq!(
        rig.tries.last(),
        Some(&"login"),
        "the old set's login ended for nothing, and the new set's is made"
    );
}

#[test]
fn a_lockdown_takes_the_token_that_is_held_back_and_leaves_the_proof() {
    let mut rig = Rig::with_v2_token(900.0);
    let replacement = rig.proposes(10.0);
    rig.grants(900.0);
    rig.locks(&Scope::Everyone);
    assert!(rig.core.replacing.held_token().is_none());
    rig.adopts(replacement);
    assert_eq!((rig.state(), rig.snapshot.generation), (KeeperState::LockedDown, 2));
    assert!(rig.snapshot.token.is_none() && rig.core.hand.is_none());
    rig.unlocks(&Scope::Everyone);
    rig.grants(900.0);
    assert_eq!(rig.snapshot.token.as_ref().unwrap().generation, 2);
    assert_eq!(rig.tries, ["login", "proof", "login"]);
}

#[test]
fn the_old_sets_token_of_after_an_unlock_is_not_kept_beside_new_credentials() {
    let mut rig = Rig::with_token(900.0);
    let replacement = rig.proposes(10.0);
    rig.grants(900.0);
    rig.locks(&Scope::Everyone);
    rig.unlocks(&Scope::Everyone);
    let old = rig.grants(900.0);
    assert_eq!(rig.current(), Some(old));
    rig.adopts(replacement);
    assert_eq!((rig.current(), rig.tries.len()), (None, 4));
    rig.grants(900.0);
    assert_eq!(rig.snapshot.token.as_ref().unwrap().generation, 2);
}
