//! What the service manager hears: that the broker is ready, how it is, that it is alive.
//!
//! Ready is who listens and has a token. A broker that gets none, because the upstream is down at boot, counts as started
//! after a while all the same: it serves `VerifySign`, tells callers what is wrong, and gets well by itself, which a restart
//! would only delay.

use std::{sync::Arc, time::Duration};

use crate::{
    broker::Broker,
    clock::{BootInstant, Clock, sleep_until},
    keeper::TokenKeeper,
    service_manager::{Notice, ServiceManager},
};

/// How long a start may wait for the first token. Two tries at the least, and what waits for this service at boot goes on.
const FIRST_TOKEN_WITHIN: Duration = Duration::from_secs(10);

/// Tells `manager` when the broker is ready, and how it is whenever that changes. Never returns.
pub(super) async fn report(broker: Arc<Broker>, manager: Arc<dyn ServiceManager>, clock: Arc<dyn Clock>) {
    let patience_ends = clock.now().boot + FIRST_TOKEN_WITHIN;
    let mut changes = broker.changes();
    let (mut started, mut told) = (false, String::new());
    loop {
        changes.mark_unchanged();
        let (ready, until) = broker.readiness();
        let mut notices = Vec::new();
        // Who is locked out gets no token, however long it waits.
        let enough = ready || broker.locks().on_everyone().is_some() || clock.now().boot >= patience_ends;
        if enough && !std::mem::replace(&mut started, true) {
            notices.push(Notice::Ready);
        }
        let line = broker.status().line();
        if line != told {
            notices.push(Notice::status(&line));
            told = line;
        }
        tell(&manager, notices).await;
        let lapses =
            [until.map(|until| until + Duration::from_nanos(1)), (!started).then_some(patience_ends)];
        tokio::select! {
            gone = changes.changed() => if gone.is_err() { std::future::pending().await },
            () = at(lapses.into_iter().flatten().min(), &*clock) => {}
        }
    }
}

async fn at(instant: Option<BootInstant>, clock: &dyn Clock) {
    match instant {
        Some(instant) => sleep_until(clock, instant).await,
        None => std::future::pending().await,
    }
}

/// Tells `manager` that the broker is alive as long as its keeper takes its turns; who serves a token that nobody renews is
/// not. `within` is how often the service manager wants to hear it. Never returns.
pub(super) async fn feed(
    keeper: TokenKeeper,
    within: Duration,
    manager: Arc<dyn ServiceManager>,
    clock: Arc<dyn Clock>,
) {
    // Often enough that one notice may come late.
    let mut often = tokio::time::interval(within / 4);
    // A keeper that is well rests a second.
    let fresh = (within / 2).max(Duration::from_secs(2));
    let mut late = false;
    loop {
        often.tick().await;
        let rested = clock.now().boot.saturating_since(keeper.last_turn());
        if rested < fresh {
            late = false;
            tell(&manager, vec![Notice::Alive]).await;
        } else if !std::mem::replace(&mut late, true) {
            // After a suspend it is late, too, and well again at once.
            tracing::error!(
                since = ?rested,
                "the keeper of the token takes no turns: the service manager is not told that the service is alive, and \
                 restarts it"
            );
        }
    }
}

