"""Long work as clients see it: started by one request, looked at by others, cancelled if need be."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, Literal

import msgspec

from ocean_core.model.errors import (
    InternalError,
    OceanError,
    RecordsFullError,
    UnknownRecordError,
    WorkCancelledError,
)
from ocean_core.obs.clock import Clock
from ocean_core.obs.log import EventLog

JOBS_KEPT: Final = 100
JOBS_RUNNING_MAX: Final = 8

JobState = Literal["running", "done", "failed", "cancelled"]


class JobError(msgspec.Struct, frozen=True):
    """Why a job failed, as in problem documents."""

    code: str
    detail: str
    hint: str


class Job(msgspec.Struct):
    """One piece of long work. ``total`` is 0 while its size is not known; times are microseconds."""

    id: str
    kind: str
    state: JobState
    started_us: int
    ended_us: int | None = None
    done: int = 0
    total: int = 0
    note: str = ""
    result: Any = None
    error: JobError | None = None


class JobBook:
    """Jobs of this run of the server, newest last; the oldest that ended are forgotten."""

    def __init__(self, clock: Clock, log: EventLog, new_id: Callable[[], str]) -> None:
        self._clock = clock
        self._log = log
        self._new_id = new_id
        self._jobs: dict[str, Job] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def start(self, kind: str, work: Callable[[Job], Awaitable[Any]]) -> Job:
        """Begin ``work``, which keeps ``done``, ``total`` and ``note`` up to date; return the job.

        Raises RecordsFullError while JOBS_RUNNING_MAX run.
        """
        if len(self._tasks) >= JOBS_RUNNING_MAX:
            raise RecordsFullError(f"{len(self._tasks)} jobs are running; wait for one of them")
        job = Job(self._new_id(), kind, "running", self._clock.now_us())
        self._jobs[job.id] = job
        for old in [known.id for known in self._jobs.values() if known.state != "running"]:
            if len(self._jobs) <= JOBS_KEPT:
                break
            del self._jobs[old]
        task = asyncio.get_running_loop().create_task(self._run(job, work))
        self._tasks[job.id] = task
        task.add_done_callback(lambda _task: self._ended(job))
        return job

    async def _run(self, job: Job, work: Callable[[Job], Awaitable[Any]]) -> None:
        try:
            job.result = await work(job)
            job.state = "done"
        except (asyncio.CancelledError, WorkCancelledError):
            job.state = "cancelled"
        except OceanError as error:
            job.state = "failed"
            job.error = JobError(error.code, error.detail, error.hint)
        except Exception as error:  # noqa: BLE001 - nobody else would hear of it
            job.state = "failed"
            self._log.error("work.ended", kind=job.kind, error=repr(error))
            fault = InternalError(f"{job.kind} failed unexpectedly; the log tells more")
            job.error = JobError(fault.code, fault.detail, fault.hint)

    def _ended(self, job: Job) -> None:
        if job.state == "running":
            # Cancelled before it could begin.
            job.state = "cancelled"
        job.ended_us = self._clock.now_us()
        self._tasks.pop(job.id, None)

    def get(self, job_id: str) -> Job:
        """Return a job. Raises UnknownRecordError."""
        job = self._jobs.get(job_id)
        if job is None:
            raise UnknownRecordError(f"there is no job {job_id}")
        return job

    def all(self) -> list[Job]:
        """Return all jobs, newest last."""
        return list(self._jobs.values())

    def cancel(self, job_id: str) -> Job:
        """Have a job end soon; one that has ended stays as it is. Raises UnknownRecordError."""
        job = self.get(job_id)
        task = self._tasks.get(job_id)
        if task is not None:
            task.cancel()
        return job

    async def close(self) -> None:
        """Cancel everything and wait for it."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
