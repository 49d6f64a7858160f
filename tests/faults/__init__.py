"""Everything that can break is broken here on purpose, and the run must end as if nothing had happened."""
