"""Rights: signed tokens, and in development mode trust in this machine."""
