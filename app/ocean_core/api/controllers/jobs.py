"""Long work: what runs, how far it is, and how to end it; and the archive, which is kept by it."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from litestar import Controller, delete, get, post
from litestar.params import FromPath
from litestar.types import ASGIApp

from ocean_core.api.answer import answer
from ocean_core.api.openapi import answers
from ocean_core.api.paging import query_texts
from ocean_core.api.record_schemas import READ_PROBLEMS
from ocean_core.api.services import AnyRequest, Services, services_of
from ocean_core.obs.clock import iso_utc
from ocean_core.service.jobs import Job, JobError
from ocean_core.service.messages import WorkProgress

JOBS_PATH: Final = "/api/ocean/jobs"


class JobAnswer(msgspec.Struct):
    """One piece of long work; ``state`` is running, done, failed or cancelled.

    ``total`` is 0 while its size is not known. ``url`` is where to ask again.
    """

    job_id: str
    kind: str
    state: str
    done: int
    total: int
    note: str
    started_at: str
    ended_at: str | None
    result: Any
    error: JobError | None
    url: str


class JobList(msgspec.Struct):
    """Jobs of this run of the server, newest last."""

    jobs: list[JobAnswer]


def job_answer(job: Job) -> JobAnswer:
    """Return a job as clients see it."""
    return JobAnswer(
        job.id, job.kind, job.state, job.done, job.total, job.note, iso_utc(job.started_us),
        None if job.ended_us is None else iso_utc(job.ended_us), job.result, job.error,
        f"{JOBS_PATH}/{job.id}",
    )  # fmt: skip


def start_analytics_work(services: Services, kind: str, params: dict[str, Any]) -> JobAnswer:
    """Have the analytics process do long work as a job. Raises RecordsFullError."""

    async def work(job: Job) -> object:
        def on_progress(told: WorkProgress) -> None:
            job.done, job.total, job.note = told.done, told.total, told.note

        return msgspec.json.decode(await services.link.work(kind, params, on_progress))

    return job_answer(services.jobs.start(kind, work))


class JobsController(Controller):
    """Routes of long work."""

    path = "/api/ocean"
    tags = ("Long work",)

    @get(
        "/jobs",
        opt={"access": "admin"},
        responses=answers(JobList, *READ_PROBLEMS),
        summary="Long work",
    )
    async def jobs(self, request: AnyRequest) -> ASGIApp:
        """Return the jobs of this run of the server: those that run, and the last that ended."""
        query_texts(request)
        return answer(JobList([job_answer(job) for job in services_of(request).jobs.all()]))

    @get(
        "/jobs/{job_id:str}",
        opt={"access": "admin"},
        responses=answers(JobAnswer, *READ_PROBLEMS, 404),
        summary="One piece of long work",
    )
    async def job(self, request: AnyRequest, job_id: FromPath[str]) -> ASGIApp:
        """Return how far a job is, and once it has ended, its result or why it failed."""
        query_texts(request)
        return answer(job_answer(services_of(request).jobs.get(job_id)))

    @delete(
        "/jobs/{job_id:str}",
        opt={"access": "admin"},
        status_code=200,
        responses=answers(JobAnswer, *READ_PROBLEMS, 404),
        summary="Cancel long work",
    )
    async def cancel(self, request: AnyRequest, job_id: FromPath[str]) -> ASGIApp:
        """Have a job end soon; one that has ended stays as it is."""
        query_texts(request)
        return answer(job_answer(services_of(request).jobs.cancel(job_id)))

    @post(
        "/archive/seal",
        opt={"access": "admin"},
        status_code=200,
        responses=answers(JobAnswer, *READ_PROBLEMS, 507),
        summary="Seal now",
    )
    async def seal(self, request: AnyRequest) -> ASGIApp:
        """Move everything acknowledged so far into Parquet files of the archive, as a job.

        It happens by itself once a day, or after a million readings.
        """
        query_texts(request)
        services = services_of(request)
        # What was acknowledged before this is to be sealed, so analytics must have it.
        await services.link.query("sensors", {"limit": 1}, wait=True)
        return answer(start_analytics_work(services, "seal", {}))
