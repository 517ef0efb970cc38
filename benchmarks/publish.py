"""Draw a result file's charts into docs/charts/ and fill the documents that show its figures.

python -m benchmarks.publish benchmarks/results/NAME.json README.md docs/wsgi-vs-asgi.md
python -m benchmarks.publish --check ...        changes nothing; 1 where something would change
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import message, record
from benchmarks.chart_files import files, is_current
from benchmarks.document import fill
from benchmarks.markers import DocumentError, with_results

ROOT = Path(__file__).resolve().parents[1]


def publish(result: Path, documents: Sequence[Path], root: Path, *, check: bool) -> list[str]:
    """Draw and fill; give the paths of what has changed, with `check` of what would.

    With `check` a chart is current if it shows these figures, whichever matplotlib has drawn it.
    DocumentError where a document can't be filled; then nothing has been written.
    """
    folder = root / "docs" / "charts"
    found = record.load(result)
    texts = {document: _filled(document, found, result, root) for document in documents}
    changed = [document for document, (old, new) in texts.items() if old != new]
    if check:
        for chart in message.charts(found):
            if not is_current(chart, folder):
                changed += files(chart, folder)
    else:
        # To compare takes no matplotlib, whose import takes half a second.
        from benchmarks.charts import draw

        for document in changed:
            document.write_text(texts[document][1], encoding="utf-8")
        folder.mkdir(parents=True, exist_ok=True)
        for chart in message.charts(found):
            before = _contents(files(chart, folder))
            draw(chart, folder)
            after = _contents(files(chart, folder))
            changed += [file for file in after if after[file] != before.get(file)]
    return [_relative(path, root) for path in changed]


def _filled(document: Path, found: record.Record, result: Path, root: Path) -> tuple[str, str]:
    text = document.read_text(encoding="utf-8")
    name = _relative(document, root)
    folder = Path(os.path.relpath(root / "docs" / "charts", document.resolve().parent)).as_posix()
    new = with_results(text, _relative(result, root), name)
    return text, fill(new, found, name=name, charts=folder)


def _relative(path: Path, root: Path) -> str:
    path = path.resolve()
    if not path.is_relative_to(root.resolve()):
        raise DocumentError(f"{path} is not in the repository")
    return path.relative_to(root.resolve()).as_posix()


def _contents(paths: Sequence[Path]) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in paths if path.exists()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Publish what the command line names; 1 where `--check` finds something to change."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.publish",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("result", type=Path, help="JSON file that python -m benchmarks wrote")
    parser.add_argument("documents", type=Path, nargs="*", help="Markdown files")
    parser.add_argument("--check", action="store_true", help="change nothing, tell what would")
    options = parser.parse_args(arguments)
    for path in (options.result, *options.documents):
        if not path.is_file():
            parser.error(f"no file {path}")
    try:
        changed = publish(options.result, options.documents, ROOT, check=options.check)
    except DocumentError as error:
        parser.error(str(error))
    for path in changed:
        sys.stdout.write(f"{'would change' if options.check else 'changed'}: {path}\n")
    return 1 if options.check and changed else 0


if __name__ == "__main__":
    sys.exit(main())
