//! Chapters about greenroom as a whole. This module has no items.
#![forbid(unsafe_code)]

pub mod architecture;
pub mod deadlines;
pub mod foreign;
pub mod hazards;
pub mod insight;
pub mod loops;
pub mod model;
pub mod porting;
pub mod servers;
pub mod tls;
