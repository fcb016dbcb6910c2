"""The journal inside the appliance: SQLite, written by one thread, read by the mover's process."""

from ocean_core.buffer.embedded.journal import EmbeddedJournal, JournalTuning
from ocean_core.buffer.embedded.reader import JournalReader, ScrubStep

__all__ = ["EmbeddedJournal", "JournalReader", "JournalTuning", "ScrubStep"]
