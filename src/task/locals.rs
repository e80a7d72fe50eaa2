//! A coroutine's values of coroutine locals.
//!
//! A value is made when it is first asked for. It lies in an allocation of its own until the coroutine
//! ends, so its address does not change. A small table, which hangs on the task, leads to the values. All
//! tasks without values share one empty table.
//!
//! # How a value is found
//!
//! Each key has a number, which it takes when a value of it is first made in the process. The low bits of
//! the number select the key's *home* in a table, which is one place. [`Locals::find`], which is inlined
//! into each access, looks only there.
//!
//! If the home of a new key is taken, the table grows, until all its keys are at home. Since the numbers
//! are dense, a small table mostly suffices. It does not if the numbers of a coroutine's keys are far apart
//! and end with the same bits. The table then stops growing at [`MOST_PLACES`] for each key. A key that
//! finds its home taken gets the next vacant place. It is found by a search, in the slow path.
//!
//! # The end of the values
//!
//! When the coroutine ends, its values are dropped, the youngest first. A destructor may make further
//! values, which are dropped next. A value that was dropped is not made again. A value without a destructor
//! stays, as in std, so all destructors may use it. When no value is left to drop, the memory is freed.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::any::Any;
use std::iter;
use std::mem::{self, MaybeUninit};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use super::aside::Aside;

/// Identifies a coroutine local, and knows the type of its values. A static.
#[derive(Debug)]
pub(crate) struct Key {
    /// The path of the static, for dumps.
    name: &'static str,
    /// Zero until a value of this key is made.
    number: AtomicUsize,
    /// [`ValueBox::drop_value`] of the type, if that has a destructor.
    drop_value: Option<ValueFn>,
    /// [`ValueBox::free`] of the type.
    free: ValueFn,
}

/// Does something with the [`ValueBox`] of that header. Knows the type of the value.
type ValueFn = unsafe fn(NonNull<Header>);

impl Key {
    /// A key for values of type `T`.
    pub(crate) const fn new<T>(name: &'static str) -> Key {
        Key {
            name,
            number: AtomicUsize::new(0),
            drop_value: if mem::needs_drop::<T>() {
                Some(ValueBox::<T>::drop_value)
            } else {
                None
            },
            free: ValueBox::<T>::free,
        }
    }

    /// The number of this key, which is not zero. Takes one if there is none.
    fn take_number(&self) -> usize {
        static LAST: AtomicUsize = AtomicUsize::new(0);
        take_number(&self.number, &LAST)
    }
}

/// The number in `taken`. If that is zero, puts the next one after `last` there, so that it differs from all
/// others which were taken from `last`.
pub(crate) fn take_number(taken: &AtomicUsize, last: &AtomicUsize) -> usize {
    if let number @ 1.. = taken.load(Ordering::Relaxed) {
        return number;
    }
    let new = last.fetch_add(1, Ordering::Relaxed) + 1;
    let set = taken.compare_exchange(0, new, Ordering::Relaxed, Ordering::Relaxed);
    set.map_or_else(|first| first, |_| new)
}

/// The values of one task. Only that task uses them.
///
/// The pointer is to [`Table::empty`], or to a table of this task's own.
pub(crate) struct Locals(AtomicPtr<Table>);

/// A hash table. In memory, its places follow.
#[repr(C)]
struct Table {
    /// The number of places, less one. All its bits are ones.
    mask: u32,
    /// How many places are taken.
    len: u32,
    /// The youngest value that is still to be dropped, which leads to the next older one.
    to_drop: Option<NonNull<Header>>,
    /// The first in a list of all other values: those that were dropped, and those without a destructor.
    others: Option<NonNull<Header>>,
}

/// A place in a table.
#[derive(Clone, Copy)]
struct Place {
    /// The number of the key. With the bit [`DROPPED`] if the value was dropped. [`VACANT`] if there is none.
    number: usize,
    value: NonNull<()>,
}

const DROPPED: usize = 1 << (usize::BITS - 1);
const VACANT: usize = usize::MAX;

/// The number of places in a new table.
const FEW_PLACES: usize = 4;

