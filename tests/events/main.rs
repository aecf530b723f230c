//! Events of a cache: which come, to whom, and what they say.

#[path = "../support/mod.rs"]
mod support;

mod counts;
mod logs;
#[cfg(feature = "metrics")]
mod metrics;
mod names;
mod observers;
mod scenarios;
mod world;
