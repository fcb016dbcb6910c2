"""The archive: readings, events and rollups in Parquet files, and the manifest that owns them.

``manifest`` knows no DuckDB, so that the ingest process can read it, too.
"""
