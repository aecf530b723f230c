//! Compiles every Rust snippet of the README, and runs those that are not marked `no_run`.

#![doc = include_str!("../../README.md")]
