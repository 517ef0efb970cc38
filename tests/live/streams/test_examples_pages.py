"""The pages of the examples, in the system's Chromium."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TypedDict
from urllib.parse import urlencode

import psutil
import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

from tests.live.kit import datastar
from tests.live.kit.browser import FLAGS, chromium_program
from tests.live.kit.clients import open_stream
from tests.live.kit.connection import fetch
from tests.live.kit.examples import example
from tests.live.kit.scripted import ScriptedAnswer, ScriptedUpstream
from tests.live.kit.servers import Server, free_port
from tests.live.kit.still_network import addresses_stay
from tests.live.kit.tools import node_packages
from tests.live.kit.waiting import until

expect.set_options(timeout=20_000)


#: Keeps a page's EventSource where a test finds it, and the ids of the events that it gets.
REMEMBERING = """
  theSource = null;
  ids = [];
  EventSource = class extends EventSource {
    constructor(...address) {
      super(...address);
      theSource = this;
      this.addEventListener("message", ({ lastEventId }) => ids.push(lastEventId));
    }
  };
"""


@pytest.fixture(autouse=True)
def still() -> Iterator[None]:
    with addresses_stay():
        yield


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_program(), args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page that sends requests to the example alone, without errors."""
    complaints: list[str] = []
    context = browser.new_context()
    context.route(
        lambda address: not address.startswith("http://127.0.0.1:"), lambda route: route.abort()
    )
    page = context.new_page()

    def hear(said: ConsoleMessage) -> None:
        if said.type == "error":
            complaints.append(said.text)

    page.on("console", hear)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    yield page
    context.close()
    assert complaints == []


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory, development: Server) -> Iterator[Server]:
    """The example in front of the service's own model."""
    upstream = {"OPENAI_BASE_URL": f"{development.url}/v1", "OPENAI_API_KEY": "sk-of-nobody"}
    with example("chat", "gunicorn", tmp_path_factory.mktemp("chat"), changes=upstream) as server:
        yield server


class Request(TypedDict):
    method: str
    headers: dict[str, str]
    body: bytes


def posted(**values: str) -> Request:
    """What a form sends."""
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    return {"method": "POST", "headers": headers, "body": urlencode(values).encode()}


def connections(server: Server, to: Server) -> int:
    """How many the example has to its upstream."""
    found = server.serving().net_connections(kind="tcp4")
    return sum(
        each.status == psutil.CONN_ESTABLISHED and each.raddr[1] == to.port
        for each in found
        if each.raddr
    )


def test_a_chat_is_over_when_its_reader_leaves(chat: Server, development: Server) -> None:
    with open_stream(chat, "/chat", **posted(message="Hello")) as stream:
        events = stream.rest()
    assert "Hello" in "".join(event.data or "" for event in events)
    assert (events[-1].event, events[-1].data) == ("done", "")
    idle = connections(chat, development)
    with open_stream(chat, "/chat", **posted(message="Hello again")) as stream:
        stream.next()
    until(lambda: connections(chat, development) < max(1, idle), "the model was left")


def test_a_model_that_refuses(chat: Server) -> None:
    answer = fetch(chat, "/chat", **posted(message="too long" * 100_000))
    assert (answer.status, json.loads(answer.body)["error"]["code"]) == (502, "no_answer")


def test_the_chat_shows_an_answer(page: Page, chat: Server) -> None:
    page.goto(chat.url)
    page.get_by_label("Message").fill("What is an <event>?")
    page.get_by_role("button", name="Send").click()
    expect(page.locator("p")).to_contain_text("What is an <event>?")


def sign_in(browser: Browser, server: Server, name: str) -> Page:
    page = browser.new_context(base_url=server.url).new_page()
    page.goto("/")
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(f"{name}-1")
    page.get_by_role("button", name="Sign in").click()
    return page


def test_an_answer_goes_on_when_its_page_is_loaded_again(
    browser: Browser, tmp_path: Path, scripted: ScriptedUpstream, script: ScriptedAnswer
) -> None:
    with example("chat_login", "gunicorn", tmp_path, changes=scripted.settings()) as server:
        page = sign_in(browser, server, "ada")
        page.get_by_label("Message").fill(script.message)
        page.get_by_role("button", name="Send").click()
        script.say("One ")
        answer = page.locator("p")
        expect(answer).to_have_text("One ")
        page.reload()
        expect(answer).to_have_text("One ")
        script.say("two ")
        expect(answer).to_have_text("One two ")
        page.get_by_role("button", name="Stop").click()
        script.wait_until_left()
        page.reload()
        expect(answer).to_have_text("One two ")
        assert script.count == 1
        page.context.close()


def write(page: Page, to: str, text: str) -> None:
    page.get_by_label("To").fill(to)
    page.get_by_label("Text").fill(text)
    page.get_by_role("button", name="Send").click()


