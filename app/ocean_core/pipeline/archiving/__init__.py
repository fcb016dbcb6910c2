"""What keeps the archive: sealing, compaction, retention, and loading it back."""
