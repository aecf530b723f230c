//! What the benches share: the requests, the contenders, and how results are counted and printed.

// Not every bench uses all of it.
#![allow(dead_code)]

pub(crate) mod callgrind;
pub(crate) mod cold;
pub(crate) mod contenders;
pub(crate) mod keyed;
pub(crate) mod observed;
pub(crate) mod table;
pub(crate) mod work;
