-- Version 2: refused Nanogridata frames, kept to be looked at and tried again.
CREATE TABLE quarantine (
    id INTEGER PRIMARY KEY,           -- only grows: what was refused earlier has the smaller one
    digest BLOB NOT NULL UNIQUE,      -- SHA-256 of the frame as it came
    first_us INTEGER NOT NULL,        -- when it first came, by the wall clock of then
    last_us INTEGER NOT NULL,         -- when it last came
    seen INTEGER NOT NULL,            -- how often it came
    boot TEXT NOT NULL,               -- during which run of the machine it first came; empty: unknown
    steady_us INTEGER NOT NULL,       -- how long the machine had been running then
    transport TEXT NOT NULL,
    address TEXT NOT NULL,
    actor TEXT NOT NULL,              -- who sent it, as in the audit log
    pattern TEXT NOT NULL,            -- of the sensors that its sender may touch; empty: all
    user_id TEXT,                     -- whose account it counts for
    outcome TEXT NOT NULL,            -- why it was refused last
    detail TEXT NOT NULL,
    byte_offset INTEGER,              -- the byte of the frame at which that was found
    model_id INTEGER,
    sensor_id TEXT NOT NULL,          -- the sensor, as far as the frame could be read
    counted_as TEXT NOT NULL,         -- under which name it stands in the loss ledger; empty: unknown
    given TEXT NOT NULL,              -- the sensor that was named beside the frame
    is_early INTEGER NOT NULL,        -- 1: refused for its time by a clock that was not trusted
    state TEXT NOT NULL CHECK (state IN ('held', 'trying', 'unsure')),
    tried_us INTEGER,                 -- trying, unsure: since when
    note BLOB,                        -- header time and identity, as the journal notes stored frames
    size INTEGER NOT NULL,            -- bytes that came; more than the frame here if it was cut
    frame BLOB NOT NULL
) STRICT;

CREATE INDEX quarantine_note ON quarantine (note) WHERE note IS NOT NULL;
CREATE INDEX quarantine_outcome ON quarantine (outcome, id);
CREATE INDEX quarantine_early ON quarantine (id) WHERE is_early = 1;
CREATE INDEX quarantine_trying ON quarantine (id) WHERE state = 'trying';
