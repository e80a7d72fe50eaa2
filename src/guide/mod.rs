//! How to use greenroom for something: documentation without items.

pub mod porting;
