//! Lockdown on a disk that takes its time, and what that changes: nothing but what is said.

use std::{
    sync::{Arc, Mutex, mpsc},
    time::Duration,
};

use super::test_broker::{KNOWN, broker_with, peer};
use crate::{
    clock::{Clock, SystemClock},
    lockdown::{LockRecord, Locks, NotWritten, Scope},
};

/// A disk on which each write waits until it is let through.
struct DeadDisk {
    gate: Mutex<mpsc::Receiver<()>>,
    written: Mutex<Vec<Locks>>,
}

impl LockRecord for DeadDisk {
    fn write(&self, locks: &Locks) -> Result<(), NotWritten> {
        // Ends with its sender, too, so that no test hangs.
        let _ = self.gate.lock().unwrap().recv();
        self.written.lock().unwrap().push(locks.clone());
        Ok(())
    }
}

#[tokio::test]
async fn a_dead_disk_delays_neither_the_lock_nor_the_answer() {
    let (open, gate) = mpsc::channel();
    let disk = Arc::new(DeadDisk { gate: Mutex::new(gate), written: Mutex::default() });
    let broker = broker_with(Arc::clone(&disk) as Arc<dyn LockRecord>);
    tokio::spawn(Arc::clone(&broker).keep_lock_record());
    let (name, peer) = ("known".parse().unwrap(), peer(KNOWN));

    let began = SystemClock.now().boot;
    let done = broker.lockdown(Scope::Everyone, "why".parse().unwrap(), (&name, &peer)).await.unwrap();
    let took = SystemClock.now().boot.saturating_since(began);
    println!("the answer took {took:?}");
    assert!(took < Duration::from_millis(500), "{took:?}");
    assert!(done.problem.unwrap().to_string().contains("has not taken it yet"));
    assert!(broker.locked_out(&name).is_some() && broker.watch(&name, Arc::clone(&peer)).is_err());
    // Another lock, while the disk still has the first.
    let one = Scope::Caller(name.clone());
    assert!(broker.lockdown(one, "why".parse().unwrap(), (&name, &peer)).await.unwrap().problem.is_some());
    assert!(broker.status().locks_problem.is_some());

    // What it takes in the end is how things are then.
    open.send(()).unwrap();
    open.send(()).unwrap();
    while broker.status().locks_problem.is_some() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(disk.written.lock().unwrap().last(), Some(&*broker.locks()));
    assert_eq!(broker.locks().all().len(), 2);
    drop(open);
    // Who is locked out by name lifts none.
    assert!(broker.unlock(Scope::Everyone, (&name, &peer)).await.is_err());
    let other = "other".parse().unwrap();
    assert!(broker.unlock(Scope::Everyone, (&other, &peer)).await.unwrap().problem.is_none());
}
