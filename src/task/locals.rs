//! A coroutine's values of coroutine locals.
//!
//! A value is made when it is first asked for. It lies in an allocation of its own until the coroutine
//! ends, so its address does not change. A small hash table, which hangs on the task, finds values by
//! the address of their key. A task without values has no table.
//!
//! When the coroutine ends, its values are dropped, the youngest first. A destructor may make further
//! values, which are dropped next. A value that was dropped is not made again. When no value is left,
//! the allocations are freed.

use std::any::Any;
use std::cell::{Cell, UnsafeCell};
use std::mem::{self, MaybeUninit};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicPtr, Ordering};

use super::aside::Aside;

/// A static of this type identifies a coroutine local, and thereby the type of its values, by its
/// address.
#[derive(Debug)]
#[repr(align(16))]
pub(crate) struct KeyAddress(#[allow(dead_code, reason = "a place in memory")] u8);

impl KeyAddress {
    pub(crate) const fn new() -> KeyAddress {
        KeyAddress(0)
    }
}

/// The values of one task. Only that task uses them.
pub(crate) struct Locals(AtomicPtr<ValueTable>);

/// A hash table with open addressing, and a list of the values in the order in which they were made.
struct ValueTable {
    /// The length is a power of two. At least a quarter is vacant.
    slots: Box<[Option<TableSlot>]>,
    /// How many slots are used.
    len: usize,
    /// The youngest value that was not dropped yet. Each value leads to the next older one.
    newest: Option<NonNull<Header>>,
}

/// A value's slot in the hash table.
#[derive(Clone, Copy)]
struct TableSlot {
    key: *const KeyAddress,
    value: NonNull<Header>,
}

/// The allocation of a value. The type is known to the code that has the key.
#[repr(C)]
struct ValueBox<T> {
    header: Header,
    /// Initialised until the header says that it was dropped.
    value: UnsafeCell<MaybeUninit<T>>,
}

/// The part of a [`ValueBox`] that does not depend on the type of the value.
struct Header {
    dropped: Cell<bool>,
    older: Option<NonNull<Header>>,
    /// [`ValueBox::drop_value`] of the value's type.
    drop_value: unsafe fn(NonNull<Header>),
    /// [`ValueBox::free`] of the value's type.
    free: unsafe fn(NonNull<Header>),
}

/// The value was dropped, since the coroutine ends.
#[derive(Debug)]
pub(crate) struct Dropped;

/// The number of slots in a new table.
const FEW: usize = 4;

impl Locals {
    pub(crate) const fn new() -> Locals {
        Locals(AtomicPtr::new(ptr::null_mut()))
    }

    /// The value of `key`. If there is none, it is made by `make`.
    ///
    /// The value stays until the task ends. There is one exception: if `make` itself causes a value of
    /// the same key to be made, the outer value replaces that one.
    ///
    /// # Safety
    ///
    /// The calling task is the one that these locals belong to. A key is always used with the same `T`.
    #[inline]
    pub(crate) unsafe fn get_or_make<T>(
        &self,
        key: &'static KeyAddress,
        make: impl FnOnce() -> T,
    ) -> Result<NonNull<T>, Dropped> {
        // SAFETY: the caller promises that it is the task itself, and that `T` is the key's type.
        match unsafe { self.find::<T>(key) } {
            Some(found) => found,
            // SAFETY: the caller promises that it is the task itself, and that `T` is the key's type.
            None => unsafe { self.make(key, make) },
        }
    }

    /// The value of `key`, if it was made.
    ///
    /// # Safety
    ///
    /// The calling task is the one that these locals belong to. A key is always used with the same `T`.
    #[inline]
    unsafe fn find<T>(&self, key: &'static KeyAddress) -> Option<Result<NonNull<T>, Dropped>> {
        let table = self.0.load(Ordering::Relaxed);
        // SAFETY: only the calling task uses its table. No other reference to the table exists, since
        // none is held while user code runs.
        let value = unsafe { table.as_ref()?.find(key)? };
        // SAFETY: the allocation lives as long as the table. It was made for the key's type, which the
        // caller promises to be `T`.
        let value = unsafe { value.cast::<ValueBox<T>>().as_ref() };
        Some(value.get())
    }

    /// Makes the value of `key`.
    ///
    /// # Safety
    ///
    /// The calling task is the one that these locals belong to. A key is always used with the same `T`.
    #[cold]
    unsafe fn make<T>(
        &self,
        key: &'static KeyAddress,
        make: impl FnOnce() -> T,
    ) -> Result<NonNull<T>, Dropped> {
        // `make` is user code and may use any coroutine local. So the table is looked at after it.
        let value = make();
        // SAFETY: the caller promises that it is the task itself, and that `T` is the key's type.
        if let Some(found) = unsafe { self.find::<T>(key) } {
            let made_meanwhile = found?;
            // SAFETY: the value is initialised, since it was not dropped. References to it were given out
            // only to code that `make` has called, and so are gone.
            drop(unsafe { made_meanwhile.replace(value) });
            return Ok(made_meanwhile);
        }
        // If the allocator uses coroutine locals, it gets the thread's values while this lives, and
        // does not touch the table.
        let _aside = Aside::begin();
        if self.0.load(Ordering::Relaxed).is_null() {
            self.0.store(
                Box::into_raw(Box::new(ValueTable::new())),
                Ordering::Relaxed,
            );
        }
        // SAFETY: only the calling task uses its table, and no other reference to the table exists.
        let table = unsafe { &mut *self.0.load(Ordering::Relaxed) };
        let value = Box::new(ValueBox::new(value, table.newest));
        let value = NonNull::from(Box::leak(value));
        table.newest = Some(value.cast());
        table.insert(TableSlot {
            key,
            value: value.cast(),
        });
        // SAFETY: the allocation was just made, and is freed only with the table.
        unsafe { value.as_ref() }.get()
    }

    /// Drops all values. If a destructor panics, calls `panicked` with the payload and continues.
    ///
    /// # Safety
    ///
    /// The calling task is the one that these locals belong to, and uses none of the values any more.
    #[inline]
    pub(crate) unsafe fn end(&self, panicked: impl FnMut(Box<dyn Any + Send>)) {
        if !self.0.load(Ordering::Relaxed).is_null() {
            // SAFETY: the caller promises that it is the task itself and uses no value any more, and
            // there is a table.
            unsafe { self.drop_all(panicked) };
        }
    }

    /// As [`end`](Locals::end), for a task that has a table.
    ///
    /// # Safety
    ///
    /// The calling task is the one that these locals belong to, and uses none of the values any more.
    /// There is a table.
    #[cold]
    unsafe fn drop_all(&self, mut panicked: impl FnMut(Box<dyn Any + Send>)) {
        // SAFETY: only the calling task uses its table. This reference to it ends before a destructor
        // runs, which may use the table.
        while let Some(newest) = unsafe { (*self.0.load(Ordering::Relaxed)).take_newest() } {
            // SAFETY: the value was in the list, so it was not dropped; it is out of the list now. Its
            // allocation lives as long as the table.
            let dropped = catch_unwind(AssertUnwindSafe(|| unsafe {
                let drop_value = newest.as_ref().drop_value;
                drop_value(newest);
            }));
            if let Err(payload) = dropped {
                panicked(payload);
            }
        }
        let table = self.0.swap(ptr::null_mut(), Ordering::Relaxed);
        // SAFETY: `make` has made the table from a box, and the swap makes sure that nothing else finds
        // it.
        let table = unsafe { Box::from_raw(table) };
        for TableSlot { value, .. } in table.slots.iter().flatten() {
            // SAFETY: `make` has made each allocation from a box, the slot is its only owner, and the
            // header's function is that of its type.
            unsafe { (value.as_ref().free)(*value) };
        }
    }
}

impl ValueTable {
    fn new() -> ValueTable {
        ValueTable {
            slots: Box::new([None; FEW]),
            len: 0,
            newest: None,
        }
    }

    #[inline]
    fn find(&self, key: *const KeyAddress) -> Option<NonNull<Header>> {
        let mut index = self.first_index(key);
        // Ends, because a part of the table is vacant.
        loop {
            let slot = self.slots[index]?;
            if slot.key == key {
                return Some(slot.value);
            }
            index = self.next_index(index);
        }
    }

    /// Where to look first. Keys that are neighbours in memory get different indices.
    #[inline]
    fn first_index(&self, key: *const KeyAddress) -> usize {
        (key.addr() / size_of::<KeyAddress>()) & (self.slots.len() - 1)
    }

    #[inline]
    fn next_index(&self, index: usize) -> usize {
        (index + 1) & (self.slots.len() - 1)
    }

    /// Adds a key that is not in the table. Grows the table first if it is three quarters full.
    fn insert(&mut self, slot: TableSlot) {
        if (self.len + 1) * 4 > self.slots.len() * 3 {
            let larger = vec![None; self.slots.len() * 2].into_boxed_slice();
            for old in mem::replace(&mut self.slots, larger).into_iter().flatten() {
                self.put(old);
            }
        }
        self.put(slot);
        self.len += 1;
    }

    /// Puts `slot` at the first vacant index for its key.
    fn put(&mut self, slot: TableSlot) {
        let mut index = self.first_index(slot.key);
        while self.slots[index].is_some() {
            index = self.next_index(index);
        }
        self.slots[index] = Some(slot);
    }

    /// Takes the youngest value out of the list, but not out of the table.
    fn take_newest(&mut self) -> Option<NonNull<Header>> {
        let newest = self.newest?;
        // SAFETY: the allocations of values live as long as the table.
        self.newest = unsafe { newest.as_ref().older };
        Some(newest)
    }
}

impl<T> ValueBox<T> {
    fn new(value: T, older: Option<NonNull<Header>>) -> ValueBox<T> {
        ValueBox {
            header: Header {
                dropped: Cell::new(false),
                older,
                drop_value: ValueBox::<T>::drop_value,
                free: ValueBox::<T>::free,
            },
            value: UnsafeCell::new(MaybeUninit::new(value)),
        }
    }

    /// The address of the value, unless that was dropped.
    #[inline]
    fn get(&self) -> Result<NonNull<T>, Dropped> {
        if self.header.dropped.get() {
            return Err(Dropped);
        }
        NonNull::new(self.value.get().cast()).ok_or(Dropped)
    }

    /// Drops the value, but does not free the allocation.
    ///
    /// # Safety
    ///
    /// `header` is that of a live `ValueBox<T>`. The value was not dropped and is not in use.
    unsafe fn drop_value(header: NonNull<Header>) {
        // SAFETY: the caller promises that this is the header of a live `ValueBox<T>`, and a header lies at
        // the start of its `ValueBox`.
        let this = unsafe { header.cast::<ValueBox<T>>().as_ref() };
        // Before the destructor, which must not find the value.
        this.header.dropped.set(true);
        // SAFETY: the caller promises that the value was not dropped and is not in use. From now on
        // `get` does not return it.
        unsafe { (*this.value.get()).assume_init_drop() };
    }

    /// Frees the allocation. The value is not dropped.
    ///
    /// # Safety
    ///
    /// `header` is that of a `ValueBox<T>` that came from a box, and is not used any more.
    unsafe fn free(header: NonNull<Header>) {
        // SAFETY: the caller promises that the header lies at the start of a `ValueBox<T>` that came from
        // a box and is not used any more.
        drop(unsafe { Box::from_raw(header.cast::<ValueBox<T>>().as_ptr()) });
    }
}
