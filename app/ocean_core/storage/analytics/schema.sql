-- analytics.duckdb, version 1. An index over journal and archive: it may be thrown away at any time.
-- No primary key, unique constraint, index or upsert: they are slow, and most public reports of
-- damaged DuckDB files involve them. The mover alone guards what must be unique.
CREATE TABLE meta (key VARCHAR, value VARCHAR);

-- One row: everything up to this id of this journal epoch is in the tables below.
CREATE TABLE watermark (epoch VARCHAR, id BIGINT);

-- metric '' stands for the events of a sensor.
CREATE TABLE series (series_id INTEGER, sensor_id VARCHAR, metric VARCHAR, first_id BIGINT);

CREATE TABLE readings (
    id BIGINT, series_id INTEGER, ts TIMESTAMP, value DOUBLE, quality UTINYINT
);

CREATE TABLE events (
    id BIGINT, series_id INTEGER, ts TIMESTAMP, quality UTINYINT, payload VARCHAR
);

-- Append-only partials: several rows may stand for one (series_id, bucket); merge them on read.
CREATE TABLE rollup_1m (
    series_id INTEGER, bucket TIMESTAMP, n BIGINT, mean DOUBLE, m2 DOUBLE, min DOUBLE, max DOUBLE,
    first_ts TIMESTAMP, first_value DOUBLE, last_ts TIMESTAMP, last_value DOUBLE
);

CREATE TABLE rollup_1h (
    series_id INTEGER, bucket TIMESTAMP, n BIGINT, mean DOUBLE, m2 DOUBLE, min DOUBLE, max DOUBLE,
    first_ts TIMESTAMP, first_value DOUBLE, last_ts TIMESTAMP, last_value DOUBLE
);
