CREATE TABLE IF NOT EXISTS tower_bearer_sessions (
    name text PRIMARY KEY,
    version bigint NOT NULL,
    session text,
    lease_owner text,
    lease_until timestamptz,
    updated_at timestamptz NOT NULL,
    CHECK ((version = 0) = (session IS NULL)),
    CHECK ((lease_owner IS NULL) = (lease_until IS NULL))
)
