"""Draws folded stacks as a flame graph: `python bench/flame.py < hot.folded > docs/images/hot-path.svg`.

Folded stacks are what sampling profilers write: frames from the outermost to the innermost, joined
by semicolons, a space, and how often that was seen. The picture is plain SVG without scripts. Frames
below ``--from`` (a part of a name) and line numbers are left out.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from html import escape

WIDTH, ROW, LEAST = 1200, 18, 0.4
LINE = re.compile(r":\d+\)$")


@dataclass
class Frame:
    """A function, how often it was on the stack, and what it called."""

    seen: int = 0
    called: dict[str, Frame] = field(default_factory=dict)


def read(lines: Iterable[str], starts: list[str]) -> Frame:
    top = Frame()
    for line in lines:
        stack, _, count = line.rstrip().rpartition(" ")
        names = [LINE.sub(")", name) for name in stack.split(";")]
        first = next((i for i, name in enumerate(names) if any(s in name for s in starts)), None)
        if first is None:
            continue
        top.seen += int(count)
        frame = top
        for name in names[first:]:
            frame = frame.called.setdefault(name, Frame())
            frame.seen += int(count)
    return top


def depth(frame: Frame) -> int:
    return 1 + max(map(depth, frame.called.values()), default=0)


def draw(frame: Frame, left: float, row: int, scale: float, total: int) -> Iterable[str]:
    for name, inner in sorted(frame.called.items()):
        width = inner.seen * scale
        if width >= LEAST:
            share = f"{100 * inner.seen / total:.1f} %"
            hue = 20 + sum(map(ord, name)) % 40
            room = int(width / 6.2)
            short = name if len(name) <= room else name[: max(0, room - 1)]
            yield (
                f'<g><title>{escape(name)}, {share}</title><rect x="{left:.1f}" y="{row * ROW}" '
                f'width="{width:.1f}" height="{ROW - 1}" fill="hsl({hue},80%,70%)"/>'
                f'<text x="{left + 2:.1f}" y="{row * ROW + 13}">{escape(short)}</text></g>'
            )
            yield from draw(inner, left, row + 1, scale, total)
        left += width


def main() -> None:
    parser = argparse.ArgumentParser(prog="flame", description=__doc__)
    parser.add_argument("--from", dest="starts", action="append", default=[], help="part of a name")
    starts = parser.parse_args().starts or [""]
    top = read(sys.stdin, starts)
    height = depth(top) * ROW
    print(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'font-family="monospace" font-size="10">'
    )
    print("\n".join(draw(top, 0, 0, WIDTH / max(1, top.seen), top.seen)))
    print("</svg>")


main()
