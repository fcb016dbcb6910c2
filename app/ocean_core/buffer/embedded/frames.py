"""Reads the notes of stored frames, beside the writer and not in its way.

They are read once, when the process starts, so no file stays open for it.
"""

from __future__ import annotations

from pathlib import Path

from ocean_core.buffer.embedded.reader import JournalReader
from ocean_core.model.receipt import FRAME_NOTE_BYTES


def read_frames(
    path: Path, vfs: str | None, head_id: int, since_us: int, frames_max: int
) -> list[bytes]:
    """Return notes beside blocks up to an id; see ``FrameNotes.kept_frames``. Takes a while."""
    reader = JournalReader(path, vfs=vfs)
    found: list[bytes] = []
    bytes_left = frames_max * FRAME_NOTE_BYTES
    # Only what is durable: behind it there may be what a failed sync has left.
    before_id: int | None = head_id + 1
    try:
        # In steps, for the WAL cannot be emptied while somebody reads.
        while before_id is not None and bytes_left > 0:
            step = reader.frames_before(before_id, since_us)
            for frames in step.frames:
                if bytes_left <= 0:
                    break
                found.append(frames)
                bytes_left -= len(frames)
            before_id = step.before_id
    finally:
        reader.close()
    return found
