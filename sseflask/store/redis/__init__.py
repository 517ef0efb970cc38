"""Stores on a Redis or Valkey server, for the processes of any number of machines."""
