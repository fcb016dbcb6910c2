"""What API, console and CLI share: queries, ingest, state, alarms, and the line between processes."""
