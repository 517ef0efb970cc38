"""The examples of docs/durable.md, run as they are printed; its picture, and the tests it names."""

from __future__ import annotations

import ast
import re
import sys
import types
from collections.abc import Iterator
from typing import Any

import pytest
from flask.testing import FlaskClient

from sseflask import RunEvent
from sseflask.extension import runs_of
from sseflask.runs.successor import Successor
from sseflask.runs.writer import Terms
from tests.documents.blocks import GIVEN, PYTHON, ROOT, blocks
from tests.documents.durable_picture import PICTURE, draw

DOCUMENT = ROOT / "docs" / "durable.md"
BLOCKS = blocks(DOCUMENT)
_ID = re.compile(r"[0-9a-f]{32}")


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """What the examples define, in a module that can be imported."""
    example = types.ModuleType("example")
    monkeypatch.setitem(sys.modules, "example", example)
    defined = vars(example)
    defined.update(GIVEN["docs/durable.md"])
    for block in BLOCKS:
        if block.language in PYTHON:
            exec(block.text, defined)
    defined["app"].testing = True
    yield defined
    runs_of(defined["app"]).close()


def signed_in(names: dict[str, Any], user: str) -> FlaskClient:
    client: FlaskClient = names["app"].test_client()
    with client.session_transaction() as session:
        session["user"] = user
    return client


def test_what_a_client_gets(names: dict[str, Any]) -> None:
    (shown,) = (each.text for each in BLOCKS if each.language == "text")
    client = names["app"].test_client()
    answer = client.get("/report")
    run = answer.headers["X-Run-Id"]
    assert answer.text.rstrip() == _ID.sub(run, shown).rstrip()
    rest = client.get("/report", headers={"Last-Event-ID": f"{run}.2"})
    assert [line for line in rest.text.splitlines() if line.startswith("id:")] == [
        f"id: {run}.3",
        f"id: {run}.4",
    ]
    assert client.get("/report", headers={"Last-Event-ID": f"{run}.4"}).status_code == 204


def test_a_page_that_is_reloaded(names: dict[str, Any]) -> None:
    ann, bob = signed_in(names, "ann"), signed_in(names, "bob")
    key = {"Idempotency-Key": "of-the-page"}
    answer = ann.post("/reports", headers=key)
    report = (answer.json or {})["report"]
    assert answer.status_code == 202
    assert ann.post("/reports", headers=key).json == {"report": report}
    assert ann.get(report).text == ann.get(report).text
    assert ann.get(f"{report}/result").json == {
        "state": "finished",
        "value": {"chapters": 3},
        "texts": ["It was a dark night."] * 3,
    }
    assert ann.delete(report).json == {"state": "finished"}
    assert bob.get(report).status_code == bob.delete(report).status_code == 404
    assert (bob.post("/reports", headers=key).json or {})["report"] != report


def test_several_producers(names: dict[str, Any]) -> None:
    text = names["app"].test_client().get("/research").text
    assert text.count('"status":"searching"') == 2
    assert '{"status":"finished","result":{"found":10}}' in text


def test_a_command(names: dict[str, Any]) -> None:
    run = names["app"].test_cli_runner().invoke(args=["nightly"]).output.strip()
    assert _ID.fullmatch(run)
    text = signed_in(names, "reports").get(f"/reports/{run}").text
    assert '"result":{"chapters":3}' in text


def test_going_on(names: dict[str, Any]) -> None:
    """The successor is found by its name, signed with the application's key."""
    assert '"result":{"chapters":3}' in names["app"].test_client().get("/book").text
    stored = Successor(names["go_on"], Terms()).encode("a key")
    found = Successor.decode(stored, ["a key"]).function
    second = RunEvent("run.2", "message", '{"chapter":2}')
    assert [item["chapter"] for item in found("run", second)] == [3]
    assert [item["chapter"] for item in found("run", None)] == [1, 2, 3]
    with pytest.raises(LookupError, match="SECRET_KEY"):
        Successor.decode(stored, ["another key"])
    with pytest.raises(LookupError, match="SECRET_KEY"):
        Successor.decode(stored.replace(b"go_on", b"write"), ["a key"])


def test_the_picture_is_as_it_is_drawn() -> None:
    assert PICTURE.read_text(encoding="utf-8") == draw(), (
        "python -m tests.documents.durable_picture draws it"
    )


def test_the_tests_that_are_named_exist() -> None:
    places = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", DOCUMENT.read_text(encoding="utf-8"))
    assert len(places) > 10
    for path, name in places:
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        functions = [each.name for each in ast.walk(tree) if isinstance(each, ast.FunctionDef)]
        assert name in functions, f"{path} has no {name}"
