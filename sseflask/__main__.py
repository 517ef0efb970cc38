"""``sseflask`` and ``python -m sseflask``."""

from sseflask.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
