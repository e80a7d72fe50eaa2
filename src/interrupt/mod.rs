//! Deadlines around any code, and code that interrupts do not reach.
//!
//! What an interrupt is, and how it ends a wait, is in `park/interrupt.rs`; which interrupts reach a
//! point of the code, in `task/interrupt_scope.rs`.

pub(crate) mod deadline;
pub(crate) mod shield;
pub(crate) mod timeout;
