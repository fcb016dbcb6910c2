"""Plain data: readings, blocks, receipts, errors, limits. Imports nothing else of ours."""
