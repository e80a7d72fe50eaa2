//! Programs with the patch of the C library.

greenroom::patch!(unsafe);

mod c_mutexes;
mod c_processes;
mod c_rwlocks;
mod c_semaphores;
mod calls;
mod children;
mod clocks;
mod closing;
mod connections;
mod files;
mod forks;
mod futexes;
mod identity;
mod interrupts;
mod locks;
mod messages;
mod moves;
mod names;
mod polls;
mod shims;
mod signals;
mod sockets;
mod splices;
mod status;
mod std_on_one_thread;
mod std_sync;
mod time;
mod util;
