//! `demo --tour`, as somebody sees it who has never seen the product.

use std::process::Command;

#[test]
fn the_tour_shows_a_token_its_rotation_and_callbacks_and_leaves_nothing_behind() {
    for api in ["v2", "v3"] {
        let temporary = tempfile::tempdir().unwrap();
        let tour = Command::new(env!("CARGO_BIN_EXE_b2binpay-broker"))
            .args(["demo", "--tour", "--api", api])
            .env("TMPDIR", temporary.path())
            .output()
            .unwrap();
        let (shown, complaints) =
            (String::from_utf8_lossy(&tour.stdout), String::from_utf8_lossy(&tour.stderr));
        assert!(tour.status.success(), "{api}: {shown}\n{complaints}");
        let mut rest = &*shown;
        for expected in
            ["$ b2binpay-broker token", "CURRENT", "ROTATED", "VALID", "INVALID", "UNSIGNED", "FRESH"]
        {
            rest = rest
                .split_once(expected)
                .unwrap_or_else(|| panic!("{api}: no {expected} in its place: {shown}"))
                .1;
        }
        assert_eq!(complaints, "");
        assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 0);
    }
}
