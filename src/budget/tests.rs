//! The budget on a record in memory. It is driven over the real one, against everything, in `crate::state`.

use std::sync::atomic::AtomicU64;

use jiff::Timestamp;

use super::{Purpose::*, *};
use crate::clock::{SystemClock, sleep_until};

/// A clock that only moves when told.
#[derive(Default)]
struct TestClock {
    boot_ns: AtomicU64,
}

impl TestClock {
    fn advance(&self, by: Duration) {
        self.boot_ns.fetch_add(u64::try_from(by.as_nanos()).unwrap(), Ordering::Relaxed);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Now {
        let boot = Duration::from_nanos(self.boot_ns.load(Ordering::Relaxed));
        Now { boot: BootInstant::since_boot(boot), wall: Timestamp::UNIX_EPOCH + boot }
    }
}

/// A record in memory that can fail.
struct TestRecord {
    history: Mutex<History>,
    failing: AtomicBool,
}

impl TestRecord {
    fn new(history: History) -> Arc<Self> {
        Arc::new(Self { history: Mutex::new(history), failing: AtomicBool::new(false) })
    }
}

impl CallRecord for TestRecord {
    fn update(
        &self,
        clock: &dyn Clock,
        decide: &mut dyn FnMut(History, Now) -> Option<Vec<PastCall>>,
    ) -> Result<(), RecordUnusable> {
        if self.failing.load(Ordering::Relaxed) {
            return Err(RecordUnusable("no space left on device".into()));
        }
        let mut history = self.history.lock().unwrap();
        if let Some(calls) = decide(history.clone(), clock.now()) {
            *history = History::Kept(calls);
        }
        Ok(())
    }
}

fn budget(record: &Arc<TestRecord>, clock: &Arc<TestClock>) -> Arc<CallBudget> {
    CallBudget::new(CallLimit::B2BINPAY, Arc::clone(record) as _, Arc::clone(clock) as _)
}

fn world(history: History) -> (Arc<TestRecord>, Arc<TestClock>) {
    let clock = Arc::new(TestClock::default());
    clock.advance(Duration::from_secs(1000));
    (TestRecord::new(history), clock)
}

/// Takes until refused; how many were granted.
async fn drain(budget: &CallBudget) -> u32 {
    let mut granted = 0;
    while budget.take(Schedule).await == Turn::Granted {
        granted += 1;
    }
    granted
}

#[tokio::test]
async fn a_known_empty_past_allows_the_burst() {
    let (record, clock) = world(History::Kept(vec![]));
    assert_eq!(drain(&budget(&record, &clock)).await, 4);
}

#[tokio::test]
async fn without_a_record_one_call_is_allowed_and_then_one_each_six_seconds() {
    let (record, clock) = world(History::Missing);
    let budget = budget(&record, &clock);
    assert_eq!(drain(&budget).await, 1);
    clock.advance(Duration::from_secs(6));
    assert_eq!(drain(&budget).await, 1);
    clock.advance(Duration::from_millis(5999));
    assert_eq!(drain(&budget).await, 0);
}

#[tokio::test]
async fn a_senseless_record_means_an_empty_bucket() {
    let (record, clock) = world(History::Senseless("bad sum".into()));
    let budget = budget(&record, &clock);
    assert_eq!(budget.take(Schedule).await, Turn::NotBefore(clock.now().boot + Duration::from_secs(6)));
    clock.advance(Duration::from_secs(6));
    assert_eq!(drain(&budget).await, 1);
}

#[tokio::test]
async fn a_restarted_process_knows_what_its_predecessor_spent() {
    let (record, clock) = world(History::Kept(vec![]));
    assert_eq!(drain(&budget(&record, &clock)).await, 4);
    assert_eq!(drain(&budget(&record, &clock)).await, 0);
}

#[tokio::test]
async fn an_unwritable_record_ends_the_burst_but_not_the_service() {
    let (record, clock) = world(History::Kept(vec![]));
    let budget = budget(&record, &clock);
    record.failing.store(true, Ordering::Relaxed);
    assert_eq!(drain(&budget).await, 0, "others may have spent the burst");
    assert_eq!(budget.usage().problem.as_deref(), Some("no space left on device"));
    clock.advance(Duration::from_secs(6));
    assert_eq!(drain(&budget).await, 1);
    record.failing.store(false, Ordering::Relaxed);
    clock.advance(Duration::from_secs(6));
    assert_eq!(budget.take(Schedule).await, Turn::Granted);
    assert_eq!(budget.usage().problem, None);
}

#[tokio::test]
async fn what_was_spent_while_the_record_failed_is_written_down_when_it_works_again() {
    let (record, clock) = world(History::Kept(vec![]));
    let first = budget(&record, &clock);
    record.failing.store(true, Ordering::Relaxed);
    drain(&first).await;
    for _ in 0..3 {
        clock.advance(Duration::from_secs(6));
        assert_eq!(drain(&first).await, 1);
    }
    record.failing.store(false, Ordering::Relaxed);
    let _ = first.take(Schedule).await;
    let History::Kept(calls) = record.history.lock().unwrap().clone() else { panic!("no history") };
    assert!(calls.iter().filter(|call| !call.assumed).count() >= 3, "{calls:?}");
}

#[tokio::test]
async fn usage_tells_what_is_used_and_left() {
    let (record, clock) = world(History::Kept(vec![]));
    let budget = budget(&record, &clock);
    let _ = budget.take(Schedule).await;
    let usage = budget.usage();
    assert_eq!((usage.used, usage.available), (1, 3));
    clock.advance(Duration::from_secs(61));
    let usage = budget.usage();
    assert_eq!((usage.used, usage.available), (0, 4));
}

/// A disk that makes every look at the record wait.
struct SlowRecord<W> {
    record: Arc<TestRecord>,
    wait: W,
}

impl<W: Fn() + Send + Sync + 'static> CallRecord for SlowRecord<W> {
    fn update(
        &self,
        clock: &dyn Clock,
        decide: &mut dyn FnMut(History, Now) -> Option<Vec<PastCall>>,
    ) -> Result<(), RecordUnusable> {
        let done = self.record.update(clock, decide);
        (self.wait)();
        done
    }
}

