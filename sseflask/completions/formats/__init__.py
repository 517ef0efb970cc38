"""The formats of a completion: each is a view of the stored frames."""
