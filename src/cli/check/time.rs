//! Whether the host's clock can be believed. The broker decides by a clock that nobody sets; but certificates' dates, the age
//! of callbacks and every time that it shows are the wall clock's.

use nix::{errno::Errno, libc};

use super::report::Report;

/// Asks the kernel whether somebody keeps its clock in step.
pub(super) fn clock(report: &mut Report) {
    report.section("Clock");
    match is_synchronised() {
        Ok(true) => report.ok("synchronised"),
        Ok(false) => report.warning(
            "not synchronised, as far as the kernel knows: certificates' dates, the age of callbacks (max_age) and the times that \
             are shown may be wrong; have chrony or systemd-timesyncd run, and see timedatectl",
        ),
        // A container that may not even ask.
        Err(errno) => report.note(format!("can't be asked whether it is synchronised: {}", errno.desc())),
    }
}

#[expect(unsafe_code, reason = "no crate here wraps adjtimex")]
fn is_synchronised() -> Result<bool, Errno> {
    // SAFETY: the structure is plain numbers, for which zero is a value, and with `modes` zero the call only fills it in.
    let (state, told) = unsafe {
        let mut told: libc::timex = std::mem::zeroed();
        (Errno::result(libc::adjtimex(&raw mut told))?, told)
    };
    Ok(state != libc::TIME_ERROR && told.status & libc::STA_UNSYNC == 0)
}
