"""Reads what strace wrote: the system calls of all threads, in the order of their begin and end."""

import re
from dataclasses import dataclass
from pathlib import Path

_LINE = re.compile(r"^(?:\[pid +)?(\d+)\]? +(?:\d+\.\d+ )?(.*)$")
_UNFINISHED = re.compile(r"^(\w+)\((.*) <unfinished \.\.\.>$")
_RESUMED = re.compile(r"^<\.\.\. (\w+) resumed>(.*)$")
_CALL = re.compile(r"^(\w+)\((.*)$")
_RESULT = re.compile(r"\) += (-?\d+|\?)(.*)$")


@dataclass(frozen=True, slots=True)
class Call:
    """One system call; ``began`` and ``ended`` are places in the trace."""

    name: str
    text: str
    result: int
    began: int
    ended: int

    @property
    def target(self) -> str:
        """The file or socket behind the first argument, as strace -y tells it."""
        return self.text.partition("<")[2].partition(">")[0]


def read_trace(path: Path) -> list[Call]:
    """Return all finished calls, by their end."""
    calls: list[Call] = []
    begun: dict[str, tuple[str, str, int]] = {}
    for place, line in enumerate(path.read_text("utf-8", "replace").splitlines()):
        parts = _LINE.match(line)
        if parts is None:
            continue
        thread, rest = parts.groups()
        unfinished = _UNFINISHED.match(rest)
        if unfinished is not None:
            begun[thread] = (*unfinished.groups(), place)  # type: ignore[assignment]
            continue
        resumed = _RESUMED.match(rest)
        if resumed is not None:
            if thread not in begun:
                continue
            name, text, began = begun.pop(thread)
            whole = text + resumed.group(2)
        else:
            call = _CALL.match(rest)
            if call is None:
                continue
            name, whole, began = call.group(1), call.group(2), place
        result = _RESULT.search(whole)
        if result is not None and result.group(1) != "?":
            calls.append(Call(name, whole, int(result.group(1)), began, place))
    return calls
