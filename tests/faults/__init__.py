"""Fault injection: whatever can break is broken on purpose, and the run must end as if nothing had happened."""
