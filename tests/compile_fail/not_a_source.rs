//! A string is not a source of tokens.

use tower_bearer::BearerAuthLayer;

fn main() {
    let _ = BearerAuthLayer::new("abc");
}

//~ `&str` is not a source of tokens
//~ `source_fn` makes a source from an async closure