/// Has three calls made by the real clock, with a disk of which only milliseconds are awaited. At most 20 times is asked:
/// a budget that never gives anything fails here.
async fn three_calls_on(disk_comes_back: bool, wait: impl Fn() + Send + Sync + 'static) -> Arc<CallBudget> {
    let record = Arc::new(SlowRecord { record: TestRecord::new(History::Kept(vec![])), wait });
    let budget = Arc::new(CallBudget {
        // One call each 171 ms: longer than the disk takes, so that no try finds it busy.
        limit: CallLimit::new(100, Duration::from_secs(1)).unwrap(),
        record,
        clock: Arc::new(SystemClock),
        patience: Duration::from_millis(30),
        oldest_turn: Duration::from_millis(30),
        memory: Mutex::default(),
        one_at_a_time: tokio::sync::Mutex::default(),
        record_busy: Arc::default(),
    });
    let mut granted = 0;
    for _ in 0..20 {
        match budget.take(Schedule).await {
            Turn::Granted => granted += 1,
            Turn::NotBefore(at) => sleep_until(&SystemClock, at).await,
        }
        if granted == 3 {
            return budget;
        }
        while disk_comes_back && budget.is_held_up() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    panic!("{granted} calls in 20 tries");
}

#[tokio::test]
async fn a_disk_that_is_always_too_slow_ends_the_burst_but_not_the_service() {
    let budget = three_calls_on(true, || std::thread::sleep(Duration::from_millis(90))).await;
    assert!(budget.usage().problem.unwrap().contains("took longer"), "{:?}", budget.usage());
}

#[tokio::test]
async fn a_disk_that_hangs_ends_the_burst_but_not_the_service() {
    let (release, hung) = std::sync::mpsc::channel::<()>();
    let hung = Mutex::new(hung);
    let budget = three_calls_on(false, move || {
        let _ = hung.lock().unwrap().recv();
    })
    .await;
    assert!(budget.usage().problem.unwrap().contains("not finished"), "{:?}", budget.usage());
    // The runtime waits for its threads.
    drop(release);
}

/// The most calls that any span of this length holds, in any alignment, its ends included.
fn most_within(span: Duration, times: &[Duration]) -> usize {
    let mut first = 0;
    let held = times.iter().enumerate().map(|(last, time)| {
        while times[first] + span < *time {
            first += 1;
        }
        last - first + 1
    });
    held.max().unwrap_or(0)
}

#[tokio::test]
async fn whatever_the_limit_the_greediest_client_keeps_it_with_one_in_reserve() {
    for (requests, seconds) in
        [(3, 60), (15, 60), (30, 60), (60, 60), (100, 60), (200, 60), (1000, 60), (1000, 1), (100, 1)]
    {
        let window = Duration::from_secs(seconds);
        let limit = CallLimit::new(requests, window).unwrap();
        let (record, clock) = world(History::Kept(vec![]));
        let budget = CallBudget::new(limit, Arc::clone(&record) as _, Arc::clone(&clock) as _);
        let mut made = Vec::new();
        let rest_at = clock.now().boot + limit.window() * 2 + LATEST_ARRIVAL;
        let (mut end, mut rested) = (rest_at, false);
        loop {
            match budget.take(Schedule).await {
                Turn::Granted => made.push(clock.now().boot.as_duration()),
                Turn::NotBefore(at) => clock.advance(at.saturating_since(clock.now().boot)),
            }
            if clock.now().boot > end {
                if rested {
                    break;
                }
                // A full bucket, and the burst again.
                clock.advance(window / 2);
                (end, rested) = (clock.now().boot + window, true);
            }
        }
        let (most, late) = (most_within(window, &made), most_within(window + LATEST_ARRIVAL, &made));
        println!("{requests} in {window:?}: {} made, at most {most}, {late} with late ones", made.len());
        assert!(most < requests as usize, "{requests} in {window:?}: {most}");
        assert!(late <= requests as usize, "{requests} in {window:?}: {late} can arrive");
        assert!(
            late + 1 >= requests as usize * 9 / 10,
            "{requests} in {window:?}: only {late}, and it should be greedy"
        );
        let History::Kept(calls) = record.history.lock().unwrap().clone() else { panic!("no history") };
        assert!(calls.len() <= requests as usize, "{requests} in {window:?}: {} kept", calls.len());
    }
}

/// Tokens of 12 s, renewed each 8 s, and callers who always want more: together more than the pace.
#[tokio::test]
async fn callers_never_keep_the_schedule_waiting_and_get_what_it_leaves() {
    let (record, clock) = world(History::Kept(vec![]));
    let budget = budget(&record, &clock);
    let (mut for_schedule, mut for_callers) = (0, 0);
    for second in 0..3600 {
        if second % 8 == 0 {
            assert_eq!(budget.take(Schedule).await, Turn::Granted, "after {second} s");
            for_schedule += 1;
        }
        if budget.take(Callers).await == Turn::Granted {
            for_callers += 1;
        }
        clock.advance(Duration::from_secs(1));
    }
    // The pace lets 600 through in an hour.
    assert_eq!(for_schedule, 450);
    assert!(for_callers >= 150, "{for_callers}");
}
