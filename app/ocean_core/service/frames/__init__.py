"""Nanogridata frames on their way from any transport to a durable receipt, or into quarantine."""
