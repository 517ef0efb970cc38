"""What is gunicorn's: the worker class, its connections, its end, its access log."""
