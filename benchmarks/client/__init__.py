"""The load client: minimal HTTP and event parsers of its own, every event's order checked."""
