"""Long work on both sides: it is told of, it can be cancelled, and every end is an answer."""

import asyncio
import threading
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from ocean_core.model.errors import RecordsFullError, StoreIOError, UnknownRecordError
from ocean_core.obs.clock import ManualClock
from ocean_core.service.jobs import JOBS_KEPT, JOBS_RUNNING_MAX, Job, JobBook
from ocean_core.service.messages import CancelWork, Work, WorkDone, WorkProgress
from ocean_core.service.work import WorkContext, WorkRunner
from support.archive_kit import quiet_log

WAIT_S = 20.0


class Line:
    """What a runner says, and when it is over."""

    def __init__(self, **functions: Any) -> None:
        clock = ManualClock()
        self.told: list[WorkProgress | WorkDone] = []
        self.ended = threading.Event()
        self.runner = WorkRunner(functions, self.say, clock=clock, log=quiet_log(clock))

    def say(self, message: WorkProgress | WorkDone) -> None:
        self.told.append(message)
        if isinstance(message, WorkDone):
            self.ended.set()

    def done(self) -> WorkDone:
        assert self.ended.wait(WAIT_S)
        last = self.told[-1]
        assert isinstance(last, WorkDone)
        self.runner.stop()
        return last


def test_work_tells_its_progress_and_its_result() -> None:
    def count(params: Mapping[str, Any], context: WorkContext) -> object:
        context.progress(1, 2, "half")
        return {"asked": params["up_to"]}

    line = Line(count=count)
    line.runner.begin(Work(7, "count", {"up_to": 3}))
    done = line.done()
    assert msgspec.json.decode(done.body) == {"asked": 3}
    assert line.told[0] == WorkProgress(7, 1, 2, "half")


@pytest.mark.parametrize(
    ("error", "code"), [(StoreIOError("gone"), "OC-4002"), (ValueError("ours"), "OC-9001")]
)
def test_work_that_fails_says_so(error: Exception, code: str) -> None:
    def fail(_params: Mapping[str, Any], _context: WorkContext) -> object:
        raise error

    line = Line(fail=fail)
    line.runner.begin(Work(1, "fail", {}))
    told = line.done().error
    assert told is not None
    assert told.code == code


def test_unknown_work_is_refused() -> None:
    line = Line()
    line.runner.begin(Work(1, "dance", {}))
    told = line.done().error
    assert told is not None
    assert "dance" in told.detail


def test_work_that_runs_is_cancelled() -> None:
    running = threading.Event()
    cancelled = threading.Event()

    def long(_params: Mapping[str, Any], context: WorkContext) -> object:
        running.set()
        assert cancelled.wait(WAIT_S)
        context.check()
        return None

    line = Line(long=long)
    line.runner.begin(Work(1, "long", {}))
    assert running.wait(WAIT_S)
    line.runner.cancel(CancelWork(1))
    cancelled.set()
    told = line.done().error
    assert told is not None
    assert told.code == "OC-4008"


def book() -> JobBook:
    clock = ManualClock()
    numbers = iter(range(10_000))
    return JobBook(clock, quiet_log(clock), lambda: str(next(numbers)))


async def settled(jobs: JobBook, job: Job) -> Job:
    while job.state == "running":
        await asyncio.wait(list(jobs._tasks.values()), timeout=WAIT_S)
    return job


def test_a_job_ends_with_its_result_or_its_error() -> None:
    async def good(job: Job) -> object:
        job.done, job.total = 5, 5
        return {"rows": 5}

    async def bad(_job: Job) -> object:
        raise StoreIOError("no")

    async def worse(_job: Job) -> object:
        raise ValueError("ours")

    async def run() -> None:
        jobs = book()
        done = await settled(jobs, jobs.start("good", good))
        assert (done.state, done.result, done.done) == ("done", {"rows": 5}, 5)
        failed = await settled(jobs, jobs.start("bad", bad))
        assert failed.error is not None
        assert (failed.state, failed.error.code) == ("failed", "OC-4002")
        unforeseen = await settled(jobs, jobs.start("worse", worse))
        assert unforeseen.error is not None
        assert unforeseen.error.code == "OC-9001"
        with pytest.raises(UnknownRecordError):
            jobs.get("nobody")

    asyncio.run(run())


def test_jobs_are_bounded_and_cancelled_at_the_end() -> None:
    async def forever(_job: Job) -> object:
        return await asyncio.Event().wait()

    async def nothing(_job: Job) -> object:
        return None

    async def run() -> None:
        jobs = book()
        for _ in range(JOBS_KEPT + 20):
            await settled(jobs, jobs.start("nothing", nothing))
        assert len(jobs.all()) == JOBS_KEPT
        running = [jobs.start("forever", forever) for _ in range(JOBS_RUNNING_MAX)]
        with pytest.raises(RecordsFullError):
            jobs.start("forever", forever)
        await settled(jobs, jobs.cancel(running[0].id))
        assert running[0].state == "cancelled"
        jobs.start("nothing", nothing)
        await jobs.close()
        assert {job.state for job in running} == {"cancelled"}

    asyncio.run(run())
