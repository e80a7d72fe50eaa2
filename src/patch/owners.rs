//! Which coroutine holds a mutex of C for which the C library notes only the thread: mutexes that their holder may
//! lock again, and those that check who unlocks. And so for read-write locks that are locked for writing.
//!
//! All coroutines that this tells apart are of one thread, so each thread has notes of its own.
#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::mem::ManuallyDrop;

use crate::task;

/// How many notes need no allocation.
const FIRST: usize = 32;

thread_local! {
    static NOTES: [Cell<Note>; FIRST] = const { [const { Cell::new(Note::NONE) }; FIRST] };

    /// Those for which there was no place in `NOTES`. Not dropped: a thread-local with a destructor allocates at its
    /// first use, and the allocator may be the caller.
    static MORE: RefCell<ManuallyDrop<Vec<Cell<Note>>>> =
        const { RefCell::new(ManuallyDrop::new(Vec::new())) };
}

/// A coroutine holds a mutex.
#[derive(Clone, Copy)]
struct Note {
    /// The address of the mutex. Zero, if this notes nothing.
    mutex: usize,
    /// The address of the coroutine's task.
    holder: usize,
    /// How often it has locked the mutex.
    times: usize,
}

impl Note {
    const NONE: Note = Note {
        mutex: 0,
        holder: 0,
        times: 0,
    };
}

/// Who holds a mutex, of the coroutines of this thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holder {
    Caller,
    Another,
    /// None of them, as far as is noted.
    None,
}

fn caller() -> usize {
    task::with_running(|task| task.map_or(0, |task| std::ptr::from_ref(task).addr()))
}

/// Calls `f` with the note of the mutex, if there is one.
fn with_note<R>(mutex: usize, f: impl FnOnce(&Cell<Note>) -> R) -> Option<R> {
    let is_of_it = |note: &&Cell<Note>| note.get().mutex == mutex;
    NOTES.with(|notes| {
        MORE.with_borrow(|more| notes.iter().chain(more.iter()).find(is_of_it).map(f))
    })
}

pub(super) fn holder(mutex: usize) -> Holder {
    match with_note(mutex, |note| note.get().holder == caller()) {
        None => Holder::None,
        Some(true) => Holder::Caller,
        Some(false) => Holder::Another,
    }
}

/// The caller has locked the mutex, which no other coroutine of this thread holds.
pub(super) fn note_locked(mutex: usize) {
    let again = |note: &Cell<Note>| {
        let before = note.get();
        note.set(Note {
            times: before.times + 1,
            ..before
        });
    };
    if with_note(mutex, again).is_none() {
        let holder = caller();
        let new = Note {
            mutex,
            holder,
            times: 1,
        };
        // A place that notes nothing, or a new one. The allocator may lock such a mutex itself.
        if with_note(0, |note| note.set(new)).is_none() {
            task::aside(|| MORE.with_borrow_mut(|more| more.push(Cell::new(new))));
        }
    }
}

/// The caller has unlocked the mutex once.
pub(super) fn note_unlocked(mutex: usize) {
    with_note(mutex, |note| {
        let before = note.get();
        note.set(match before.times {
            1 => Note::NONE,
            times => Note {
                times: times - 1,
                ..before
            },
        });
    });
}
