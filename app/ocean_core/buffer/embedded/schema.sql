-- The journal. What stands here is compared with the file at every start: a file whose schema
-- differs is damaged. Root pages must stay where this order puts them. These are the tables of
-- version 1, not to be changed: files of that version are compared with them too. What came later
-- stands in schema_2.sql.

CREATE TABLE telemetry_buffer (
    id INTEGER PRIMARY KEY,      -- id of the first reading of the block
    count INTEGER NOT NULL,      -- how many readings; the last id is id + count - 1
    timestamp INTEGER NOT NULL,  -- arrival, microseconds since 1970-01-01 UTC
    kind INTEGER NOT NULL,       -- 0 readings, 1 events
    uuid BLOB NOT NULL,
    data BLOB NOT NULL,          -- the packed block; carries its own first id and CRC
    keys BLOB                    -- idempotency keys of the requests inside, see rows.py
);

CREATE TABLE meta (
    key TEXT PRIMARY KEY,
    value NOT NULL,
    crc INTEGER NOT NULL         -- of key and value: a damaged byte must not move an id
) WITHOUT ROWID;

CREATE TABLE idempotency (
    scope TEXT NOT NULL,
    key TEXT NOT NULL,
    digest BLOB NOT NULL,
    created_us INTEGER NOT NULL,
    receipt BLOB NOT NULL,       -- CRC of the row, then msgpack of model.receipt.Receipt
    PRIMARY KEY (scope, key)
) WITHOUT ROWID;

CREATE INDEX idempotency_created ON idempotency (created_us);

-- Acknowledged ids that are known to be lost.
CREATE TABLE missing (
    first_id INTEGER PRIMARY KEY,
    last_id INTEGER NOT NULL,
    found_us INTEGER NOT NULL,
    reason TEXT NOT NULL,
    crc INTEGER NOT NULL         -- of first and last id
);

-- Damaged blocks taken out of the way, for whoever wants to look at them. The newest few.
CREATE TABLE set_aside (
    id INTEGER PRIMARY KEY,
    found_us INTEGER NOT NULL,
    data BLOB NOT NULL
);

-- The row without a name is the journal itself: a second copy of its epoch, on another page. Other
-- rows are not in use: consumer groups have tables of their own (schema_2.sql), with a CRC.
CREATE TABLE cursors (
    group_name TEXT PRIMARY KEY,
    epoch TEXT NOT NULL,
    id INTEGER NOT NULL
) WITHOUT ROWID;
