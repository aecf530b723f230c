//! The work that all contenders do, and the contenders that the crate itself can bring.

// Each bench takes from here what it needs.
#![allow(dead_code)]

pub(crate) mod callgrind;
pub(crate) mod contenders;
pub(crate) mod table;
pub(crate) mod work;
