"""An application with durable generators: the library's public API, on any WSGI server."""
