//! std's locks in random use by coroutines of several workers and by OS threads, with every count checked.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Barrier, Condvar, Mutex, Once, OnceLock, RwLock};
use std::thread;
use std::time::Duration;

use crate::util::on_workers;

const WORKERS: usize = 3;
const COROUTINES: usize = 18;
const OS_THREADS: usize = 4;
const TASKS: usize = COROUTINES + OS_THREADS;
const ROUNDS: u64 = 150;

/// Random numbers from a seed (xorshift), and random pauses of a task.
struct Random {
    state: u64,
    is_coroutine: bool,
}

impl Random {
    fn of(seed: u64, task: usize) -> Random {
        Random {
            state: (seed ^ (task as u64 + 1) << 32) | 1,
            is_coroutine: task < COROUTINES,
        }
    }

    fn below(&mut self, n: u64) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        (self.state >> 20) % n
    }

    /// Nothing at all, mostly.
    fn pause(&mut self) {
        match self.below(8) {
            0 => self.yield_now(),
            1 => thread::sleep(Duration::from_micros(self.below(200))),
            _ => {}
        }
    }

    fn yield_now(&self) {
        match self.is_coroutine {
            true => greenroom::yield_now(),
            false => thread::yield_now(),
        }
    }
}

/// Runs `body` on so many coroutines and OS threads, each with a number. Returns what they return.
fn on_all<T: Send + 'static>(body: impl Fn(usize) -> T + Send + Sync + 'static) -> Vec<T> {
    on_workers(WORKERS, || {
        let body = Arc::new(body);
        let with_body = |task| {
            let body = Arc::clone(&body);
            move || body(task)
        };
        let threads: Vec<_> = (COROUTINES..TASKS)
            .map(|task| thread::spawn(with_body(task)))
            .collect();
        let coroutines: Vec<_> = (0..COROUTINES)
            .map(|task| greenroom::spawn(with_body(task)))
            .collect();
        let mut all: Vec<_> = coroutines
            .into_iter()
            .map(|coroutine| coroutine.join().unwrap())
            .collect();
        all.extend(threads.into_iter().map(|thread| thread.join().unwrap()));
        all
    })
}

fn seed() -> u64 {
    let seed = RandomState::new().hash_one(0);
    eprintln!("the seed is {seed}");
    seed
}

#[test]
fn no_update_behind_a_mutex_or_a_read_write_lock_is_lost() {
    let mutexes: Arc<[Mutex<u64>; 3]> = Arc::default();
    let tables: Arc<[RwLock<(u64, u64)>; 2]> = Arc::default();
    let seed = seed();
    let tallies = on_all({
        let (mutexes, tables) = (Arc::clone(&mutexes), Arc::clone(&tables));
        move |task| {
            let mut random = Random::of(seed, task);
            let mut tally = ([0; 3], [0; 2]);
            for _ in 0..ROUNDS {
                let i = random.below(3) as usize;
                let mut value = mutexes[i].lock().unwrap();
                let before = *value;
                random.pause();
                *value = before + 1;
                drop(value);
                tally.0[i] += 1;
                let i = random.below(2) as usize;
                if random.below(3) == 0 {
                    let mut table = tables[i].write().unwrap();
                    table.0 += 1;
                    random.pause();
                    table.1 += 1;
                    tally.1[i] += 1;
                } else {
                    let table = tables[i].read().unwrap();
                    let before = table.0;
                    random.pause();
                    assert_eq!((before, before), *table);
                }
            }
            tally
        }
    });
    for (i, mutex) in mutexes.iter().enumerate() {
        let sum: u64 = tallies.iter().map(|tally| tally.0[i]).sum();
        assert_eq!(*mutex.lock().unwrap(), sum);
    }
    for (i, table) in tables.iter().enumerate() {
        let sum: u64 = tallies.iter().map(|tally| tally.1[i]).sum();
        assert_eq!(*table.read().unwrap(), (sum, sum));
    }
}

/// A queue with little room. Each change of it wakes a single waiter.
#[derive(Default)]
struct Queue {
    items: Mutex<VecDeque<u64>>,
    has_items: Condvar,
    has_room: Condvar,
}

const ROOM: usize = 2;

impl Queue {
    fn push(&self, item: u64, random: &mut Random) {
        let items = self.items.lock().unwrap();
        let mut items = self
            .has_room
            .wait_while(items, |items| items.len() >= ROOM)
            .unwrap();
        items.push_back(item);
        random.pause();
        drop(items);
        self.has_items.notify_one();
    }

    /// Half of the waits have a time that may pass.
    fn pop(&self, random: &mut Random) -> u64 {
        let mut items = self.items.lock().unwrap();
        let item = loop {
            if let Some(item) = items.pop_front() {
                break item;
            }
            items = match random.below(2) {
                0 => self.has_items.wait(items).unwrap(),
                _ => {
                    let short = Duration::from_micros(random.below(300));
                    self.has_items.wait_timeout(items, short).unwrap().0
                }
            };
        };
        // The one that was woken for this item may have come too late, or have been out of time.
        let left = !items.is_empty();
        drop(items);
        if left {
            self.has_items.notify_one();
        }
        self.has_room.notify_one();
        item
    }
}

#[test]
fn each_item_goes_through_a_queue_of_condition_variables_once() {
    let queue = Arc::new(Queue::default());
    let seed = seed();
    let popped = on_all({
        let queue = Arc::clone(&queue);
        move |task| {
            let mut random = Random::of(seed, task);
            let mut popped = Vec::new();
            for round in 0..ROUNDS {
                match task % 2 {
                    0 => queue.push(task as u64 * ROUNDS + round, &mut random),
                    _ => popped.push(queue.pop(&mut random)),
                }
            }
            popped
        }
    });
    let mut popped = popped.concat();
    popped.sort_unstable();
    let pushed = (0..TASKS as u64).step_by(2);
    let pushed = pushed.flat_map(|task| (0..ROUNDS).map(move |round| task * ROUNDS + round));
    assert!(popped.into_iter().eq(pushed));
    assert!(queue.items.lock().unwrap().is_empty());
}

#[test]
fn barriers_have_one_leader_and_what_is_made_once_is_made_once() {
    struct Round {
        barrier: Barrier,
        once: Once,
        cell: OnceLock<u64>,
        made: Mutex<u64>,
    }
    let rounds: Vec<_> = (0..30)
        .map(|_| Round {
            barrier: Barrier::new(TASKS),
            once: Once::new(),
            cell: OnceLock::new(),
            made: Mutex::new(0),
        })
        .collect();
    let rounds = Arc::new(rounds);
    let seed = seed();
    let led = on_all({
        let rounds = Arc::clone(&rounds);
        move |task| {
            let mut random = Random::of(seed, task);
            let mut led = vec![];
            for round in rounds.iter() {
                round.once.call_once(|| {
                    random.yield_now();
                    *round.made.lock().unwrap() += 1;
                });
                let value = *round.cell.get_or_init(|| {
                    random.pause();
                    *round.made.lock().unwrap() += 1;
                    7
                });
                assert_eq!(value, 7);
                led.push(u64::from(round.barrier.wait().is_leader()));
                assert_eq!(*round.made.lock().unwrap(), 2);
            }
            led
        }
    });
    for round in 0..rounds.len() {
        assert_eq!(led.iter().map(|led| led[round]).sum::<u64>(), 1);
    }
}
