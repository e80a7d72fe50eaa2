//! Semaphores of C.

use std::cell::UnsafeCell;
use std::io;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use libc::{sem_t, timespec};

use crate::util::on_one_worker;

const MOMENT: Duration = Duration::from_millis(20);

struct Semaphore(Box<UnsafeCell<MaybeUninit<sem_t>>>);

// SAFETY: a semaphore is for use by several threads.
unsafe impl Sync for Semaphore {}

impl Semaphore {
    fn new(count: u32) -> Semaphore {
        let semaphore = Semaphore(Box::new(UnsafeCell::new(MaybeUninit::uninit())));
        // SAFETY: there is room for a semaphore, which does not move.
        assert_eq!(unsafe { libc::sem_init(semaphore.get(), 0, count) }, 0);
        semaphore
    }

    fn get(&self) -> *mut sem_t {
        self.0.get().cast()
    }

    fn wait(&self) {
        // SAFETY: the semaphore is initialised.
        assert_eq!(unsafe { libc::sem_wait(self.get()) }, 0);
    }

    fn post(&self) {
        // SAFETY: the semaphore is initialised.
        assert_eq!(unsafe { libc::sem_post(self.get()) }, 0);
    }

    fn wait_within(&self, time: Duration) -> io::Result<()> {
        let until = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + time;
        let until = timespec {
            tv_sec: until.as_secs() as i64,
            tv_nsec: until.subsec_nanos().into(),
        };
        // SAFETY: the semaphore is initialised, and the time is valid.
        match unsafe { libc::sem_timedwait(self.get(), &raw const until) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

#[test]
fn a_semaphore_of_c_lets_as_many_coroutines_in_as_it_counts() {
    let semaphore = Semaphore::new(3);
    let (inside, most) = (AtomicU32::new(0), AtomicU32::new(0));
    on_one_worker(|| {
        greenroom::scope(|s| {
            for _ in 0..12 {
                s.spawn(|| {
                    semaphore.wait();
                    let now = inside.fetch_add(1, Ordering::SeqCst) + 1;
                    most.fetch_max(now, Ordering::SeqCst);
                    sleep(MOMENT / 4);
                    inside.fetch_sub(1, Ordering::SeqCst);
                    semaphore.post();
                });
            }
        });
    });
    assert_eq!(most.into_inner(), 3);
}

#[test]
fn a_thread_posts_for_a_coroutine_and_a_coroutine_for_a_thread() {
    let (ping, pong) = (Semaphore::new(0), Semaphore::new(0));
    std::thread::scope(|threads| {
        threads.spawn(|| {
            for _ in 0..100 {
                ping.wait();
                pong.post();
            }
        });
        on_one_worker(|| {
            for _ in 0..100 {
                ping.post();
                pong.wait();
            }
        });
    });
}

#[test]
fn a_wait_for_a_semaphore_of_c_ends_at_its_time() {
    let semaphore = Semaphore::new(0);
    on_one_worker(|| {
        greenroom::scope(|s| {
            let error = semaphore.wait_within(MOMENT).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::ETIMEDOUT));
            s.spawn(|| {
                sleep(MOMENT);
                semaphore.post();
            });
            semaphore.wait_within(Duration::from_secs(60)).unwrap();
        });
    });
}