def test_users_write_to_each_other_until_one_leaves(browser: Browser, tmp_path: Path) -> None:
    with example("login", "gunicorn", tmp_path) as server:
        ada, bob = (sign_in(browser, server, name) for name in ("ada", "bob"))
        write(ada, "bob", "<hello>")
        expect(bob.locator("li")).to_have_text(["ada: <hello>"])
        bob.reload()
        write(ada, "bob", "again")
        expect(bob.locator("li")).to_have_text(["ada: <hello>", "ada: again"])

        tab = ada.context.new_page()
        tab.add_init_script(REMEMBERING)
        tab.goto("/")
        tab.wait_for_function("theSource.readyState === EventSource.OPEN")
        ada.get_by_role("button", name="Sign out").click()
        expect(ada.get_by_role("button", name="Sign in")).to_be_visible()
        tab.wait_for_function("theSource.readyState === EventSource.CLOSED")
        write(bob, "bob", "to myself")
        expect(bob.locator("li")).to_have_count(3)
        for page in (ada, bob):
            page.context.close()


def test_a_job_is_shown(page: Page, tmp_path: Path) -> None:
    with example("jobs", "gunicorn", tmp_path) as server:
        page.add_init_script(REMEMBERING)
        page.goto(server.url)
        page.get_by_role("button", name="Start").click()
        expect(page.locator("output")).to_have_text("finished")
        expect(page.locator("progress")).to_have_js_property("value", 100)
        page.wait_for_function("theSource.readyState === EventSource.CLOSED")


LISTENING_TO_HTMX = """
  ended = "";
  swapped = [];
  document.addEventListener("htmx:sseMessage", ({ detail }) => swapped.push(detail.data));
  document.addEventListener("htmx:sseClose", ({ detail }) => { ended = detail.type; });
"""


def test_htmx_shows_a_job(page: Page, tmp_path: Path) -> None:
    packages = node_packages() / "node_modules"
    static = tmp_path / "examples" / "static"
    with example("htmx", "flask", tmp_path) as server:
        static.mkdir()
        shutil.copy(packages / "htmx.org" / "dist" / "htmx.min.js", static)
        shutil.copy(packages / "htmx-ext-sse" / "dist" / "sse.min.js", static)
        page.goto(server.url)
        page.evaluate(LISTENING_TO_HTMX)
        page.get_by_role("button", name="Start").click()
        expect(page.locator("#job strong")).to_have_text("Finished")
        # Closed because of a message, not to be opened again.
        page.wait_for_function("ended === 'message'")
        assert page.evaluate("swapped") == [
            *(
                f'<progress max="100" value="{percent}"></progress>'
                for percent in range(0, 100, 20)
            ),
            "<strong>Finished</strong>",
        ]


def say(page: Page, text: str) -> None:
    page.get_by_label("Message").fill(text)
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_label("Message")).to_have_value("")


def test_datastar_shows_a_room_before_and_after_a_deploy(browser: Browser, tmp_path: Path) -> None:
    static = tmp_path / "examples" / "static"
    static.mkdir(parents=True)
    shutil.copy(datastar.bundle(), static / "datastar.js")
    port = free_port()
    # Its console says that the server was away.
    context = browser.new_context()
    page, other = context.new_page(), context.new_page()
    with example("datastar", "gunicorn", tmp_path, port=port) as server:
        page.goto(server.url)
        said = page.locator("#room li")
        say(page, "<b>one</b>")
        expect(said).to_have_count(1)
        lines = json.dumps({"text": "two\nelements <li id='three'>three</li>"}).encode()
        headers = {"Content-Type": "application/json"}
        assert fetch(server, "/room", method="POST", headers=headers, body=lines).status == 200
        expect(said).to_have_count(2)
    with example("datastar", "gunicorn", tmp_path, port=port) as server:
        # Who comes later has all of it.
        other.goto(server.url)
        say(other, "last")
        for each in (page, other):
            expect(each.locator("#room li")).to_have_text(
                ["<b>one</b>", "two elements <li id='three'>three</li>", "last"]
            )
    context.close()


def test_the_clock_goes_on_after_a_restart(browser: Browser, tmp_path: Path) -> None:
    port = free_port()
    # Its console says that the server was away.
    page = browser.new_page()
    page.add_init_script(REMEMBERING)
    with example("clock", "flask", tmp_path / "first", port=port) as server:
        page.goto(server.url)
        page.wait_for_function("ids.length >= 2")
    before = page.evaluate("ids.length")
    with example("clock", "flask", tmp_path / "second", port=port):
        page.wait_for_function(f"ids.length >= {before + 2}")
        ids = page.evaluate("ids")
        assert ids == [str(number) for number in range(len(ids))]
        assert page.locator("li").count() >= len(ids)
    page.close()