/// The socket of a service manager that is busy blocks.
pub(super) async fn tell(manager: &Arc<dyn ServiceManager>, notices: Vec<Notice>) {
    if notices.is_empty() {
        return;
    }
    let manager = Arc::clone(manager);
    // It can't be cancelled and doesn't panic.
    let _ = tokio::task::spawn_blocking(move || manager.tell(&notices)).await;
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, mpsc as threads};

    use tokio::sync::mpsc;

    use super::*;
    use crate::{
        budget::{CallBudget, CallLimit, CallRecord, History, PastCall, RecordUnusable},
        clock::{Now, SystemClock},
        issuer::{Answer, TokenIssuer},
        keeper::{self, KeeperSetup, TokenSettings},
        token::RefreshToken,
    };

    /// Long enough for a keeper that turns each second to be in time.
    const WITHIN: Duration = Duration::from_secs(4);

    struct Hears(mpsc::UnboundedSender<Notice>);

    impl ServiceManager for Hears {
        fn tell(&self, notices: &[Notice]) {
            for notice in notices {
                self.0.send(notice.clone()).unwrap();
            }
        }

        fn watchdog(&self) -> Option<Duration> {
            Some(WITHIN)
        }
    }

    /// Holds whoever asks it in place, the thread and all, as a mistake of ours would, until it is told to let go.
    struct Wedge {
        asked: mpsc::UnboundedSender<()>,
        let_go: Mutex<threads::Receiver<()>>,
    }

    impl TokenIssuer for Wedge {
        fn fetch_token(&self, _: Duration) -> Answer<'_> {
            Box::pin(async {
                let _ = self.asked.send(());
                let _ = self.let_go.lock().unwrap().recv();
                std::future::pending().await
            })
        }

        fn refresh_token<'a>(&'a self, _: &'a RefreshToken, timeout: Duration) -> Answer<'a> {
            self.fetch_token(timeout)
        }
    }

    struct Forgetful;

    impl CallRecord for Forgetful {
        fn update(
            &self,
            clock: &dyn Clock,
            decide: &mut dyn FnMut(History, Now) -> Option<Vec<PastCall>>,
        ) -> Result<(), RecordUnusable> {
            decide(History::Kept(Vec::new()), clock.now());
            Ok(())
        }
    }

    fn keeper(issuer: Arc<dyn TokenIssuer>) -> (TokenKeeper, impl Future<Output = ()>) {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let setup = KeeperSetup {
            settings: TokenSettings {
                refresh_at: 0.67,
                min_validity: Duration::from_secs(10),
                request_timeout: Duration::from_secs(10),
            },
            issuer,
            budget: CallBudget::new(CallLimit::B2BINPAY, Arc::new(Forgetful), Arc::clone(&clock)),
            clock,
            locks: Arc::default(),
            seed: 1,
        };
        let (keeper, _alarms, task) = keeper::run(setup, std::future::pending());
        (keeper, task)
    }

    async fn fed(heard: &mut mpsc::UnboundedReceiver<Notice>) -> Option<Notice> {
        tokio::time::timeout(WITHIN, heard.recv()).await.ok().flatten()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_keeper_that_is_wedged_is_not_reported_alive_though_all_else_runs() {
        let (asked, mut is_asked) = mpsc::unbounded_channel();
        let (let_go, held) = threads::channel();
        let (keeper, task) = keeper(Arc::new(Wedge { asked, let_go: Mutex::new(held) }));
        let (teller, mut heard) = mpsc::unbounded_channel();
        tokio::spawn(feed(keeper.clone(), WITHIN, Arc::new(Hears(teller)), Arc::new(SystemClock)));
        tokio::spawn(task);
        is_asked.recv().await.unwrap();
        // What was told while it could still take a turn.
        let half_way = keeper.last_turn() + WITHIN / 2 + WITHIN / 8;
        sleep_until(&SystemClock, half_way).await;
        while heard.try_recv().is_ok() {}
        assert_eq!(fed(&mut heard).await, None);
        let_go.send(()).unwrap();
        assert_eq!(fed(&mut heard).await, Some(Notice::Alive));
        drop(let_go);
    }

    /// Leaves whoever asks it waiting.
    struct Silent;

    impl TokenIssuer for Silent {
        fn fetch_token(&self, _: Duration) -> Answer<'_> {
            Box::pin(std::future::pending())
        }

        fn refresh_token<'a>(&'a self, _: &'a RefreshToken, timeout: Duration) -> Answer<'a> {
            self.fetch_token(timeout)
        }
    }

    #[tokio::test]
    async fn a_keeper_that_only_waits_for_the_upstream_is_alive() {
        let (keeper, task) = keeper(Arc::new(Silent));
        let (teller, mut heard) = mpsc::unbounded_channel();
        let began = keeper.last_turn();
        tokio::spawn(feed(keeper, WITHIN, Arc::new(Hears(teller)), Arc::new(SystemClock)));
        tokio::spawn(task);
        sleep_until(&SystemClock, began + WITHIN / 2).await;
        while heard.try_recv().is_ok() {}
        assert_eq!(fed(&mut heard).await, Some(Notice::Alive));
    }
}
