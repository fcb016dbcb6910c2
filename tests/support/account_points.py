"""Fault points of accounts: they have scenarios of their own in tests/crash/test_account_faults.py."""

COMMIT_POINTS = ("operational.before_commit", "operational.after_commit")
SALVAGE_POINTS = ("operational.salvage_before_swap", "operational.salvage_after_swap")
RULE_POINTS = ("rules.before_commit", "rules.after_commit")
ACCOUNT_POINTS = frozenset({*COMMIT_POINTS, *SALVAGE_POINTS, *RULE_POINTS})
