"""Composition root of both processes: wiring, ordered start, reverse stop, supervision, lock."""
