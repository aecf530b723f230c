//! Guides that belong to no single item.

pub mod comparison {
    #![doc = include_str!("comparison.md")]
}

pub mod secrets {
    #![doc = include_str!("secrets.md")]
}
