//! Which coroutine another thread runs, read from that thread's memory.

use std::mem::{self, MaybeUninit};
use std::num::NonZeroU64;
use std::panic::Location;
use std::ptr::NonNull;

use crate::sys::thread_state::{ForeignCell, OwnMemory};

use super::Task;
use super::running::RUNNING;

/// Where a thread notes which coroutine it runs, for other threads.
#[derive(Clone, Copy)]
pub(crate) struct RunningCell(ForeignCell<Option<NonNull<Task>>>);

/// That of the calling thread.
pub(crate) fn running_cell() -> RunningCell {
    RunningCell(RUNNING.with(ForeignCell::new))
}

/// What names a coroutine in a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// Its id, if it was asked for before.
    pub(crate) id: Option<NonZeroU64>,
    pub(crate) name: Option<String>,
    pub(crate) spawned_at: &'static Location<'static>,
}

impl RunningCell {
    /// The address of the task that the thread runs, or has just run. `None` if it runs none. The thread exists
    /// until this returns.
    pub(crate) fn address(self, memory: &OwnMemory) -> Option<usize> {
        let task = self.0.bytes(memory).ok()?;
        // SAFETY: the kernel has written all bytes. The first word is the address of the task, or zero for none.
        let address = unsafe { task.as_ptr().cast::<usize>().read() };
        (address != 0).then_some(address)
    }

    /// The coroutine that the thread runs, read while it runs. `None` if it runs none. `is_same` says whether the
    /// turn is the one that the caller means; the thread exists until this returns.
    ///
    /// Whatever is read is not used before it is known that the cell had the same value before and after, in the
    /// same turn. The task then existed in between, because the cell is cleared before the task can be dropped, and
    /// what is read of it does not change.
    pub(crate) fn identity(
        self,
        memory: &OwnMemory,
        is_same: impl Fn() -> bool,
    ) -> Option<Identity> {
        const LEN: usize = size_of::<Option<NonNull<Task>>>();
        let cell = || -> Option<[u8; LEN]> {
            let bytes = self.0.bytes(memory).ok()?;
            // SAFETY: the kernel has written all bytes.
            let bytes =
                unsafe { mem::transmute::<MaybeUninit<Option<NonNull<Task>>>, [u8; LEN]>(bytes) };
            is_same().then_some(bytes)
        };
        let first = cell()?;
        if cell()? != first {
            return None;
        }
        // SAFETY: the bytes were read twice, and so are those of one value, which the cell had.
        let task = unsafe { mem::transmute::<[u8; LEN], Option<NonNull<Task>>>(first) }?;
        // The fields have the same places in a task of any body, since `Task` is `repr(C)` and the body comes last.
        let task = task.as_ptr().cast::<u8>();
        let id = task.wrapping_add(mem::offset_of!(Task<()>, id));
        let id = memory.value(id.cast::<u64>()).ok()?;
        let name = task.wrapping_add(mem::offset_of!(Task<()>, name));
        // A box of a string is laid out as a pointer to its bytes.
        let name = memory.value(name.cast::<Option<NonNull<[u8]>>>()).ok()?;
        let site = task.wrapping_add(mem::offset_of!(Task<()>, spawned_at));
        let site = memory
            .value(site.cast::<&'static Location<'static>>())
            .ok()?;
        if cell()? != first {
            return None;
        }
        // SAFETY: the bytes are those of the fields of a task that existed when they were read.
        let (id, name, spawned_at) =
            unsafe { (id.assume_init(), name.assume_init(), site.assume_init()) };
        let name = match name {
            None => None,
            Some(name) => {
                let mut bytes = vec![0; name.len()];
                memory
                    .read(name.cast::<u8>().as_ptr() as usize, &mut bytes)
                    .ok()?;
                Some(String::from_utf8_lossy(&bytes).into_owned())
            }
        };
        (cell()? == first).then_some(Identity {
            id: NonZeroU64::new(id),
            name,
            spawned_at,
        })
    }
}
