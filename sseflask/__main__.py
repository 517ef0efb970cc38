"""``sseflask`` and ``python -m sseflask``."""

from __future__ import annotations

import importlib.util
import sys

#: What the service imports beside Flask; see the extra ``service`` in setup.cfg.
_NEEDED = (
    "click",
    "flask_cors",
    "gevent",
    "gunicorn",
    "jwt",
    "openai",
    "pydantic",
    "pydantic_settings",
)


def _missing() -> list[str]:
    return [name for name in _NEEDED if importlib.util.find_spec(name) is None]


def main() -> None:
    """The command line, or one line that says what it lacks.

    Every subcommand is the service's: the library alone has none.
    """
    if missing := _missing():
        print(
            "The sseflask command is the service's, which is not installed as a whole (missing: "
            f"{', '.join(missing)}). Install it with: pip install 'sseflask[service]'",
            file=sys.stderr,
        )
        raise SystemExit(1)
    from sseflask.cli import main as command

    command()


if __name__ == "__main__":
    main()
