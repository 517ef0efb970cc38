"""``python -m sseflask``."""

from __future__ import annotations

from sseflask.cli import main

if __name__ == "__main__":
    main()
