//! Programs with the patch of the C library.

greenroom::patch!(unsafe);

mod c_mutexes;
mod c_rwlocks;
mod c_semaphores;
mod std_on_one_thread;
mod std_sync;
mod util;
