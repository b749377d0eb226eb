//! systemd, or whoever speaks as it does: the sockets that it hands over, and what it is told.
//!
//! Where there is none, nothing is handed over and telling does nothing. Sources: `sd_listen_fds(3)`, `sd_notify(3)`.

use std::{
    io,
    os::fd::{FromRawFd, OwnedFd},
    time::Duration,
};

use sd_notify::NotifyState;

/// Sockets that were open before this process began, and their names.
#[derive(Default)]
pub struct HandedOver(Vec<(String, OwnedFd)>);

impl HandedOver {
    /// Takes what the service manager handed over.
    ///
    /// # Errors
    /// The environment speaks of sockets that there aren't.
    ///
    /// # Safety
    /// Once in a process, and before it opens anything: the descriptors are those that follow stderr, and nobody else may
    /// own them.
    #[expect(unsafe_code, reason = "only the environment tells that these descriptors are ours")]
    pub unsafe fn take_from_environment() -> io::Result<Self> {
        let sockets = sd_notify::listen_fds_with_names()?;
        // SAFETY: whoever calls this vouches for it, and `sd_notify` has found each of them open.
        Ok(Self(sockets.map(|(fd, name)| (name, unsafe { OwnedFd::from_raw_fd(fd) })).collect()))
    }

    /// Takes all of this name out.
    pub fn take(&mut self, name: &str) -> Vec<OwnedFd> {
        let all = std::mem::take(&mut self.0);
        let (taken, left): (Vec<_>, Vec<_>) = all.into_iter().partition(|(own, _)| own == name);
        self.0 = left;
        taken.into_iter().map(|(_, socket)| socket).collect()
    }

    /// The names of those that nobody has taken, each once.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = self.0.iter().map(|(name, _)| name.clone()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

/// Something to tell the service manager.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Notice {
    /// The service does what it is for.
    Ready,
    /// How it is, in one line for a person.
    Status(String),
    /// It is alive.
    Alive,
    /// It ends, and needs this long for it.
    Stopping(Duration),
}

/// Whom to tell. A trait, so that a test can listen.
pub trait ServiceManager: Send + Sync + 'static {
    /// Tells it. May block while the service manager is busy.
    fn tell(&self, notices: &[Notice]);

    /// The time within which it wants to be told that the service is alive, if it does.
    fn watchdog(&self) -> Option<Duration>;
}

/// The one that the environment names.
#[derive(Clone, Copy, Debug, Default)]
pub struct FromEnvironment;

impl ServiceManager for FromEnvironment {
    fn tell(&self, notices: &[Notice]) {
        let states: Vec<_> = notices.iter().flat_map(states).collect();
        if let Err(error) = sd_notify::notify(&states) {
            tracing::warn!(%error, "can't tell the service manager how the service is: it may take it for hung and restart it");
        }
    }

    fn watchdog(&self) -> Option<Duration> {
        sd_notify::watchdog_enabled()
    }
}

impl Notice {
    /// How the service is. What would end the line, and begin a notice of its own, becomes a space.
    pub fn status(line: &str) -> Self {
        Self::Status(line.replace(char::is_control, " "))
    }
}

fn states(notice: &Notice) -> Vec<NotifyState<'_>> {
    match notice {
        Notice::Ready => vec![NotifyState::Ready],
        Notice::Status(line) => vec![NotifyState::Status(line)],
        Notice::Alive => vec![NotifyState::Watchdog],
        Notice::Stopping(within) => {
            let micros = u32::try_from(within.as_micros()).unwrap_or(u32::MAX);
            vec![NotifyState::Stopping, NotifyState::ExtendTimeoutUsec(micros)]
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;

    fn socket() -> OwnedFd {
        UnixDatagram::unbound().unwrap().into()
    }

    #[test]
    fn sockets_are_taken_by_their_name() {
        let mut all = HandedOver(["a", "b", "a"].map(|name| (name.to_owned(), socket())).into());
        assert_eq!(all.names(), ["a", "b"]);
        assert_eq!(all.take("a").len(), 2);
        assert_eq!(all.take("a").len(), 0);
        assert_eq!(all.names(), ["b"]);
    }

    #[test]
    fn a_status_is_one_line_and_no_notice_of_another_kind() {
        assert_eq!(
            Notice::status("EXPIRED: said\nREADY=1\r"),
            Notice::Status("EXPIRED: said READY=1 ".into())
        );
    }

    #[test]
    fn notices_are_what_systemd_reads() {
        let said = |notice| states(&notice).iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        assert_eq!(said(Notice::Ready), "READY=1");
        assert_eq!(said(Notice::Alive), "WATCHDOG=1");
        assert_eq!(said(Notice::Status("FRESH".into())), "STATUS=FRESH");
        assert_eq!(
            said(Notice::Stopping(Duration::from_secs(11))),
            "STOPPING=1 EXTEND_TIMEOUT_USEC=11000000"
        );
    }
}
