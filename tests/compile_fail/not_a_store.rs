//! A path is not a token store.

use std::path::PathBuf;
use tower_bearer::provider::TwoBa;

fn main() {
    let _ = TwoBa::new("id", "secret", "refresh-token").store(PathBuf::from("session.json"));
}

//~ `PathBuf` is not a token store
//~ `MemoryStore`, `FileStore`, `RedisStore`, `PostgresStore` and `SqliteStore` do
