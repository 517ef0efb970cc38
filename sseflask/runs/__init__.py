"""Generators that run once, are stored as they run, and are viewed by any number of clients."""
