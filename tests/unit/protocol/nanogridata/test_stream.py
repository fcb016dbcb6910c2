"""Frames out of streams: the 22 with known results, in any pieces, and what attacks may cost."""

from itertools import pairwise
from random import Random
from typing import Any

import pytest

from ocean_core.protocol.nanogridata import stream
from ocean_core.protocol.nanogridata.check import check_time, frame_id
from ocean_core.protocol.nanogridata.content import open_payload
from ocean_core.protocol.nanogridata.decoder import FixedKeys, FixedPolicy, RecentFrames
from ocean_core.protocol.nanogridata.frame import (
    FRAME_BYTES_MAX,
    FrameRefusedError,
    Options,
    Outcome,
)
from ocean_core.protocol.nanogridata.secret import HmacSecret
from ocean_core.protocol.nanogridata.stream import Found, Proven, Skipped, StreamReader, Suspect
from support.nanogrid import (
    KEYS,
    NO_KEYS,
    POLICY,
    SECRET,
    golden,
    keys_of,
    options_of,
    pressure_frame,
    read_all,
    told,
    total_bytes,
)

STREAMS = golden()["streams"]
HEADERS = {
    "largest, each right behind the last": bytes.fromhex("c153011001010400000000000000"),
    "level 0, each within the last": bytes.fromhex("c1530110010000"),
    "both": bytes.fromhex("c1530110010103c1530110010000"),
    "both, all of level 0": bytes.fromhex("c1530110010003c1530110010000"),
}


def reader_of(case: dict[str, Any]) -> StreamReader:
    return StreamReader(FixedPolicy(options_of(case)), keys_of(case))


def outcomes(case: dict[str, Any], found: list[Found]) -> dict[str, Any]:
    """Return what a server reports, with its memory of frames that lasts for the stream."""
    policy, replay = FixedPolicy(options_of(case)), RecentFrames()
    accepted, rejected = [], []
    for item in found:
        if not isinstance(item, Proven):
            continue
        try:
            check_time(item.header, policy.options(item.header.model_id), case["now"])
            identity = frame_id(item.frame, item.header)
            if not replay.check_and_remember(identity, item.header.timestamp, case["now"]):
                raise FrameRefusedError(Outcome.REPLAY, 0, "")
            open_payload(item.frame, item.header, item.proof, policy)
        except FrameRefusedError:
            rejected.append(item.frame.hex())
        else:
            accepted.append(item.frame.hex())
    skipped = sum(item.count for item in found if isinstance(item, Skipped))
    return {"accepted": accepted, "rejected": rejected, "skipped_bytes": skipped}


def rejected_frames(case: dict[str, Any]) -> list[str]:
    return [item["frame"] if isinstance(item, dict) else item for item in case["rejected"]]


def test_the_file_is_complete() -> None:
    assert len({case["id"] for case in STREAMS}) == 22


@pytest.mark.parametrize("case", STREAMS, ids=[case["id"] for case in STREAMS])
def test_stream(case: dict[str, Any]) -> None:
    chunks = [bytes.fromhex(chunk) for chunk in case["chunks"]]
    reader = reader_of(case)
    found = read_all(reader, chunks)
    expected = {key: case[key] for key in ("accepted", "skipped_bytes")}
    assert outcomes(case, found) == {**expected, "rejected": rejected_frames(case)}
    assert total_bytes(found) == sum(map(len, chunks))
    assert reader.pending == 0


@pytest.mark.parametrize("case", STREAMS, ids=[case["id"] for case in STREAMS])
def test_stream_in_other_pieces(case: dict[str, Any]) -> None:
    whole = bytes.fromhex("".join(case["chunks"]))
    expected = told(read_all(reader_of(case), [whole]))
    single = [whole[at : at + 1] for at in range(len(whole))]
    assert told(read_all(reader_of(case), single)) == expected
    random = Random(case["id"])
    for _ in range(20):
        cuts = sorted(random.randrange(len(whole) + 1) for _ in range(random.randrange(9)))
        pieces = [whole[start:end] for start, end in pairwise([0, *cuts, len(whole)])]
        assert told(read_all(reader_of(case), pieces)) == expected


# --- what is told -------------------------------------------------------------------------------


def test_a_frame_comes_as_soon_as_its_last_byte() -> None:
    frame = pressure_frame()
    reader = StreamReader(POLICY, KEYS)
    assert reader.feed(frame[:-1]) == []
    assert reader.pending == len(frame) - 1
    [found] = reader.feed(frame[-1:])
    assert isinstance(found, Proven)
    assert found.frame == frame
    assert found.proof.secret is not None
    assert reader.pending == 0


def test_a_run_of_garbage_is_told_once_with_its_first_fault() -> None:
    reader = StreamReader(POLICY, KEYS)
    bad_version = b"\xc1\x53\x09" + bytes(11)
    assert reader.feed(b"abc" + bad_version) == []
    assert reader.feed(b"more" * 10) == []
    skipped, proven = reader.feed(pressure_frame())
    assert isinstance(skipped, Skipped)
    assert skipped.count == 3 + 14 + 40
    assert skipped.first_error is not None
    assert skipped.first_error.outcome == Outcome.VERSION
    assert isinstance(proven, Proven)
    assert reader.end() == []


def test_a_run_without_a_beginning_has_no_fault() -> None:
    reader = StreamReader(POLICY, KEYS)
    reader.feed(b"\xc1hello\xc1")
    assert told(reader.end()) == [("Skipped", 7, None)]


