"""Before each positive answer the journal was written and synced, as the kernel saw it (I1).

kill -9 cannot show this, because what was written survives it without a sync.
"""

import re
from pathlib import Path

import pytest

from support.appliance import Appliance
from support.load import Writer, post
from support.tools import require_tool
from support.trace import Call, read_trace

SINGLES = 30
BATCHES = 4
TRACED = "fsync,fdatasync,pwrite64,write,writev,sendto,sendmsg,read,recvfrom,recvmsg,accept4"
READS = {"read", "recvfrom", "recvmsg"}
FAST = re.compile(r"^ocean_ingress_fast_requests_total (\d+)$", re.MULTILINE)
WRITES = {"write", "writev", "sendto", "sendmsg"}

pytestmark = [pytest.mark.crash, pytest.mark.timeout(120)]


def trace_of(tmp_path: Path, durability: str, *, fast: bool = True) -> list[Call]:
    """Post readings one after the other to a traced appliance; return its system calls."""
    trace = tmp_path / "trace"
    prefix = [
        require_tool("strace"), "--follow-forks", "--seccomp-bpf", "--decode-fds=path",
        "--string-limit=64", f"--trace={TRACED}", "--output", str(trace),
    ]  # fmt: skip
    with Appliance(
        tmp_path / "data", prefix=prefix,
        OCEAN_JOURNAL__DURABILITY=durability, OCEAN_SERVER__FAST_PATH=str(fast).lower(),
    ) as box:  # fmt: skip
        box.start()
        writer = Writer("traced", 1, seed=1)
        http = box.http()
        for _ in range(SINGLES):
            assert post(http, writer.single())
        for count in range(1, BATCHES + 1):
            assert post(http, writer.batch(1000 * count))
        counted = FAST.search(http.get("/metrics").body.decode())
        assert (0 if counted is None else int(counted[1])) == (SINGLES + BATCHES if fast else 0)
        http.close()
        assert box.stop() == 0
    return read_trace(trace)


def answers_in(calls: list[Call]) -> list[tuple[Call, Call]]:
    """Return (arrival, answer) of each ingest request: the first bytes of both, by connection."""
    found: list[tuple[Call, Call]] = []
    arrival: Call | None = None
    for call in calls:
        if call.name in READS and '"POST /api/ocean/telemetry/' in call.text:
            arrival = call
        elif (
            arrival is not None
            and call.name in WRITES
            and '"HTTP/1.1 200' in call.text
            and call.target == arrival.target
        ):
            found.append((arrival, call))
            arrival = None
    return found


def is_synced(calls: list[Call], arrival: Call, answer: Call) -> bool:
    """Return whether what the request wrote into the journal was synced before the answer began."""
    between = [
        call
        for call in calls
        if call.began > arrival.ended and call.ended < answer.began and is_journal(call)
    ]
    written = [call.ended for call in between if call.name == "pwrite64" and call.result > 0]
    return bool(written) and any(
        call.name in {"fsync", "fdatasync"} and call.result == 0 and call.began > written[-1]
        for call in between
    )


def is_journal(call: Call) -> bool:
    return call.target.endswith(("/journal.db-wal", "/journal.db"))


@pytest.mark.parametrize("fast", [True, False], ids=["fast path", "ordinary routes"])
def test_every_positive_answer_follows_a_sync(tmp_path: Path, *, fast: bool) -> None:
    calls = trace_of(tmp_path, "fsync", fast=fast)
    answers = answers_in(calls)
    assert len(answers) == SINGLES + BATCHES
    hasty = [answer.text for arrival, answer in answers if not is_synced(calls, arrival, answer)]
    assert hasty == []


def test_the_check_sees_answers_without_a_sync(tmp_path: Path) -> None:
    """With the durability that does not promise it, the same check must find violations."""
    calls = trace_of(tmp_path, "os")
    answers = answers_in(calls)
    assert len(answers) == SINGLES + BATCHES
    hasty = [answer for arrival, answer in answers if not is_synced(calls, arrival, answer)]
    assert len(hasty) >= SINGLES


def test_a_trace_is_read_in_the_order_of_begin_and_end(tmp_path: Path) -> None:
    path = tmp_path / "trace"
    path.write_text(
        '10 read(5<socket:[1]>, "POST /api/ocean/telemetry/ingest", 64) = 32\n'
        '11 pwrite64(7</d/journal.db-wal>, "x", 1, 0) = 1\n'
        "11 fdatasync(7</d/journal.db-wal> <unfinished ...>\n"
        '10 write(5<socket:[1]>, "HTTP/1.1 200 OK", 15) = 15\n'
        "11 <... fdatasync resumed>) = 0\n"
    )
    calls = read_trace(path)
    assert [(call.name, call.began, call.ended) for call in calls] == [
        ("read", 0, 0), ("pwrite64", 1, 1), ("write", 3, 3), ("fdatasync", 2, 4),
    ]  # fmt: skip
    [(arrival, answer)] = answers_in(calls)
    assert not is_synced(calls, arrival, answer)