/// How many places for each of its keys a table may have, at most.
const MOST_PLACES: usize = 16;

/// The table of all tasks that have no values. It is never written to.
#[repr(C)]
struct EmptyTable {
    table: Table,
    place: Place,
}

// SAFETY: an empty table contains no pointers to values, and is never written to.
unsafe impl Sync for EmptyTable {}

static EMPTY: EmptyTable = EmptyTable {
    table: Table {
        mask: 0,
        // Counts as full, so that it is replaced before anything is put into it.
        len: 1,
        to_drop: None,
        others: None,
    },
    place: Place::VACANT,
};

/// The allocation of a value.
#[repr(C)]
struct ValueBox<T> {
    header: Header,
    /// Initialised until it was dropped.
    value: MaybeUninit<T>,
}

/// The part of a [`ValueBox`] that does not depend on the type of the value.
struct Header {
    key: &'static Key,
    /// The next in one of the lists of the table.
    next: Option<NonNull<Header>>,
}

/// The value was dropped, since the coroutine ends.
#[derive(Debug)]
pub(crate) struct Dropped;

impl Locals {
    pub(crate) const fn new() -> Locals {
        Locals(AtomicPtr::new(Table::empty()))
    }

    /// The value of `key`. If there is none, it is made by `make`.
    ///
    /// The value stays until the task ends. There is one exception: if `make` itself causes a value of
    /// the same key to be made, the outer value replaces that one.
    ///
    /// # Safety
    ///
    /// The calling task is the one that these locals belong to. `key` was made for `T`.
    #[inline]
    pub(crate) unsafe fn get_or_make<T>(
        &self,
        key: &'static Key,
        make: impl FnOnce() -> T,
    ) -> Result<NonNull<T>, Dropped> {
        // SAFETY: the caller promises that it is the task itself, and that `T` is the key's type.
        match unsafe { self.find(key) } {
            Some(found) => Ok(found),
            // SAFETY: the caller promises that it is the task itself, and that `T` is the key's type.
            None => unsafe { self.search_or_make(key, make) },
        }
    }

    /// The value of `key`, if its place is the home of the key. A value that was not made or was dropped is
    /// not found, and neither is one that had to go elsewhere.
    ///
    /// # Safety
    ///
    /// The calling task is the one that these locals belong to. `key` was made for `T`.
    #[inline]
    pub(crate) unsafe fn find<T>(&self, key: &'static Key) -> Option<NonNull<T>> {
        // Zero, and so in no table, if no value was made yet.
        let number = key.number.load(Ordering::Relaxed);
        // SAFETY: only the calling task changes or frees its table.
        let home = unsafe { *Table::home(self.table(), number) };
        (home.number == number).then_some(home.value.cast())
    }

    #[inline]
    fn table(&self) -> *mut Table {
        self.0.load(Ordering::Relaxed)
    }

    /// The value of `key`, wherever its place is. `None` if it was not made.
    ///
    /// # Safety
    ///
    /// The calling task is the one that these locals belong to.
    unsafe fn search(&self, key: &'static Key) -> Option<Result<NonNull<()>, Dropped>> {
        // SAFETY: only the calling task changes or frees its table.
        let place = unsafe { *Table::search(self.table(), key.number.load(Ordering::Relaxed))? };
        Some(if place.number & DROPPED == 0 {
            Ok(place.value)
        } else {
            Err(Dropped)
        })
    }

    /// The value of `key`. If there is none, it is made by `make`.
    ///
    /// # Safety
    ///
    /// The calling task is the one that these locals belong to. `key` was made for `T`.
    #[cold]
    #[inline(never)]
    unsafe fn search_or_make<T>(
        &self,
        key: &'static Key,
        make: impl FnOnce() -> T,
    ) -> Result<NonNull<T>, Dropped> {
        // SAFETY: the caller promises that it is the task itself.
        if let Some(found) = unsafe { self.search(key) } {
            return found.map(NonNull::cast);
        }
        // `make` is user code and may use any coroutine local. So the table is searched again after it.
        let value = make();
        // SAFETY: the caller promises that it is the task itself.
        if let Some(found) = unsafe { self.search(key) } {
            let made_meanwhile: NonNull<T> = found?.cast();
            // SAFETY: the value is initialised, since it was not dropped. References to it were given out
            // only to code that `make` has called, and so are gone.
            drop(unsafe { made_meanwhile.replace(value) });
            return Ok(made_meanwhile);
        }
        // If the allocator uses coroutine locals, it gets the thread's values while this lives, and
        // does not touch the table.
        let _aside = Aside::begin();
        let (header, value) = ValueBox::leak(key, value);
        // SAFETY: the caller promises that it is the task itself. The key was searched for, and the value
        // was just made for it.
        unsafe { self.add(header, value.cast()) };
        Ok(value)
    }

