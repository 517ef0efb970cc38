"""The tests of a module are found by its name, or by this list."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE, UNIT = ROOT / "sseflask", ROOT / "tests" / "unit"
MODULES = [each.relative_to(PACKAGE) for each in sorted(PACKAGE.rglob("*.py"))]
TESTS = [each.relative_to(UNIT) for each in sorted(UNIT.rglob("test_*.py"))]

#: A module with more lines of code than this has a test file of its name,
LIMIT = 60
#: or is a part of something that is tested as a whole: by these files or folders of tests/.
TESTED_AS_A_PART = {
    "contract": ["store/api.py", "store/run_api.py"],
    "live/service/test_commands.py": ["cli/doctor.py"],
    "live/durable/test_resume.py": ["__init__.py"],
    "live/streams/test_promises.py": [
        "transport/connection.py",
        "transport/item_sender.py",
        "transport/socket_reader.py",
        "transport/stream.py",
    ],
    "unit/channels/test_channels.py": ["channels/store_listener.py"],
    "unit/completions/formats/test_formats.py": ["completions/formats/views.py"],
    "unit/completions/test_frame_reader.py": [
        "completions/chat_parts.py",
        "completions/parts.py",
        "completions/response_parts.py",
        "completions/tool_calls.py",
    ],
    "unit/completions/test_upstream.py": ["completions/openai_client.py"],
    "unit/completions/test_upstream_habits.py": [
        "completions/documents.py",
        "completions/response_reader.py",
        "completions/upstream_errors.py",
    ],
    "unit/counters/test_counts.py": ["counters/sharing.py"],
    "unit/openapi/test_document.py": [
        "openapi/channel_paths.py",
        "openapi/fields.py",
        "openapi/operation.py",
        "openapi/run_paths.py",
        "openapi/schemas.py",
        "openapi/service_paths.py",
    ],
    "unit/routes/test_channels.py": ["routes/publication.py", "web/refusals.py"],
    "unit/routes/test_completions.py": ["routes/begin_run.py"],
    "unit/routes/test_counter.py": ["web/forms.py", "web/parameters.py"],
    "unit/routes/test_runs.py": ["run_responses.py"],
    "unit/runs/test_runs.py": ["runs/outcome.py"],
    "unit/runs/test_viewer_machine.py": ["runs/live_runs.py"],
    "unit/store/redis/test_event_store.py": [
        "store/redis/event_news.py",
        "store/redis/event_reading.py",
        "store/redis/event_writer.py",
    ],
    "unit/store/redis/test_run_store.py": [
        "store/redis/run_news.py",
        "store/redis/run_upkeep.py",
    ],
    "unit/store/sqlite/test_event_database.py": [
        "store/sqlite/event_tables.py",
        "store/sqlite/file.py",
        "store/sqlite/pattern_channels.py",
    ],
    "unit/store/sqlite/test_event_store.py": ["store/sqlite/thread.py"],
    "unit/store/sqlite/test_run_database.py": [
        "store/sqlite/leases.py",
        "store/sqlite/run_tables.py",
    ],
    "unit/test_app.py": ["routes/response_headers.py"],
    "unit/test_config.py": ["setting_types.py"],
    "unit/store/test_migration.py": [
        "store/redis/event_transfer.py",
        "store/redis/pipeline.py",
        "store/redis/run_transfer.py",
        "store/redis/transfer.py",
        "store/sqlite/event_transfer.py",
        "store/sqlite/run_transfer.py",
        "store/sqlite/transfer.py",
        "store/transfer.py",
    ],
    "unit/transport/detached/test_registry.py": [
        "transport/detached/delivery.py",
        "transport/detached/ended.py",
        "transport/detached/group.py",
    ],
}


def name_of(module: Path) -> str:
    """What a module is called; the module of a package itself, as the package is."""
    return (PACKAGE / module).parent.name if module.stem == "__init__" else module.stem


def module_of(test: Path) -> Path | None:
    """The module that a test file, `test_<module>[_<aspect>].py`, is named after.

    Of several whose names fit it is the one with the longest name.
    """
    about = test.stem.removeprefix("test_") + "_"
    fitting = [
        each
        for each in MODULES
        if each.parent == test.parent and about.startswith(name_of(each) + "_")
    ]
    return max(
        fitting, key=lambda each: (len(name_of(each)), each.stem != "__init__"), default=None
    )


def documented(tree: ast.AST) -> Iterator[int]:
    """The lines of docstrings."""
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            yield from range(node.lineno, (node.end_lineno or node.lineno) + 1)


def lines_of_code(module: Path) -> int:
    """Neither blank, nor a comment, nor of a docstring."""
    source = (PACKAGE / module).read_text(encoding="utf-8")
    left_out = set(documented(ast.parse(source)))
    return sum(
        number not in left_out and bool(line.strip()) and not line.strip().startswith("#")
        for number, line in enumerate(source.splitlines(), 1)
    )


def test_each_test_file_is_named_after_a_module_of_the_same_package() -> None:
    assert [str(each) for each in TESTS if module_of(each) is None] == []


def test_each_module_has_a_test_file_of_its_name_or_is_listed() -> None:
    tested = {module_of(each) for each in TESTS}
    missing = {str(each) for each in MODULES if each not in tested and lines_of_code(each) > LIMIT}
    listed = {module for modules in TESTED_AS_A_PART.values() for module in modules}
    assert sorted(missing - listed) == [], "name a test file after it, or list it"
    assert sorted(listed - missing) == [], "these are not to be listed, or no longer"
    assert [place for place in TESTED_AS_A_PART if not (ROOT / "tests" / place).exists()] == []
