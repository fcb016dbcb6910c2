"""Frames in the data of JSON items: found in hex and base64, and nothing else taken for one."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocean_core.model.errors import BodyTooLargeError, InvalidReadingError
from ocean_core.protocol.media import Media
from ocean_core.protocol.readings import DecodeContext, decode_batch, decode_single
from ocean_core.protocol.readings.framed import FRAME_KEPT_BYTES, frame_in

FRAME = bytes.fromhex("c153011001000004696b75090000") + b"\xfb\xff\xfe?"
CONTEXT = DecodeContext(arrival_us=1_780_000_000_000_000, clock_trusted=True, frames=True)


def text(content: str) -> bytes:
    return json.dumps(content).encode()


@given(st.binary(min_size=13, max_size=1100))
def test_every_way_of_writing_a_frame_is_found(rest: bytes) -> None:
    frame = b"\xc1\x53\x01" + rest
    standard = base64.b64encode(frame).decode()
    safe = base64.urlsafe_b64encode(frame).decode()
    for written in (frame.hex(), frame.hex().upper(), "C" + frame.hex()[1:], standard, safe,
                    standard.rstrip("="), safe.rstrip("=")):  # fmt: skip
        assert frame_in(text(written)) == frame[:FRAME_KEPT_BYTES]
    # As PHP writes a slash.
    assert frame_in(text(standard).replace(b"/", b"\\/")) == frame[:FRAME_KEPT_BYTES]


@pytest.mark.parametrize(
    "data",
    [
        '"c15301"', '"wVMB"', '"c1530110"', f'"{FRAME[:15].hex()}"', f'"{FRAME.hex()}0"',
        f'"{FRAME.hex()} "', f'" {FRAME.hex()}"', f'"0x{FRAME.hex()}"', f'"{FRAME.hex()}zz"',
        f'"c15302{FRAME.hex()[6:]}"', f'"{FRAME.hex()}ä"', '"wVMBEAEAAARpa3UJAAD7/-/*"',
        '"wVMBEAEAAARpa3UJAAD7//4/="', '"wVMBEAEAAARpa3UJAAD7/x==="', '"wVMBEAEAAARpa3UJAAD7/xxxx="',
        '"wVMBEAEAAARpa3UJAAD7\\n//4/"', f'["{FRAME.hex()}"]', f'{{"frame":"{FRAME.hex()}"}}', "null", "1",
        '"c15301\\ud800"',
    ],
)  # fmt: skip
def test_anything_else_is_none(data: str) -> None:
    assert frame_in(data.encode()) is None


@given(st.text(alphabet="wVMB0aA+/-_= c153é"))
def test_no_text_makes_it_fail(rest: str) -> None:
    for begin in ("c15301", "C15301", "wVMB"):
        found = frame_in(text(begin + rest))
        assert found is None or (found.startswith(b"\xc1\x53\x01") and len(found) >= 16)


def test_an_item_with_a_frame_is_set_apart() -> None:
    item = {"sensor_id": "s", "data": FRAME.hex(), "timestamp": "no time at all"}
    intake = decode_single(json.dumps(item).encode(), CONTEXT)
    assert (intake.items, intake.rows) == (0, 0)
    assert intake.carried == ((None, 0, "s", FRAME),)


def test_without_anybody_to_take_it_a_frame_is_a_text() -> None:
    context = DecodeContext(arrival_us=CONTEXT.arrival_us, clock_trusted=True)
    intake = decode_single(json.dumps({"sensor_id": "s", "data": FRAME.hex()}).encode(), context)
    assert intake.carried == ()
    assert intake.events is not None


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("media", [Media.JSON, Media.NDJSON])
def test_frames_are_found_among_other_items(media: Media, *, wrapped: bool) -> None:
    rows: list[dict[str, object]] = [{"sensor_id": "a", "value": n} for n in range(30)]
    rows[3] = {"sensor_id": "b", "data": FRAME.hex()}
    rows[20] = {"sensor_id": "c", "data": base64.b64encode(FRAME).decode()}
    rows[21] = {"sensor_id": "c", "data": "text"}
    body = json.dumps({"readings": rows} if wrapped else rows).encode()
    if media is Media.NDJSON:
        body = b"\n".join(json.dumps(row).encode() for row in rows)
    intake = decode_batch(body, CONTEXT, partial=False, media=media)
    assert intake.items == 28
    assert intake.carried == ((3, 3, "b", FRAME), (20, 19, "c", FRAME))


@pytest.mark.parametrize(
    "item",
    [
        {"sensor_id": "", "data": FRAME.hex()},
        {"sensor_id": "s", "data": FRAME.hex(), "value": 1},
        {"sensor_id": "s", "data": FRAME.hex(), "metric": "m"},
        {"sensor_id": "s", "data": FRAME.hex(), "unit": "Pa"},
        {"data": FRAME.hex()},
    ],
)
def test_an_item_that_is_bad_itself_is_refused_as_ever(item: dict[str, object]) -> None:
    with pytest.raises(InvalidReadingError):
        decode_single(json.dumps(item).encode(), CONTEXT)


def test_there_are_only_so_many_frames_in_a_request() -> None:
    one = json.dumps({"sensor_id": "s", "data": FRAME.hex()})
    with pytest.raises(BodyTooLargeError):
        decode_batch(f"[{','.join([one] * 65_537)}]".encode(), CONTEXT, partial=True)
