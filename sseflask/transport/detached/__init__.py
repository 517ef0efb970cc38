"""Streams without a greenlet: a socket and a small record each."""
