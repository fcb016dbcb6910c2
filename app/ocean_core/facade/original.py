"""What the first product's engine offered under other names, so that its callers need not change."""

from __future__ import annotations

from collections.abc import Sequence

from ocean_core.facade.accounts import Sessions, Users
from ocean_core.facade.base import Json
from ocean_core.facade.telemetry import GROUP, Reading, Telemetry


class OriginalNames(Users, Sessions, Telemetry):
    """Names of the original. Where it answered False, -1 or None, these raise what went wrong."""

    def update_credits(self, user_id: str, amount: int) -> bool:
        """Add credits, as ``add_credits``; True."""
        self.add_credits(user_id, amount)
        return True

    def ingest_telemetry(self, sensor_id: str, data: Reading) -> int:
        """Store one item, as ``ingest``; its id."""
        return int(self.ingest(sensor_id, data)["id"])

    def get_unprocessed_telemetry(self, limit: int = 1_000) -> list[Json]:
        """Return readings not yet marked, as ``unprocessed`` for the group ``api``."""
        return self.unprocessed(GROUP, limit)

    def mark_telemetry_processed(self, telemetry_ids: Sequence[int]) -> bool:
        """Mark readings, as ``mark_processed`` for the group ``api``; True."""
        self.mark_processed(telemetry_ids)
        return True

    def get_stats(self) -> Json:
        """Return the original's figures.

        ``users`` and ``sessions`` (alive) are those of a second ago at most.
        ``telemetry_buffer`` is how many readings and events were ever stored,
        ``telemetry_processed`` how many of them the group ``api`` has marked, ``db_size_mb`` the
        size of all store files.
        """
        status = self._get("/status")
        marks: Json = next((group for group in self.groups() if group["name"] == GROUP), {})
        return {
            "users": status["accounts"]["users"],
            "sessions": status["accounts"]["sessions"],
            "telemetry_buffer": status["buffer"]["head_id"],
            # The cursor has passed what was deleted unread, too.
            "telemetry_processed": sum(marks.get(name, 0) for name in ("cursor", "ahead"))
            - marks.get("evicted", 0),
            "db_size_mb": round(sum(status["files_mb"].values()), 3),
        }
