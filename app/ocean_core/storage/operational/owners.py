"""Which table a page of a damaged store belongs to.

Two witnesses: the tree, walked down from each root, and SQLite's pointer map (the store is made
with auto_vacuum), which names each page's parent. Where an inner page is damaged the map still
knows; where a page of the map is damaged the tree does. A page that neither of them knows is left
alone: it may be a free one, and what was deleted must not come back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ocean_core.storage.operational.cells import (
    TABLE_LEAF,
    cells_of,
    children_of,
    kind_of,
    payload_of,
    record_of,
)
from ocean_core.storage.operational.files import PAGE_BYTES
from ocean_core.storage.operational.schema import Table

_ENTRIES: Final = PAGE_BYTES // 5
_ROOT: Final = 1
_FREE: Final = 2
_TREE: Final = 5
_DEPTH_MAX: Final = 20

Fetch = Callable[[int], bytes | None]


class PointerMap:
    """What the pages of the pointer map say, as far as they are readable."""

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch
        self._pages: dict[int, bytes | None] = {}

    def parent(self, page_no: int) -> int | None:
        """Return the page above a tree page, itself for a root; None if it is no tree page."""
        kind, above = self._entry(page_no)
        if kind == _ROOT:
            return page_no
        return above if kind == _TREE else None

    def is_free(self, page_no: int) -> bool:
        """Whether nothing uses the page any more."""
        return self._entry(page_no)[0] == _FREE

    def _entry(self, page_no: int) -> tuple[int, int]:
        home = (page_no - 2) // (_ENTRIES + 1) * (_ENTRIES + 1) + 2
        if page_no <= 2 or page_no == home:
            return 0, 0
        if home not in self._pages:
            self._pages[home] = self._fetch(home)
        page = self._pages[home]
        if page is None:
            return 0, 0
        at = 5 * (page_no - home - 1)
        return page[at], int.from_bytes(page[at + 1 : at + 5], "big")


def roots_of(fetch: Fetch, tables: tuple[Table, ...]) -> dict[int, str]:
    """Return the first page of each table and index, as the file says or as a new file has it."""
    found: dict[int, str] = {table.root: table.name for table in tables}
    named: dict[str, int] = {}
    known = {table.name for table in tables}
    todo, seen = [1], {1}
    while todo:
        page_no = todo.pop()
        page = fetch(page_no)
        if page is None:
            continue
        below = [child for child in children_of(page, page_no) if child not in seen]
        todo += below
        seen.update(below)
        if kind_of(page, page_no) == TABLE_LEAF:
            for cell in cells_of(page, page_no):
                payload = payload_of(cell, fetch, of_table=True)
                match record_of(payload) if payload else None:
                    case ["table", str(name), _, int(root), _] if name in known:
                        named[name] = root
                    case _:
                        continue
    for name, root in named.items():
        found = {page_no: owner for page_no, owner in found.items() if owner != name}
        found[root] = name
    return found


def pages_of_tables(fetch: Fetch, pages: int, roots: dict[int, str]) -> dict[str, list[int]]:
    """Return, for each table, the pages that one of the witnesses gives to it."""
    owners: dict[str, set[int]] = {name: set() for name in roots.values()}
    parents = PointerMap(fetch)
    for root, name in roots.items():
        _walk_down(
            fetch, root, owners[name], lambda no: 2 < no <= pages and not parents.is_free(no)
        )
    for page_no in range(3, pages + 1):
        owner = _climb(parents, page_no, roots)
        if owner is not None:
            owners[owner].add(page_no)
    return {name: sorted(found) for name, found in owners.items()}


def _walk_down(fetch: Fetch, root: int, found: set[int], is_in_use: Callable[[int], bool]) -> None:
    todo = [root]
    while todo:
        page_no = todo.pop()
        if page_no in found or not is_in_use(page_no):
            continue
        found.add(page_no)
        page = fetch(page_no)
        if page is not None:
            todo += children_of(page, page_no)


def _climb(parents: PointerMap, page_no: int, roots: dict[int, str]) -> str | None:
    for _ in range(_DEPTH_MAX):
        if page_no in roots:
            return roots[page_no]
        above = parents.parent(page_no)
        if above is None or above == page_no:
            return None
        page_no = above
    return None
