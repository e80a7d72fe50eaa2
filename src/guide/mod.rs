//! Chapters about greenroom as a whole. This module has no items.

pub mod architecture;
pub mod hazards;
pub mod model;
pub mod porting;
