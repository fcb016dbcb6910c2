"""One frame from bytes to meaning: all checks of section 7, in their order.

This is the careful way, for one message that holds one frame. The server's intake takes the same
steps apart, because what it stores must be durable between them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, Protocol

from ocean_core.protocol.nanogridata.check import check_time, frame_id, prove
from ocean_core.protocol.nanogridata.content import check_group, open_payload
from ocean_core.protocol.nanogridata.frame import (
    KNOWN_MODELS,
    Content,
    CustomModel,
    FrameRefusedError,
    Header,
    Keyring,
    Options,
    Outcome,
    Policy,
    Proof,
    Secret,
)
from ocean_core.protocol.nanogridata.header import check_size, read_header

_FRAMES_REMEMBERED_MAX: Final = 10_000
_NOTHING: Final[Mapping[int, CustomModel]] = {}


class Decoded(NamedTuple):
    """A frame that passed all checks."""

    header: Header
    proof: Proof
    content: Content


class Replay(Protocol):
    """Remembers frames (check 17)."""

    def check_and_remember(self, identity: bytes, timestamp: int, now_s: int) -> bool:
        """Return whether a frame is new, and know it from now on.

        ``timestamp`` is that of its header: once that is too old, check 16 needs no memory.
        """
        ...


def decode(frame: bytes, now_s: int, policy: Policy, keys: Keyring, replay: Replay) -> Decoded:
    """Return what a message holds that is one frame. ``now_s``: seconds since 1970 UTC.

    Raises FrameRefusedError, for the first check that fails.
    """
    header = read_header(frame, policy)
    options = policy.options(header.model_id)
    check_size(frame, header, options)
    proof = prove(frame, header, policy, keys)
    check_time(header, options, now_s)
    if not replay.check_and_remember(frame_id(frame, header), header.timestamp, now_s):
        raise FrameRefusedError(
            Outcome.REPLAY, 0, "these bytes came before: a repeat needs another time, payload or IV"
        )
    content = open_payload(frame, header, proof, policy)
    check_group(header, proof, content)
    return Decoded(header, proof, content)


class FixedPolicy:
    """The same options for all models: for tools and tests."""

    def __init__(
        self, options: Options | None = None, described: Mapping[int, CustomModel] = _NOTHING
    ) -> None:
        self._options = options or Options()
        self._described = described

    def options(self, model_id: int) -> Options:
        """Return the options, whatever the model."""
        del model_id
        return self._options

    def is_known(self, model_id: int) -> bool:
        """Whether a model is named in section 3 or described."""
        return model_id in KNOWN_MODELS or model_id in self._described

    def custom(self, model_id: int) -> CustomModel | None:
        """Return the description of a model, if there is one."""
        return self._described.get(model_id)


class FixedKeys:
    """Secrets by model, and others for all models that have none: for tools and tests."""

    def __init__(
        self, by_model: Mapping[int, Sequence[Secret]], others: Sequence[Secret] = ()
    ) -> None:
        self._by_model = by_model
        self._others = others

    def candidates(self, model_id: int) -> Sequence[Secret]:
        """Return the secrets that may have signed a frame of a model."""
        return self._by_model.get(model_id, self._others)


class RecentFrames:
    """Remembers the last frames, the oldest forgotten first: for tools and tests."""

    def __init__(self, frames_max: int = _FRAMES_REMEMBERED_MAX) -> None:
        self._frames_max = frames_max
        self._seen: dict[bytes, None] = {}

    def check_and_remember(self, identity: bytes, timestamp: int, now_s: int) -> bool:
        """Return whether a frame is new, and know it from now on."""
        del timestamp, now_s
        if identity in self._seen:
            return False
        if len(self._seen) >= self._frames_max:
            del self._seen[next(iter(self._seen))]
        self._seen[identity] = None
        return True
