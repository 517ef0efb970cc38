"""What CONTRIBUTING lists for those who add something: it exists, and nobody can forget it."""

from __future__ import annotations

import ast
import configparser
import pkgutil
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from sseflask.completions.formats import FORMATS
from sseflask.openapi.run_paths import PATHS
from sseflask.openapi.schemas import EXAMPLES
from tests.live.kit.run_events import Decoded

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "sseflask"
TREES = {
    path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(PACKAGE.rglob("*.py"))
}

#: What the documents and docstrings name of other packages.
OTHERS = {
    ("Arbiter", "stop"),
    ("JSON", "parse"),
    ("AsyncWorker", "handle_request"),
    ("Logger", "atoms"),
    ("Request", "parse"),
    ("RequestParser", "mesg_class"),
    ("Worker", "handle_error"),
}


def _members(tree: ast.AST) -> Iterator[tuple[str, set[str]]]:
    """The classes of a module: the names of each one's bases and attributes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            names = {ast.unparse(base).partition("[")[0] for base in node.bases}
            for inner in ast.walk(node):
                if isinstance(inner, ast.FunctionDef):
                    names.add(inner.name)
                elif isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store):
                    names.add(inner.id)
                elif isinstance(inner, ast.Attribute) and isinstance(inner.ctx, ast.Store):
                    names.add(inner.attr)
            yield node.name, names


CLASSES: dict[str, set[str]] = {}
for _tree in TREES.values():
    for _name, _names in _members(_tree):
        CLASSES.setdefault(_name, set()).update(_names)


def _has(name: str, attribute: str) -> bool:
    names = CLASSES.get(name, set())
    return attribute in names or any(_has(base, attribute) for base in names & CLASSES.keys())


def _docstrings() -> Iterator[str]:
    for tree in TREES.values():
        for node in ast.walk(tree):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
                yield ast.get_docstring(node) or ""


def _named(text: str) -> set[tuple[str, str]]:
    """The classes, with an attribute, that a text names."""
    return set(re.findall(r"`([A-Z]\w+)\.(\w+)`", text)) - OTHERS


@pytest.mark.parametrize("document", ["CONTRIBUTING.md", "docs/architecture.md"])
def test_the_functions_that_a_document_names_exist(document: str) -> None:
    named = _named((ROOT / document).read_text(encoding="utf-8"))
    assert named
    assert [each for each in sorted(named) if not _has(*each)] == []


def test_what_contributing_names_of_a_module_is_there() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = re.findall(r"\| `([\w/]+\.py)` \| ((?:`\w+\.\w+`(?:, )?)+) \|", text)
    named = {(path, name) for path, names in rows for name in re.findall(r"`(\w+)\.", names)}
    before = re.findall(r"((?:`[\w.]+`(?:, | and )?)+) \(`([\w/]+\.(?:js|py))`", text)
    named |= {(path, name) for names, path in before for name in re.findall(r"`(\w+)", names)}
    assert len(named) > 30
    for path, name in sorted(named):
        (found,) = (each for each in (PACKAGE / path, ROOT / path) if each.exists())
        source = found.read_text(encoding="utf-8")
        assert re.search(rf"\b{name}\b", source), f"{path} has no {name}"


def test_the_functions_that_docstrings_name_exist() -> None:
    named = {each for text in _docstrings() for each in _named(text)}
    assert len(named) > 20
    assert [each for each in sorted(named) if not _has(*each)] == []


def _defined(tree: ast.Module) -> set[str]:
    """What a module defines."""
    names = {getattr(node, "name", "") for node in tree.body}
    return names | {
        each.id for node in tree.body for each in ast.walk(node) if isinstance(each, ast.Name)
    }


def test_the_classes_that_docstrings_name_by_their_module_exist() -> None:
    defined: dict[str, set[str]] = {}
    for path, tree in TREES.items():
        defined.setdefault(path.stem, set()).update(_defined(tree))
    named = {
        each for text in _docstrings() for each in re.findall(r"`([a-z_]\w*)\.([A-Z]\w+)`", text)
    }
    ours = {each for each in named if each[0] in defined}
    assert ours
    assert [each for each in sorted(ours) if each[1] not in defined[each[0]]] == []
    others = sorted({module for module, _ in named - ours})
    assert [each for each in others if find_spec(each) is None] == [], "there is no such module"


def test_what_docstrings_name_by_its_full_path_exists() -> None:
    named = {
        each
        for text in _docstrings()
        for each in re.findall(r"(?<!`)`(sseflask\.[\w.]+\w)`(?!`)", text)
    }
    assert len(named) > 10
    for each in sorted(named):
        pkgutil.resolve_name(each)


def _keys(table: ast.expr) -> set[str]:
    """The first word of each key of a dictionary, and the words of what more keys come from."""
    assert isinstance(table, ast.Dict)
    found = set()
    for key, value in zip(table.keys, table.values, strict=True):
        if isinstance(key, ast.Constant):
            found.add(str(key.value).split()[0])
        elif isinstance(value, ast.DictComp):
            for node in ast.walk(value.generators[0].iter):
                if isinstance(node, ast.Name):
                    found.update(node.id.split("_"))
    return found


def test_the_keys_of_a_table_are_found() -> None:
    table = '{"a": _file, "b in memory": _b, **{k: f(k) for k in some_server.programs()}}'
    assert _keys(ast.parse(table, mode="eval").body) == {"a", "b", "some", "server"}


def _backends() -> list[Path]:
    return [
        each
        for each in sorted((PACKAGE / "store").iterdir())
        if (each / "event_store.py").exists() or (each / "run_store.py").exists()
    ]


@pytest.mark.parametrize("backend", _backends(), ids=lambda path: path.name)
def test_a_store_is_in_all_lists(backend: Path) -> None:
    contracts = configparser.ConfigParser()
    contracts.read(ROOT / "setup.cfg", encoding="utf-8")
    for contract, option in (("stores", "source_modules"), ("backends", "forbidden_modules")):
        modules = contracts[f"importlinter:contract:{contract}"][option].split()
        assert f"sseflask.store.{backend.name}" in modules, contract
    for kind in ("event_store", "run_store"):
        if (backend / f"{kind}.py").exists():
            tree = ast.parse((ROOT / "tests" / "contract" / f"{kind}s.py").read_text("utf-8"))
            (found,) = (
                _keys(node.value)
                for node in tree.body
                if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "BACKENDS"
                if node.value is not None
            )
            assert backend.name in found, f"BACKENDS of {kind}s.py"


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_is_in_all_lists(name: str) -> None:
    protocol = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
    section = protocol.partition("### Formats and ends\n")[2].partition("\n### ")[0]
    assert f"| `{name}` | " in section, "the table of docs/protocol.md"
    (ends,) = re.findall(r"^\| the run \|.*$", section, re.MULTILINE)
    assert f"`{name}`" in ends, "the table of ends"
    (parameter,) = re.findall(r"^\| `format` \|.*$", protocol, re.MULTILINE)
    assert f"`{name}`" in parameter
    (line,) = re.findall(
        r"^- `format` is .*?^- ",
        (ROOT / "docs" / "quick-start.md").read_text(encoding="utf-8"),
        re.MULTILINE | re.DOTALL,
    )
    assert f"`{name}`" in line, "docs/quick-start.md"
    assert hasattr(Decoded, f"_{name}"), "tests/live/kit/run_events.py"
    assert name in EXAMPLES["RunEvent"], "openapi/schemas.py"
    shown = PATHS["/runs/{id}"]["get"]["responses"]["200"]["headers"]
    assert {*FORMATS[name].headers} <= {each.lower() for each in shown}, "openapi/run_paths.py"


@pytest.mark.parametrize(
    ("document", "begins"),
    [
        ("protocol.md", "- **Rotation**: "),
        ("protocol.md", "**Rotation**: "),
        ("deploy.md", "**Rotation.** "),
        ("deploy.md", "The worker stops accepting "),
        ("configuration.md", "`SSEFLASK_UPSTREAM_TIMEOUT` is "),
    ],
)
def test_what_is_not_rotated_is_said_with_its_formats(document: str, begins: str) -> None:
    text = (ROOT / "docs" / document).read_text(encoding="utf-8")
    (said,) = re.findall(
        rf"^{re.escape(begins)}.*?(?=^$|^- )", text, flags=re.MULTILINE | re.DOTALL
    )
    names = {name for name, form in FORMATS.items() if not form.resumable}
    assert names
    assert names <= set(re.findall(r"`format=(\w+)`", said))
