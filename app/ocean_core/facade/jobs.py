"""Long work from outside: start it, watch it, get its result; and the archive."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from ocean_core.facade.base import API, Json, Part, segment
from ocean_core.model.errors import OceanError, WorkCancelledError, all_error_classes

POLL_S: Final = 0.2

_CLASSES: Final = {cls.code: cls for cls in all_error_classes()}


class Jobs(Part):
    """Jobs of the server, and what starts them."""

    def jobs(self) -> list[Json]:
        """Return the jobs of this run of the server, newest last."""
        listed: list[Json] = self._get("/jobs")["jobs"]
        return listed

    def cancel_job(self, job_id: str) -> Json:
        """Have a job end soon. Raises UnknownRecordError."""
        job: Json = self._api.call("DELETE", f"{API}/jobs/{segment(job_id)}")
        return job

    def follow_job(
        self,
        job: Json,
        on_progress: Callable[[Json], object] | None = None,
        *,
        pause: Callable[[float], object] = time.sleep,
    ) -> Json:
        """Return the result of a job once it is done; ``on_progress`` gets each state before.

        Raises the error of a job that failed, WorkCancelledError for one that was cancelled.
        """
        while job["state"] == "running":
            if on_progress is not None:
                on_progress(job)
            pause(POLL_S)
            job = self._get(f"/jobs/{segment(job['job_id'])}")
        if on_progress is not None:
            on_progress(job)
        if job["state"] == "cancelled":
            raise WorkCancelledError(f"{job['kind']} was cancelled")
        if job["state"] == "failed":
            error = job["error"]
            raise _CLASSES.get(error["code"], OceanError)(error["detail"], hint=error["hint"])
        result: Json = job["result"]
        return result

    def seal_archive(self, on_progress: Callable[[Json], object] | None = None) -> Json:
        """Move everything acknowledged so far into the archive; return what that made.

        ``rows``, ``parts``, ``bytes``, and ``sealed_up_to``, the last id in the archive.
        """
        return self.follow_job(self._post("/archive/seal", None, repeatable=True), on_progress)
