"""The ingestion buffer: durable before acknowledged, read in order by the mover."""
