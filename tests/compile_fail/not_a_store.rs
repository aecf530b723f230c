//! A path is not a store of sessions.

use std::path::PathBuf;
use tower_bearer::provider::TwoBa;

fn main() {
    let _ = TwoBa::new("id", "secret", "refresh-token").store(PathBuf::from("session.json"));
}

//~ `PathBuf` is no store of sessions
//~ the module `store` has some
