//! Tables: many cases of one test, several at a time, and all that failed are told.

use std::sync::Arc;

use tokio::{sync::Semaphore, task::JoinSet};

/// How many daemons run at a time. Most of them wait most of the time; with more, the simulators of a busy machine answer
/// later than the daemons wait, and a case shows that instead of its own fault.
const AT_A_TIME: usize = 16;

/// Runs every case, and fails with the names of those that did.
pub async fn all_pass<F>(cases: impl IntoIterator<Item = (String, F)>)
where
    F: Future<Output = ()> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(AT_A_TIME));
    let mut running = JoinSet::new();
    for (name, case) in cases {
        let places = Arc::clone(&places);
        running.spawn(async move {
            let _place = places.acquire_owned().await.expect("it is never closed");
            // A task of its own, so that its panic is this case's alone.
            let failed = tokio::spawn(case).await.is_err();
            failed.then_some(name)
        });
    }
    let total = running.len();
    assert!(total > 0, "an empty table tests nothing");
    let failed: Vec<_> = running.join_all().await.into_iter().flatten().collect();
    assert!(failed.is_empty(), "{} of {total} failed: {failed:#?}", failed.len());
}