    /// Adds a value to the table, which may be replaced by a larger one.
    ///
    /// # Safety
    ///
    /// The calling task is the one that these locals belong to. `header` is that of a live [`ValueBox`],
    /// which is in no table, and `value` points to its value. There is no value of the same key.
    unsafe fn add(&self, header: NonNull<Header>, value: NonNull<()>) {
        let header = header.as_ptr();
        // SAFETY: the header is alive and in no table, so only this code uses it. Only the calling task
        // changes or frees its table. The loop ends with one that has a vacant place. `EMPTY` has none, so
        // the table is the task's own, and may be written to.
        unsafe {
            let number = (*header).key.take_number();
            while Table::is_too_small_for(self.table(), number) {
                self.grow();
            }
            let table = self.table();
            Table::put(table, Place { number, value });
            let list = match (*header).key.drop_value {
                Some(_) => &raw mut (*table).to_drop,
                None => &raw mut (*table).others,
            };
            (*header).next = list.replace(NonNull::new(header));
        }
    }

    /// Replaces the table by a larger one.
    ///
    /// # Safety
    ///
    /// The calling task is the one that these locals belong to.
    unsafe fn grow(&self) {
        let table = self.table();
        // SAFETY: only the calling task changes or frees its table, and nothing else has the new one. That
        // has more places than the old one, so it has room for all of them. The old one is not used after
        // it was freed, since it is replaced before.
        unsafe {
            let places = Table::places(table);
            let larger = Table::allocate(FEW_PLACES.max(2 * places));
            for place in (0..places).map(|index| *Table::home(table, index)) {
                if place.number != VACANT {
                    Table::put(larger, place);
                }
            }
            (*larger).to_drop = (*table).to_drop;
            (*larger).others = (*table).others;
            self.0.store(larger, Ordering::Relaxed);
            Table::free(table);
        }
    }

    /// Whether there are no values.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.table() == Table::empty()
    }

    /// The names of the keys that have a value, which was not dropped.
    ///
    /// # Safety
    ///
    /// The task that these locals belong to is suspended, or is the caller, and does not run before this returns.
    pub(crate) unsafe fn names(&self) -> Vec<&'static str> {
        // SAFETY: a task that is suspended has not stopped amid a change of its table, because that does not wait. The
        // values of the lists live as long as the table, which only the task changes or frees.
        let (to_drop, others) = unsafe { ((*self.table()).to_drop, (*self.table()).others) };
        let list = |first: Option<NonNull<Header>>| {
            // SAFETY: as above.
            let header = |at: NonNull<Header>| unsafe { at.as_ref() };
            iter::successors(first.map(header), move |it| it.next.map(header))
        };
        // Of the others, those with a destructor were dropped.
        let others = list(others).filter(|header| header.key.drop_value.is_none());
        let all = list(to_drop).chain(others);
        all.map(|header| header.key.name).collect()
    }

    /// Drops all values. If a destructor panics, calls `panicked` with the payload and continues.
    ///
    /// # Safety
    ///
    /// The calling task is the one that these locals belong to, and uses none of the values any more.
    #[inline]
    pub(crate) unsafe fn end(&self, panicked: impl FnMut(Box<dyn Any + Send>)) {
        if !self.is_empty() {
            // SAFETY: the caller promises that it is the task itself and uses no value any more, and
            // there are values.
            unsafe { self.drop_all(panicked) };
        }
    }

    /// As [`end`](Locals::end), for a task that has a table of its own.
    ///
    /// # Safety
    ///
    /// The calling task is the one that these locals belong to, and uses none of the values any more.
    /// Its table is not [`Table::empty`].
    #[cold]
    unsafe fn drop_all(&self, mut panicked: impl FnMut(Box<dyn Any + Send>)) {
        // SAFETY: only the calling task changes or frees its table, and it has one of its own.
        while let Some((header, drop_value)) = unsafe { Table::take_to_drop(self.table()) } {
            // SAFETY: the value was to be dropped, and is now marked as dropped, so it is found no more. Its
            // allocation lives as long as the table.
            let dropped = catch_unwind(AssertUnwindSafe(|| unsafe { drop_value(header) }));
            if let Err(payload) = dropped {
                panicked(payload);
            }
        }
        let table = self.0.swap(Table::empty(), Ordering::Relaxed);
        // If the allocator uses coroutine locals, it gets the thread's values while this lives. This task's would be
        // made anew, and never dropped.
        let _aside = Aside::begin();
        // SAFETY: the swap makes sure that nothing else finds the table. All its values are in the list of
        // the others, since none is left to drop.
        unsafe {
            let mut next = (*table).others;
            Table::free(table);
            while let Some(header) = next {
                next = (*header.as_ptr()).next;
                ((*header.as_ptr()).key.free)(header);
            }
        }
    }
}

