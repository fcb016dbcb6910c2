"""Analytics questions: what may be asked (``requests``) and how it is answered (``engine``).

``requests`` and ``values`` never load DuckDB, so that the ingest process can check a question, and
refuse it in the same words, before it travels; ``engine`` belongs to the analytics process.
"""
