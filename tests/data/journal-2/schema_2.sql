-- What version 2 of the journal added. A new file gets it behind schema.sql, a file of version 1
-- when it is opened; with auto-vacuum a new table's root page comes behind all others, so both have
-- the same root pages.

-- Rows stored for each user since ever, and how many of them cost credits.
CREATE TABLE usage (
    user_id TEXT PRIMARY KEY,
    stored INTEGER NOT NULL,
    charged INTEGER NOT NULL,
    crc INTEGER NOT NULL         -- of the row
) WITHOUT ROWID;

-- Consumer groups: each has acknowledged every id up to its cursor.
CREATE TABLE consumers (
    group_name TEXT PRIMARY KEY,
    created_us INTEGER NOT NULL,
    cursor INTEGER NOT NULL,
    evicted INTEGER NOT NULL,    -- ids deleted before the group acknowledged them
    crc INTEGER NOT NULL         -- of the row: a damaged byte must not skip readings
) WITHOUT ROWID;

-- What a group has acknowledged beyond its cursor: ranges that do not touch.
CREATE TABLE acknowledged (
    group_name TEXT NOT NULL,
    first_id INTEGER NOT NULL,
    last_id INTEGER NOT NULL,
    crc INTEGER NOT NULL,        -- of the row and the group's created_us
    PRIMARY KEY (group_name, first_id)
) WITHOUT ROWID;
