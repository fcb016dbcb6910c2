"""Fault points of the operational store: tests/crash/test_account_faults.py, test_quarantine_kill.py."""

COMMIT_POINTS = ("operational.before_commit", "operational.after_commit")
SALVAGE_POINTS = ("operational.salvage_before_swap", "operational.salvage_after_swap")
RULE_POINTS = ("rules.before_commit", "rules.after_commit")
QUARANTINE_POINTS = ("quarantine.after_take",)
ACCOUNT_POINTS = frozenset({*COMMIT_POINTS, *SALVAGE_POINTS, *RULE_POINTS, *QUARANTINE_POINTS})