impl Table {
    /// The table without values.
    const fn empty() -> *mut Table {
        // Not a pointer to the field `table`, since it must lead to the places as well.
        (&raw const EMPTY).cast_mut().cast()
    }

    /// The size of a table with this number of places, and the offset of the first place.
    const fn layout(places: usize) -> (Layout, usize) {
        match Layout::array::<Place>(places) {
            Ok(array) => match Layout::new::<Table>().extend(array) {
                Ok(layout) => layout,
                Err(_) => panic!("too many coroutine locals"),
            },
            Err(_) => panic!("too many coroutine locals"),
        }
    }

    /// A new table, with vacant places. Their number is a power of two.
    fn allocate(places: usize) -> *mut Table {
        let mask = u32::try_from(places - 1).expect("fewer keys than that have a number");
        let (layout, _) = Table::layout(places);
        // SAFETY: the layout has a size greater than zero.
        let table = unsafe { alloc(layout) }.cast::<Table>();
        if table.is_null() {
            handle_alloc_error(layout);
        }
        // SAFETY: the allocation is new, has room for a table with this number of places, and is aligned
        // for it.
        unsafe {
            table.write(Table {
                mask,
                len: 0,
                to_drop: None,
                others: None,
            });
            for index in 0..places {
                Table::home(table, index).write(Place::VACANT);
            }
        }
        table
    }

    /// Frees the memory of `table`, unless that is the empty table.
    ///
    /// # Safety
    ///
    /// `table` is valid, and is not used any more.
    unsafe fn free(table: *mut Table) {
        if table != Table::empty() {
            // SAFETY: the table is valid and not the empty one, so `allocate` has made it with this layout.
            unsafe { dealloc(table.cast(), Table::layout(Table::places(table)).0) };
        }
    }

    /// How many places there are.
    ///
    /// # Safety
    ///
    /// `table` is valid to read.
    unsafe fn places(table: *const Table) -> usize {
        // SAFETY: the caller promises that the table is valid.
        unsafe { (*table).mask as usize + 1 }
    }

    /// The home of the key with this number. Valid to read like the table, and to write if the table is not
    /// the empty one.
    ///
    /// # Safety
    ///
    /// `table` is valid to read.
    #[inline]
    unsafe fn home(table: *mut Table, number: usize) -> *mut Place {
        const FIRST: usize = Table::layout(1).1;
        // SAFETY: the caller promises that the table is valid. The mask limits the index to its places,
        // which begin at this offset.
        unsafe {
            let index = number & (*table).mask as usize;
            table.byte_add(FIRST).cast::<Place>().add(index)
        }
    }

