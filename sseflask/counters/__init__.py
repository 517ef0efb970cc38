"""Counters: integers of each process, and their sums over the workers of a server."""
