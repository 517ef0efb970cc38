"""Server-Sent Events side by side: the same routes on several stacks, one load client."""
