"""The server's log: as JSON, without secrets, and bounded where strangers cause it."""
