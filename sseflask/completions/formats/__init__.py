"""Completions as their clients ask for them: a format is a view of the stored frames."""
