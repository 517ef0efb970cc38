"""Channels: publish to a name, subscribe to names and patterns, resume where the client was."""
