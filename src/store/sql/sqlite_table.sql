CREATE TABLE IF NOT EXISTS tower_bearer_sessions (
    name TEXT PRIMARY KEY NOT NULL,
    version INTEGER NOT NULL,
    session TEXT,
    lease_owner TEXT,
    lease_until INTEGER,
    updated_at INTEGER NOT NULL,
    CHECK ((version = 0) = (session IS NULL)),
    CHECK ((lease_owner IS NULL) = (lease_until IS NULL))
) STRICT
