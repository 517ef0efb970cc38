"""The ways bytes travel from an iterable of events to the client."""
