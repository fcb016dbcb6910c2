"""Ocean Core: one executable that receives, keeps, analyses and serves sensor readings."""

__version__ = "2.0.0"