    /// The place of the key with this number, dropped or not.
    ///
    /// # Safety
    ///
    /// `table` is valid to read.
    unsafe fn search(table: *mut Table, number: usize) -> Option<*mut Place> {
        // SAFETY: the caller promises that the table is valid.
        unsafe {
            // A key that is not at home is behind it, after places that are taken.
            let behind = (0..Table::places(table)).map(|step| Table::home(table, number + step));
            let mut taken = behind.take_while(|place| (**place).number != VACANT);
            taken.find(|place| (**place).number & !DROPPED == number)
        }
    }

    /// Whether the table must grow before the key with this number is put into it.
    ///
    /// # Safety
    ///
    /// `table` is valid to read.
    unsafe fn is_too_small_for(table: *mut Table, number: usize) -> bool {
        // SAFETY: the caller promises that the table is valid.
        let (places, len, home) = unsafe {
            let len = (*table).len as usize;
            (Table::places(table), len, *Table::home(table, number))
        };
        len == places || (home.number != VACANT && 2 * places <= MOST_PLACES * (len + 1))
    }

    /// Puts a key into the table, at its home or at the next vacant place behind that.
    ///
    /// # Safety
    ///
    /// `table` is valid to write, does not contain the key, and has a vacant place.
    unsafe fn put(table: *mut Table, place: Place) {
        let mut index = place.number & !DROPPED;
        // SAFETY: the caller promises that the table is valid. The loop ends at a vacant place.
        unsafe {
            while (*Table::home(table, index)).number != VACANT {
                index += 1;
            }
            *Table::home(table, index) = place;
            (*table).len += 1;
        }
    }

    /// Takes the youngest value that is to be dropped, and marks it as dropped. Returns the function that
    /// drops it, too.
    ///
    /// # Safety
    ///
    /// `table` is valid, and is not the empty table.
    unsafe fn take_to_drop(table: *mut Table) -> Option<(NonNull<Header>, ValueFn)> {
        // SAFETY: the caller promises that the table is valid and may be written to. The values of its lists
        // live as long as the table. Each of them has a place in the table.
        unsafe {
            let header = (*table).to_drop?;
            let Header { key, next } = *header.as_ptr();
            (*table).to_drop = next;
            (*header.as_ptr()).next = (*table).others.replace(header);
            let place = Table::search(table, key.number.load(Ordering::Relaxed));
            (*place.expect("each value has a place")).number |= DROPPED;
            Some((header, key.drop_value.expect("a destructor")))
        }
    }
}

impl Place {
    const VACANT: Place = Place {
        number: VACANT,
        value: NonNull::dangling(),
    };
}

impl<T> ValueBox<T> {
    /// Puts a value into an allocation. Returns the addresses of its header and of the value.
    fn leak(key: &'static Key, value: T) -> (NonNull<Header>, NonNull<T>) {
        let this = NonNull::from(Box::leak(Box::new(ValueBox {
            header: Header { key, next: None },
            value: MaybeUninit::new(value),
        })));
        // SAFETY: the allocation is alive, and is larger than this offset.
        let value = unsafe { this.byte_add(mem::offset_of!(ValueBox<T>, value)) };
        (this.cast(), value.cast())
    }

    /// Drops the value, but does not free the allocation.
    ///
    /// # Safety
    ///
    /// `header` is that of a live `ValueBox<T>`. The value was not dropped and is not in use.
    unsafe fn drop_value(header: NonNull<Header>) {
        let this = header.cast::<ValueBox<T>>().as_ptr();
        // SAFETY: the caller promises that this is the header of a live `ValueBox<T>`, and a header lies at
        // the start of its `ValueBox`. The value is initialised, since it was not dropped.
        unsafe { ptr::drop_in_place((&raw mut (*this).value).cast::<T>()) };
    }

    /// Frees the allocation. The value is not dropped.
    ///
    /// # Safety
    ///
    /// `header` is that of a live `ValueBox<T>`, and nothing of it is used any more.
    unsafe fn free(header: NonNull<Header>) {
        // SAFETY: the caller promises that the header lies at the start of a `ValueBox<T>` that is not used
        // any more. `leak` has made it from a box.
        drop(unsafe { Box::from_raw(header.cast::<ValueBox<T>>().as_ptr()) });
    }
}

#[cfg(test)]
mod tests;
