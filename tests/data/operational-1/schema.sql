-- clisonix_operational.db, version 1: everything of the box that is no reading. Moments are
-- microseconds since 1970-01-01 UTC. Later versions come as numbered files in migrations/.

CREATE TABLE meta (key TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID;

CREATE TABLE users (
    id TEXT PRIMARY KEY,              -- UUID 7: in the order of time
    username TEXT NOT NULL,           -- as given, in NFC
    username_key TEXT NOT NULL UNIQUE,  -- what makes it unique: NFKC, case folded
    email TEXT NOT NULL,
    email_key TEXT NOT NULL UNIQUE,
    password_hash TEXT,               -- argon2id in its own encoding; NULL: no password
    status TEXT NOT NULL CHECK (status IN ('active', 'disabled')),
    created_us INTEGER NOT NULL,
    updated_us INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX users_created ON users (created_us, id);

-- credits and usage are settled up to usage_mark and charged_mark: what the journal has counted for
-- the user in usage_epoch (empty: in whichever comes next). What it counted since is added on reading.
CREATE TABLE billing (
    user_id TEXT PRIMARY KEY REFERENCES users (id),
    id TEXT NOT NULL UNIQUE,
    plan TEXT NOT NULL,
    credits INTEGER NOT NULL CHECK (credits >= 0),
    usage INTEGER NOT NULL CHECK (usage >= 0),
    usage_epoch TEXT NOT NULL,
    usage_mark INTEGER NOT NULL,
    charged_mark INTEGER NOT NULL,
    created_us INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Append-only: amounts of a user add up to credits.
CREATE TABLE billing_ledger (
    id INTEGER PRIMARY KEY,
    user_id TEXT NOT NULL,
    created_us INTEGER NOT NULL,
    kind TEXT NOT NULL,               -- grant, deduction, usage
    amount INTEGER NOT NULL,
    credits INTEGER NOT NULL,         -- after this entry
    note TEXT NOT NULL,
    actor TEXT NOT NULL
) STRICT;

CREATE INDEX billing_ledger_user ON billing_ledger (user_id, id);

CREATE TRIGGER billing_ledger_is_never_changed BEFORE UPDATE ON billing_ledger
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;

CREATE TRIGGER billing_ledger_is_never_shortened BEFORE DELETE ON billing_ledger
BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;

CREATE TABLE sessions (
    id TEXT PRIMARY KEY,
    user_id TEXT NOT NULL REFERENCES users (id),
    token_hash BLOB NOT NULL UNIQUE,  -- time and SHA-256 of the token, which is kept nowhere
    created_us INTEGER NOT NULL,
    expires_us INTEGER NOT NULL,
    ends_us INTEGER NOT NULL,         -- no renewal goes beyond this
    last_activity_us INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX sessions_user ON sessions (user_id, created_us);
CREATE INDEX sessions_expiry ON sessions (expires_us);

CREATE TABLE metadata (
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL,              -- JSON
    updated_us INTEGER NOT NULL,
    expires_us INTEGER
) STRICT, WITHOUT ROWID;

CREATE INDEX metadata_expiry ON metadata (expires_us) WHERE expires_us IS NOT NULL;

CREATE TABLE profiles (
    profile_id TEXT PRIMARY KEY,
    sensor_id TEXT NOT NULL,
    timestamp TEXT NOT NULL,          -- as given, else the moment of storing
    metadata TEXT NOT NULL,           -- JSON object
    updated_us INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX profiles_sensor ON profiles (sensor_id, profile_id);

CREATE TABLE sensors (
    sensor_id TEXT PRIMARY KEY,
    display_name TEXT NOT NULL,
    unit TEXT NOT NULL,
    tags TEXT NOT NULL,               -- JSON object of texts
    note TEXT NOT NULL,
    updated_us INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- What analytics must know when they read the journal again: under which name a sensor is kept, and
-- which of its readings were forgotten. In the order of id.
CREATE TABLE name_rules (
    id INTEGER PRIMARY KEY,
    kind TEXT NOT NULL CHECK (kind IN ('rename', 'forget')),
    sensor_id TEXT NOT NULL,
    new_id TEXT NOT NULL,             -- rename: the name from now on; forget: empty
    up_to_id INTEGER NOT NULL,        -- forget: last reading id that is gone; rename: 0
    epoch TEXT NOT NULL,              -- forget: of the journal that gave out this id; rename: empty
    created_us INTEGER NOT NULL
) STRICT;

CREATE TABLE access_keys (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    secret_hash BLOB NOT NULL UNIQUE, -- SHA-256 of the key, which itself is kept nowhere
    scopes TEXT NOT NULL,             -- ingest, read, admin; separated by commas
    sensors TEXT NOT NULL,            -- pattern; empty: all
    rate INTEGER,                     -- readings per second; NULL: no limit
    user_id TEXT REFERENCES users (id),
    created_us INTEGER NOT NULL,
    expires_us INTEGER,
    revoked_us INTEGER,
    last_used_us INTEGER
) STRICT, WITHOUT ROWID;

CREATE TABLE audit (
    id INTEGER PRIMARY KEY,
    created_us INTEGER NOT NULL,
    actor TEXT NOT NULL,              -- local, owner, key:<id>, session:<id>
    address TEXT NOT NULL,
    act TEXT NOT NULL,
    subject TEXT NOT NULL,
    detail TEXT NOT NULL              -- JSON object
) STRICT;

-- What became of readings that are no longer, or never were, stored (invariant I4).
CREATE TABLE loss_ledger (
    sensor_id TEXT NOT NULL,
    class TEXT NOT NULL,              -- forgotten, evicted
    count INTEGER NOT NULL,
    updated_us INTEGER NOT NULL,
    PRIMARY KEY (sensor_id, class)
) STRICT, WITHOUT ROWID;

-- Answers to requests that carried an Idempotency-Key.
CREATE TABLE request_answers (
    scope TEXT NOT NULL,
    key TEXT NOT NULL,
    digest BLOB NOT NULL,
    answer BLOB NOT NULL,
    created_us INTEGER NOT NULL,
    PRIMARY KEY (scope, key)
) STRICT, WITHOUT ROWID;

CREATE INDEX request_answers_created ON request_answers (created_us);
