//! The values that a coroutine has of coroutine locals.
//!
//! A value is made when it is first asked for, and has a place of its own until the coroutine ends:
//! so its address stays. The places are found by their keys' addresses, in a small table that hangs
//! on the task; a task without values has none. At the end values are dropped in the reverse order
//! of their making. A destructor may make others, which are dropped after it; none that was dropped
//! is made again. When none is left, the places go.

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::mem::{self, MaybeUninit};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicPtr, Ordering};

use super::aside::Aside;

/// What identifies a value, and its type: the address of a static of this type.
#[derive(Debug)]
#[repr(align(16))]
pub(crate) struct Key(#[allow(dead_code, reason = "a place in memory")] u8);

impl Key {
    pub(crate) const fn new() -> Key {
        Key(0)
    }
}

/// The values of one task, and used by that alone.
pub(crate) struct Locals(AtomicPtr<Table>);

/// An open-addressed hash table; and the values in the order of their making.
struct Table {
    /// A power of two of them, of which at least a quarter is vacant.
    entries: Box<[Option<Entry>]>,
    len: usize,
    /// Not dropped yet. Each knows the one before.
    newest: Option<NonNull<Header>>,
}

#[derive(Clone, Copy)]
struct Entry {
    key: *const Key,
    place: NonNull<Header>,
}

/// The place of a value, whose type is known to whoever has the key.
#[repr(C)]
struct Place<T> {
    header: Header,
    /// Initialised until the header says that it is dropped.
    value: UnsafeCell<MaybeUninit<T>>,
}

struct Header {
    dropped: Cell<bool>,
    older: Option<NonNull<Header>>,
    drop_value: unsafe fn(NonNull<Header>),
    free: unsafe fn(NonNull<Header>),
}

/// The value was dropped, as the coroutine ends.
#[derive(Debug)]
pub(crate) struct Dropped;

/// How many entries a table has at first.
const FEW: usize = 4;

impl Locals {
    pub(crate) const fn new() -> Locals {
        Locals(AtomicPtr::new(ptr::null_mut()))
    }

    /// The value of `key`, made by `make` if there is none. It stays until the task ends, but if
    /// `make` makes it, too: then what that has made is replaced.
    ///
    /// # Safety
    ///
    /// The caller is the task that this belongs to. A key comes with the same `T` each time.
    #[inline]
    pub(crate) unsafe fn get_or_make<T>(
        &self,
        key: &'static Key,
        make: impl FnOnce() -> T,
    ) -> Result<NonNull<T>, Dropped> {
        // SAFETY: the caller's promises.
        match unsafe { self.find::<T>(key) } {
            Some(found) => found,
            // SAFETY: as above.
            None => unsafe { self.make(key, make) },
        }
    }

    /// # Safety
    ///
    /// As `get_or_make`.
    #[inline]
    unsafe fn find<T>(&self, key: &'static Key) -> Option<Result<NonNull<T>, Dropped>> {
        let table = self.0.load(Ordering::Relaxed);
        // SAFETY: only the caller uses the table, and nobody else is at it: no user code runs here.
        let place = unsafe { table.as_ref()?.find(key)? };
        // SAFETY: places live as long as the table, and this one was made for a `T`.
        let place = unsafe { place.cast::<Place<T>>().as_ref() };
        Some(place.get())
    }

    /// # Safety
    ///
    /// As `get_or_make`; and there is no value.
    #[cold]
    unsafe fn make<T>(
        &self,
        key: &'static Key,
        make: impl FnOnce() -> T,
    ) -> Result<NonNull<T>, Dropped> {
        // Which may do anything, so the table is looked at only after that.
        let value = make();
        // SAFETY: the caller's promises.
        if let Some(found) = unsafe { self.find::<T>(key) } {
            let made_meanwhile = found?;
            // SAFETY: it is alive. References to it were handed out only within `make`, and are
            // gone.
            drop(unsafe { made_meanwhile.replace(value) });
            return Ok(made_meanwhile);
        }
        // An allocator that uses coroutine locals finds the thread's meanwhile.
        let _aside = Aside::begin();
        if self.0.load(Ordering::Relaxed).is_null() {
            self.0
                .store(Box::into_raw(Box::new(Table::new())), Ordering::Relaxed);
        }
        // SAFETY: as in `find`.
        let table = unsafe { &mut *self.0.load(Ordering::Relaxed) };
        let place = Box::new(Place::new(value, table.newest));
        let place = NonNull::from(Box::leak(place));
        table.newest = Some(place.cast());
        table.insert(Entry {
            key,
            place: place.cast(),
        });
        // SAFETY: it was just made.
        unsafe { place.as_ref() }.get()
    }

    /// Drops all values. Where a destructor panics, `panicked` says what becomes of that.
    ///
    /// # Safety
    ///
    /// The caller is the task that this belongs to, and uses none of the values.
    #[inline]
    pub(crate) unsafe fn end(&self, panicked: impl FnMut(Box<dyn Any + Send>)) {
        if !self.0.load(Ordering::Relaxed).is_null() {
            // SAFETY: the caller's promises.
            unsafe { self.drop_all(panicked) };
        }
    }

    /// # Safety
    ///
    /// As `end`.
    #[cold]
    unsafe fn drop_all(&self, mut panicked: impl FnMut(Box<dyn Any + Send>)) {
        // SAFETY: as in `find`: the table is left before a destructor runs.
        while let Some(newest) = unsafe { (*self.0.load(Ordering::Relaxed)).take_newest() } {
            // SAFETY: it is alive, and after this not in the list any more.
            let dropped = catch_unwind(AssertUnwindSafe(|| unsafe {
                let drop_value = newest.as_ref().drop_value;
                drop_value(newest);
            }));
            if let Err(payload) = dropped {
                panicked(payload);
            }
        }
        let table = self.0.swap(ptr::null_mut(), Ordering::Relaxed);
        // SAFETY: it came from a box, and is taken back once.
        let table = unsafe { Box::from_raw(table) };
        for Entry { place, .. } in table.entries.iter().flatten() {
            // SAFETY: all places were made by `make`, and nobody finds them any more.
            unsafe { (place.as_ref().free)(*place) };
        }
    }
}

impl Table {
    fn new() -> Table {
        Table {
            entries: Box::new([None; FEW]),
            len: 0,
            newest: None,
        }
    }

    #[inline]
    fn find(&self, key: *const Key) -> Option<NonNull<Header>> {
        let mut index = self.first_index(key);
        loop {
            let entry = self.entries[index]?;
            if entry.key == key {
                return Some(entry.place);
            }
            index = self.next_index(index);
        }
    }

    /// Where to look first. Keys that are neighbours do not compete.
    #[inline]
    fn first_index(&self, key: *const Key) -> usize {
        (key.addr() / size_of::<Key>()) & (self.entries.len() - 1)
    }

    #[inline]
    fn next_index(&self, index: usize) -> usize {
        (index + 1) & (self.entries.len() - 1)
    }

    /// Adds an entry, of a key that is not there.
    fn insert(&mut self, entry: Entry) {
        if (self.len + 1) * 4 > self.entries.len() * 3 {
            let larger = vec![None; self.entries.len() * 2].into_boxed_slice();
            for old in mem::replace(&mut self.entries, larger)
                .into_iter()
                .flatten()
            {
                self.put(old);
            }
        }
        self.put(entry);
        self.len += 1;
    }

    fn put(&mut self, entry: Entry) {
        let mut index = self.first_index(entry.key);
        while self.entries[index].is_some() {
            index = self.next_index(index);
        }
        self.entries[index] = Some(entry);
    }

    fn take_newest(&mut self) -> Option<NonNull<Header>> {
        let newest = self.newest?;
        // SAFETY: places live as long as the table.
        self.newest = unsafe { newest.as_ref().older };
        Some(newest)
    }
}

impl<T> Place<T> {
    fn new(value: T, older: Option<NonNull<Header>>) -> Place<T> {
        Place {
            header: Header {
                dropped: Cell::new(false),
                older,
                drop_value: Place::<T>::drop_value,
                free: Place::<T>::free,
            },
            value: UnsafeCell::new(MaybeUninit::new(value)),
        }
    }

    #[inline]
    fn get(&self) -> Result<NonNull<T>, Dropped> {
        if self.header.dropped.get() {
            return Err(Dropped);
        }
        NonNull::new(self.value.get().cast()).ok_or(Dropped)
    }

    /// # Safety
    ///
    /// This is the header of a `Place<T>`, whose value nobody uses.
    unsafe fn drop_value(place: NonNull<Header>) {
        // SAFETY: says the caller.
        let place = unsafe { place.cast::<Place<T>>().as_ref() };
        place.header.dropped.set(true);
        // SAFETY: it was not dropped before, and nobody gets at it any more.
        unsafe { (*place.value.get()).assume_init_drop() };
    }

    /// # Safety
    ///
    /// This is the header of a `Place<T>` that came from a box, and nobody uses.
    unsafe fn free(place: NonNull<Header>) {
        // SAFETY: says the caller.
        drop(unsafe { Box::from_raw(place.cast::<Place<T>>().as_ptr()) });
    }
}
