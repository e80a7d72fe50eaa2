//! What a barrier promises.

use super::{std, util};
use ::std::panic::{RefUnwindSafe, UnwindSafe};
use ::std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;
use util::everywhere;

#[test]
fn all_wait_for_the_last_and_one_leads() {
    everywhere(|| {
        const SIZE: usize = 10;
        let barrier = Arc::new(Barrier::new(SIZE));
        let passed = Arc::new(AtomicUsize::new(0));
        let others: Vec<_> = (1..SIZE)
            .map(|_| {
                let (barrier, passed) = (Arc::clone(&barrier), Arc::clone(&passed));
                thread::spawn(move || {
                    let leads = barrier.wait().is_leader();
                    passed.fetch_add(1, SeqCst);
                    leads
                })
            })
            .collect();
        thread::sleep(Duration::from_millis(10));
        assert_eq!(passed.load(SeqCst), 0);
        let leads = barrier.wait().is_leader();
        let leaders = others.into_iter().map(|other| other.join().unwrap());
        assert_eq!(
            leaders.filter(|&leads| leads).count() + usize::from(leads),
            1
        );
    });
}

#[test]
fn it_can_be_used_again_and_again() {
    everywhere(|| {
        const SIZE: usize = 4;
        const ROUNDS: usize = 50;
        let barrier = Arc::new(Barrier::new(SIZE));
        let arrived = Arc::new(AtomicUsize::new(0));
        let walkers: Vec<_> = (0..SIZE)
            .map(|_| {
                let (barrier, arrived) = (Arc::clone(&barrier), Arc::clone(&arrived));
                thread::spawn(move || {
                    let mut led = 0;
                    for round in 1..=ROUNDS {
                        arrived.fetch_add(1, SeqCst);
                        led += usize::from(barrier.wait().is_leader());
                        let now = arrived.load(SeqCst);
                        assert!(now >= round * SIZE && now < (round + 1) * SIZE);
                        led += usize::from(barrier.wait().is_leader());
                    }
                    led
                })
            })
            .collect();
        let led: usize = walkers
            .into_iter()
            .map(|walker| walker.join().unwrap())
            .sum();
        assert_eq!(led, 2 * ROUNDS);
    });
}

#[test]
fn a_barrier_of_one_or_zero_does_not_wait() {
    static BARRIER: Barrier = Barrier::new(1);
    everywhere(|| {
        assert!(BARRIER.wait().is_leader());
        assert!(Barrier::new(0).wait().is_leader());
    });
}

#[test]
fn how_it_looks() {
    fn traits<T: Send + Sync + UnwindSafe + RefUnwindSafe>() {}
    traits::<Barrier>();
    everywhere(|| {
        let barrier = Barrier::new(1);
        assert_eq!(format!("{barrier:?}"), "Barrier { .. }");
        let result = format!("{:?}", barrier.wait());
        assert_eq!(result, "BarrierWaitResult { is_leader: true }");
    });
}
