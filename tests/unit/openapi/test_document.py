"""The OpenAPI document says what the routes are, and is served so that tools can use it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urljoin, urlsplit

import pytest
from flask import Flask
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.test import Client

from sseflask import config
from sseflask.completions.formats import FORMATS
from sseflask.openapi import schemas
from sseflask.openapi.document import document
from sseflask.openapi.fields import SAYS
from sseflask.wire import Decoder
from tests.service import SECRET, service

DOCUMENT = document()


def everything(value: Any) -> Iterator[Any]:
    yield value
    if isinstance(value, dict):
        for each in value.values():
            yield from everything(each)
    elif isinstance(value, list):
        for each in value:
            yield from everything(each)


@pytest.fixture(scope="module")
def app() -> Iterator[Flask]:
    with service(SSEFLASK_SECRET=SECRET, SSEFLASK_PAGE="true") as made:
        yield made


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in DOCUMENT["paths"].items():
        for method, operation in item.items():
            yield path, method, operation


def parameter(path: str, method: str, name: str) -> dict[str, Any]:
    (found,) = (
        each
        for each in DOCUMENT["paths"][path][method]["parameters"]
        if (each["name"], each["in"]) == (name, "query")
    )
    schema: dict[str, Any] = found["schema"]
    return schema


def test_it_is_valid() -> None:
    from openapi_spec_validator import OpenAPIV31SpecValidator

    OpenAPIV31SpecValidator(DOCUMENT).validate()


def test_it_has_every_route_with_its_methods_and_no_other(app: Flask) -> None:
    routes: set[tuple[str, str]] = set()
    for rule in app.url_map.iter_rules():
        path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule)
        # Of the files only the client module is for others; the rest belongs to the page.
        path = "/static/sse.js" if rule.endpoint == "static" else path
        routes |= {(path, method) for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}}
    assert routes == {(path, method.upper()) for path, method, _ in operations()}


def test_bounds_defaults_and_choices_are_those_of_the_routes() -> None:
    count = parameter("/sse/v1", "get", "count")
    assert count == {"type": "integer", "minimum": 0, "maximum": 1_000_000, "default": 10}
    interval = parameter("/sse/v1", "post", "interval")
    assert interval == {"type": "number", "minimum": 0, "maximum": 3600, "default": 0.1}
    assert parameter("/sse/openai_out", "get", "user_message") == {
        "type": "string",
        "default": "你好",
    }
    formats = parameter("/runs/{id}", "get", "format")["enum"]
    assert formats == list(FORMATS)
    shown = DOCUMENT["paths"]["/runs/{id}"]["get"]["responses"]["200"]["description"]
    assert [name for name in formats if f"`{name}`: " not in shown] == []
    leaving = parameter("/v1/responses", "post", "on_disconnect")
    assert leaving["default"] == 30
    assert leaving["anyOf"][1]["maximum"] == 86_400


def test_each_operation_says_what_it_needs_and_has_a_name_of_its_own() -> None:
    names = [operation["operationId"] for _, _, operation in operations()]
    assert len(names) == len(set(names))
    tags = {tag["name"] for tag in DOCUMENT["tags"]}
    known = set(DOCUMENT["components"]["securitySchemes"])
    for path, method, operation in operations():
        assert set(operation["tags"]) <= tags
        assert {name for each in operation["security"] for name in each} <= known
        guarded = ("/channels", "/runs", "/v1", "/sse/openai", "/sse/async", "/metrics")
        protected = path.startswith(guarded)
        assert bool(operation["security"]) == protected, f"{method} {path}"


def test_no_prose_is_left_over_and_the_settings_that_it_names_exist() -> None:
    used = {
        each["name"] for _, _, operation in operations() for each in operation.get("parameters", ())
    }
    used |= {
        name
        for each in everything(DOCUMENT["paths"])
        if isinstance(each, dict) and "properties" in each
        for name in each["properties"]
    }
    assert set(SAYS) <= used
    texts = [each for each in everything(DOCUMENT) if isinstance(each, str)]
    named = {name for text in texts for name in re.findall(r"SSEFLASK_[A-Z_]+", text)}
    assert named
    assert named <= {row.name for row in config.rows()}


@pytest.mark.parametrize("name", list(schemas.EVENTS))
def test_what_streams_look_like_fits_the_schema_of_their_events(name: str) -> None:
    from openapi_schema_validator import OAS31Validator

    def check(value: Any, schema: dict[str, Any]) -> None:
        OAS31Validator({**schema, "components": DOCUMENT["components"]}).validate(value)

    for example in schemas.EXAMPLES[name].values():
        decoder = Decoder()
        events = list(decoder.feed(example.encode()))
        assert events or "retry:" in example
        for event in events:
            fields = {"event": event.event, "data": event.data, "id": event.last_event_id}
            check(fields, {"$ref": f"#/components/schemas/{name}"})
            embedded = {"failure": "Error", "gap": "Gap"}.get(event.event)
            if embedded:
                check(json.loads(event.data), {"$ref": f"#/components/schemas/{embedded}"})


def test_it_is_open_to_all_and_kept_for_a_while(app: Flask) -> None:
    client = app.test_client()
    answer = client.get("/openapi.json")
    assert answer.status_code == 200
    assert answer.mimetype == "application/json"
    assert answer.json == DOCUMENT
    assert answer.headers["Cache-Control"] == "public, max-age=300"
    etag = {"If-None-Match": answer.headers["ETag"]}
    assert client.get("/openapi.json", headers=etag).status_code == 304
    with_token = client.get("/openapi.json", headers={"Authorization": "Bearer x"})
    assert with_token.headers["Cache-Control"] == "public, max-age=300"


@pytest.mark.parametrize("prefix", ["", "/behind/a/prefix"])
def test_its_server_is_where_it_is_read_from(app: Flask, prefix: str) -> None:
    mounted = DispatcherMiddleware(app.wsgi_app, {prefix: app.wsgi_app}) if prefix else app.wsgi_app
    client = Client(mounted)
    read_from = f"http://localhost{prefix}/openapi.json"
    answer = client.get(read_from)
    server = urljoin(read_from, answer.get_json()["servers"][0]["url"]).rstrip("/")
    assert client.get(urlsplit(f"{server}/sse/no_sse").path).get_json() == {
        "message": "Hello World"
    }
