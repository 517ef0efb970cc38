"""Threads, greenlets and the event loop: one rule for all of them."""
