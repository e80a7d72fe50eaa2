//! The last resort of a shutdown: `scheduler/last_resort.rs`, as `Worker::wind_down` uses it.

use std::sync::atomic::{AtomicUsize as Count, Ordering::Relaxed};

use super::mail::Face;
use super::resort::LastResort;
use super::{Model, large, small};
use crate::check::{Arc, thread};

pub(super) const MODELS: &[Model] = &[
    small("last resort: two workers with nothing", 4, nothing),
    small("last resort: against mail", 3, against_mail),
    small(
        "last resort: against mail that is answered",
        2,
        against_an_answer,
    ),
    small("last resort: against one who leaves", 3, against_leaving),
    small("last resort: against mail to a third", 1, against_a_third),
    large("last resort: against mail around many", against_many),
];

struct Runtime {
    workers: Vec<Face>,
    resort: LastResort,
    /// What is only looked at by those who look, and is no part of the model.
    sent: Count,
    read: Count,
}

impl Runtime {
    /// Of so many workers, each of which winds down what it is given: how many messages the first
    /// coroutine is to send around, from one to the next, or that there is no coroutine.
    fn wind_down(workers: usize, started: &[Option<usize>]) {
        let runtime = Arc::new(Runtime {
            workers: (0..workers).map(|_| Face::new()).collect(),
            resort: LastResort::new(workers),
            sent: Count::new(0),
            read: Count::new(0),
        });
        let threads: Vec<_> = started
            .iter()
            .enumerate()
            .skip(1)
            .map(|(index, &hops)| {
                let runtime = runtime.clone();
                thread::spawn(move || runtime.drive(index, hops))
            })
            .collect();
        runtime.drive(0, started[0]);
        for thread in threads {
            thread.join().unwrap();
        }
        let [sent, read] = [&runtime.sent, &runtime.read].map(|count| count.load(Relaxed));
        assert_eq!(sent, read, "all that was sent has come");
    }

    fn drive(&self, index: usize, hops: Option<usize>) {
        let face = &self.workers[index];
        face.attention.set_driven(true);
        match hops {
            Some(hops) => {
                self.pass_on(index, hops);
                self.wait_for_resort(index);
            }
            None => {
                self.resort.leave(index);
                self.workers.iter().for_each(Face::kick);
            }
        }
    }

    /// What a coroutine does that mail has woken: it wakes the next one.
    fn pass_on(&self, index: usize, hops: usize) {
        if hops > 0 {
            self.sent.fetch_add(1, Relaxed);
            self.workers[(index + 1) % self.workers.len()].send(hops - 1);
        }
    }

    fn wait_for_resort(&self, index: usize) {
        let face = &self.workers[index];
        for turn in 1.. {
            self.resort.begin_turn(index);
            if self.resort.taken() > 0 {
                break;
            }
            for hops in face.take_mail() {
                self.read.fetch_add(1, Relaxed);
                self.pass_on(index, hops);
            }
            face.attention.fall_asleep_alone();
            self.resort.end_turn(index, turn, 0);
            let any_mail = || self.workers.iter().any(Face::has_mail);
            if self.resort.is_due(0, any_mail) {
                let [sent, read] = [&self.sent, &self.read].map(|count| count.load(Relaxed));
                assert_eq!(sent, read, "nothing is under way");
                if self.resort.take(0) {
                    self.workers.iter().for_each(Face::kick);
                }
            }
            if self.resort.taken() == 0 && !face.has_mail() {
                face.kicked.wait();
            }
            face.attention.wake_up();
        }
    }
}

// The last resort is taken: otherwise all block for ever, which is reported.

fn nothing() {
    Runtime::wind_down(2, &[Some(0), Some(0)]);
}

fn against_mail() {
    Runtime::wind_down(2, &[Some(1), Some(0)]);
}

fn against_an_answer() {
    Runtime::wind_down(2, &[Some(2), Some(0)]);
}

fn against_leaving() {
    Runtime::wind_down(2, &[Some(0), None]);
}

fn against_a_third() {
    Runtime::wind_down(3, &[Some(2), Some(0), Some(0)]);
}

fn against_many() {
    Runtime::wind_down(4, &[Some(7), Some(3), Some(0), Some(5)]);
}
