-- What version 3 of the journal added; see schema_2.sql.

-- Readings and events that came again with an Idempotency-Key and were answered, not stored.
CREATE TABLE duplicates (
    sensor_id TEXT PRIMARY KEY,  -- as it came; empty: not known, or one of too many
    count INTEGER NOT NULL,
    updated_us INTEGER NOT NULL,
    crc INTEGER NOT NULL         -- of the row
) WITHOUT ROWID;