def test_what_fails_its_check_value_is_told_and_searched() -> None:
    inner = pressure_frame("INNER")
    # A frame whose length claims the one that follows, too.
    outer = bytearray(pressure_frame("OUTER", secret=bytes(32)))
    outer[7] += len(inner)
    found = StreamReader(POLICY, KEYS).feed(bytes(outer) + inner)
    suspect, skipped, proven = found
    assert isinstance(suspect, Suspect)
    assert suspect.error.outcome == Outcome.MAC
    assert suspect.frame == bytes(outer) + inner
    assert isinstance(skipped, Skipped)
    assert skipped.count == len(outer)
    assert isinstance(proven, Proven)
    assert proven.frame == inner


def test_frames_without_a_secret_are_each_told() -> None:
    frames = [pressure_frame(pascal=value) for value in range(50)]
    reader = StreamReader(POLICY, NO_KEYS)
    found = read_all(reader, [b"".join(frames)])
    assert [item.frame for item in found if isinstance(item, Suspect)] == frames
    assert {item.error.outcome for item in found if isinstance(item, Suspect)} == {Outcome.KEY}
    assert total_bytes(found) == sum(map(len, frames))


def test_a_disabled_crc_form_is_named() -> None:
    [suspect] = StreamReader(POLICY, KEYS).feed(pressure_frame(level=0, crc_variant="split"))
    assert isinstance(suspect, Suspect)
    assert suspect.error.crc_disabled == "split"


def test_a_length_beyond_the_limit_of_its_model_is_not_waited_for() -> None:
    reader = StreamReader(FixedPolicy(Options(max_payload=20)), KEYS)
    reader.feed(pressure_frame("A-DEVICE-WITH-A-LONG-NAME")[:14])
    assert reader.pending == 0


def test_it_goes_on_after_an_idle_time() -> None:
    frame = pressure_frame()
    reader = StreamReader(POLICY, KEYS)
    reader.feed(frame[:20])
    assert [row[:2] for row in told(reader.end())] == [("Skipped", 20)]
    assert [row[:2] for row in told(reader.feed(frame))] == [("proven", frame)]


def test_an_unfinished_candidate_gives_back_the_frames_within_it() -> None:
    frame = pressure_frame()
    claim = bytes.fromhex("c153011001010400000000000000")
    reader = StreamReader(POLICY, KEYS)
    assert reader.feed(claim + frame + b"\xc1") == []
    assert [row[0] for row in told(reader.end())] == ["Skipped", "proven", "Skipped"]


# --- what it may cost ---------------------------------------------------------------------------


def several_secrets(count: int) -> FixedKeys:
    return FixedKeys({}, [HmacSecret(bytes([number]) * 32, f"{number}") for number in range(count)])


class CountingSecret(HmacSecret):
    """Counts the bytes that it worked on."""

    hashed = 0

    def mac(self, covered: bytes) -> bytes:
        type(self).hashed += len(covered)
        return super().mac(covered)


def test_headers_cannot_stand_closer_than_7_bytes() -> None:
    """The bound on work rests on this: where a second header may begin within a first."""
    any_byte = set(range(256))
    fits: list[set[int]] = [
        {0xC1}, {0x53}, {1}, any_byte, set(range(1, 6)), set(range(4)), set(range(5)),
        any_byte, any_byte, any_byte, any_byte, any_byte, {0}, {0},
    ]  # fmt: skip
    distances = [
        distance
        for distance in range(1, 14)
        if all(fits[place + distance] & fits[place] for place in range(14 - distance))
    ]
    assert distances == [7]


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
@pytest.mark.parametrize("size", [65_536, 262_144])
def test_work_for_garbage_is_linear(header: bytes, size: int) -> None:
    class Counted(CountingSecret):
        hashed = 0

    reader = StreamReader(POLICY, FixedKeys({}, [Counted(SECRET, "counted")]))
    flood = (header * (size // len(header) + 1))[:size]
    found = []
    held = 0
    for at in range(0, size, 4096):
        found += reader.feed(flood[at : at + 4096])
        held = max(held, reader.pending)
    found += reader.end()
    assert Counted.hashed <= 85 * size
    assert reader._vain_bytes <= 85 * size
    assert not reader.is_hopeless
    assert total_bytes(found) == size
    assert held < FRAME_BYTES_MAX
    suspects = sum(len(item.frame) for item in found if isinstance(item, Suspect))
    assert suspects <= stream.SUSPECT_BYTES_PER_BYTE * size


def test_a_stream_that_costs_too_much_is_given_up() -> None:
    size = 1 << 20
    reader = StreamReader(POLICY, several_secrets(32))
    header = HEADERS["largest, each right behind the last"]
    flood = (header * (size // len(header) + 1))[:size]
    found = reader.feed(flood)
    assert reader.is_hopeless
    per_frame = 32 * FRAME_BYTES_MAX
    most = stream.VAIN_BYTES_FREE + stream.VAIN_BYTES_PER_BYTE * size + per_frame
    assert reader._vain_bytes <= most
    found += reader.feed(pressure_frame())
    assert reader.pending == 0
    found += reader.end()
    assert total_bytes(found) == size + len(pressure_frame())
    assert not any(isinstance(item, Proven) for item in found)


def test_honest_frames_with_many_secrets_are_never_given_up() -> None:
    unknown = pressure_frame(secret=b"known to nobody")
    reader = StreamReader(POLICY, several_secrets(32))
    found = read_all(reader, [unknown * 2_000])
    assert not reader.is_hopeless
    assert sum(isinstance(item, Suspect) for item in found) == 2_000
