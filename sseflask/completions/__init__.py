"""Relays of OpenAI-compatible chat completions."""
