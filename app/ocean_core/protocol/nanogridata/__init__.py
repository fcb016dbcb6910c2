"""Nanogridata v1, the binary protocol of field devices; see ``docs/nanogridata.md``.

Bytes in, frames and what they hold out: no sockets, no clock, no files.
"""
