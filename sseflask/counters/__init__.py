"""What is counted: plain integers in each process, added up over the workers of a server."""
