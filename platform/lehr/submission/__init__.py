"""Sending jobs to a cluster: what travels, what runs there, and how it is followed."""
