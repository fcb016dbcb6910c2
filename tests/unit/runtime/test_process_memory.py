"""Memory that was freed: kept for the next batch, given back when nothing comes any more."""

import ctypes

import pytest

from ocean_core.runtime.process import keep_freed_memory, return_freed_memory


class _Library:
    """A C library that notes what it is asked for."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[int, ...]]] = []

    def mallopt(self, *arguments: int) -> int:
        self.calls.append(("mallopt", arguments))
        return 1

    def malloc_trim(self, *arguments: int) -> int:
        self.calls.append(("malloc_trim", arguments))
        return 1


def test_the_thresholds_are_set_and_memory_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    library = _Library()
    monkeypatch.setattr(ctypes, "CDLL", lambda _: library)
    keep_freed_memory()
    return_freed_memory()
    size = 32 * 1024 * 1024
    assert library.calls == [
        ("mallopt", (-3, size)),
        ("mallopt", (-1, size)),
        ("malloc_trim", (0,)),
    ]


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    keep_freed_memory()
    return_freed_memory()
