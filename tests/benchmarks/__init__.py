"""Benchmarks: each is runnable alone and ends with one ratio, ours against something a user could pick instead."""
