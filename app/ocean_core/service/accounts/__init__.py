"""Accounts and records: users, billing, sessions, metadata, profiles, sensors, keys, audit."""
