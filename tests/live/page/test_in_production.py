"""The page as others meet it: behind nginx, below a path, with tokens, on two workers."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.live.kit.fronts import NGINX
from tests.live.kit.runs import bearer
from tests.live.kit.servers import Server, free_port, running
from tests.live.kit.services import SECRET, production
from tests.live.kit.tools import tool
from tests.live.kit.waiting import until
from tests.live.page.conftest import ELSEWHERE, Complaints
from tests.live.page.test_panels import answer_to, ask, begin_counter, publish

RIGHTS = {"publish": "page.*", "subscribe": ["page.*", "sseflask.live"]}
CONFIGURATION = (
    NGINX
    % """
    server {{
        listen 127.0.0.1:{port};
        location /tools/sse/ {{
            proxy_pass http://127.0.0.1:{behind}/;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto $scheme;
        }}
    }}
"""
)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = {
        "SSEFLASK_SECRET": SECRET,
        "SSEFLASK_PAGE": "true",
        "SSEFLASK_TRUSTED_PROXIES": "1",
        "WEB_CONCURRENCY": "2",
    }
    with production(tmp_path_factory.mktemp("page"), settings) as started:
        yield started


@pytest.fixture(scope="module")
def front(service: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    program, port, directory = tool("nginx"), free_port(), tmp_path_factory.mktemp("nginx")
    configuration = directory / "nginx.conf"
    configuration.write_text(CONFIGURATION.format(port=port, behind=service.port))
    command = [program, "-p", str(directory), "-e", "stderr", "-c", str(configuration)]
    with running("nginx", command, port, directory, ready="/tools/sse/healthz") as started:
        yield started


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    opened = browser.new_context()
    yield opened
    opened.close()


def opened(
    context: BrowserContext, front: Server, panel: str = "", host: str = "127.0.0.1"
) -> Page:
    page = context.new_page()
    page.goto(f"http://{host}:{front.port}/tools/sse/#{panel}")
    return page


def token(subject: str, seconds: float = 3600) -> str:
    return bearer(subject, seconds, **RIGHTS)["Authorization"].removeprefix("Bearer ")


def sign_in(page: Page, given: str) -> None:
    """Where the page asks for a token, as it does when something is refused."""
    page.get_by_label("Token").fill(given)
    page.get_by_role("button", name="Sign in").click()


def test_below_a_path(context: BrowserContext, front: Server, complaints: Complaints) -> None:
    page = complaints.watch(opened(context, front))
    root = f"http://127.0.0.1:{front.port}/tools/sse/"
    begin_counter(page, 5, 0)
    expect(page.locator("#counter [data-number]")).to_have_text("4")
    expect(page.locator("#curl")).to_have_text(f"curl -N '{root}sse/v1?count=5&interval=0'")
    # The demo model needs no token.
    ask(page, "below")
    with context.expect_page() as opening:
        page.get_by_role("link", name="Watch in a second window").click()
    second = complaints.watch(opening.value)
    assert second.url.startswith(f"{root}?run=")
    for each in (page, second):
        expect(each.locator("#chat .answer")).to_have_text(answer_to("below"))
    second.close()
    page.get_by_text("Sign in").first.click()
    sign_in(page, token("alice"))
    expect(page.locator("#session summary")).to_have_text("Signed in as alice")
    page.get_by_role("tab", name="Notifications").click()
    expect(page.locator("#curl")).to_have_text(
        "curl -N -H 'Last-Event-ID: earliest' -H \"Authorization: Bearer $SSEFLASK_TOKEN\" "
        f"'{root}channels/page.notifications'"
    )
    publish(page, "hello")
    expect(page.locator("[data-notes] li")).to_have_text(["hello"])
    page.get_by_role("tab", name="Live data").click()
    expect(page.locator("#live figure").last.locator("li")).to_have_count(2)


def test_signing_in_and_out(context: BrowserContext, front: Server) -> None:
    page = opened(context, front, "notifications")
    # It says what is needed, and offers it.
    expect(page.locator("#notifications [data-failed]")).to_contain_text("This needs a token.")
    sign_in(page, "not a token")
    expect(page.locator("#who")).to_contain_text("That is no token")
    sign_in(page, "eyJ.eyJ.x")
    expect(page.locator("#who")).to_contain_text("The token is not valid")
    sign_in(page, token("bob"))
    expect(page.locator("#session summary")).to_have_text("Signed in as bob")
    expect(page.locator("#state")).to_have_text("open")
    expect(page.locator("#notifications [data-failed]")).to_be_hidden()
    other = opened(context, front, "live")
    expect(other.locator("#session summary")).to_have_text("Signed in as bob")
    expect(other.locator("#live figure li").first).to_be_visible()
    page.bring_to_front()
    ask(page, "a secret")
    expect(page.locator("#state")).to_have_text("done")
    page.locator("#session summary").click()
    page.get_by_role("button", name="Sign out").click()
    # In all tabs, and nothing of it stays to be read.
    for each in (page, other):
        expect(each.locator("#session summary")).to_have_text("Sign in")
    expect(page.locator("#chat .user, #chat .assistant")).to_have_count(0)
    page.get_by_role("tab", name="Notifications").click()
    expect(page.locator("#notifications [data-failed]")).to_contain_text("This needs a token.")
    expect(page.locator("[data-notes] li")).to_have_count(0)
    expect(other.locator("#live [data-failed]")).to_contain_text("This needs a token.")
    expect(other.locator("#live figure li")).to_have_count(0)


def test_a_token_that_ends(context: BrowserContext, front: Server) -> None:
    page = opened(context, front, "notifications")
    sign_in(page, token("carol", 8))
    expect(page.locator("#state")).to_have_text("open")
    expect(page.locator("#session summary")).to_have_text("Sign in")
    expect(page.locator("#notifications [data-failed]")).to_contain_text("sseflask token")
    sign_in(page, token("carol"))
    expect(page.locator("#state")).to_have_text("open")
    expect(page.locator("#notifications [data-failed]")).to_be_hidden()


def test_a_right_that_is_missing(context: BrowserContext, front: Server) -> None:
    page = opened(context, front, "live")
    given = bearer("dave", subscribe="page.*")["Authorization"].removeprefix("Bearer ")
    sign_in(page, given)
    expect(page.locator("#live [data-failed]")).to_contain_text("--subscribe 'sseflask.live'")
    expect(page.locator("#state")).to_have_text("refused: 403")


def test_where_the_context_is_not_secure(
    context: BrowserContext, front: Server, complaints: Complaints
) -> None:
    """Over plain HTTP from another machine there are no locks and no clipboard."""
    page = opened(context, front, "notifications", ELSEWHERE)
    sign_in(page, token("erin"))
    expect(page.locator("#state")).to_have_text("open")
    assert not page.evaluate("isSecureContext")
    complaints.watch(page)
    expect(page.locator("[data-share]")).to_contain_text("a connection of its own")
    publish(page, "plain")
    expect(page.locator("[data-notes] li").filter(has_text="plain")).to_have_count(1)
    page.get_by_role("button", name="Copy").click()
    expect(page.locator("#copy")).to_have_text("Selected")
    selected = page.evaluate("getSelection().toString()")
    assert selected == page.locator("#curl").inner_text()


def test_no_other_page_has_it_in_a_frame(
    context: BrowserContext, front: Server, development: Server, complaints: Complaints
) -> None:
    page = complaints.watch(context.new_page())
    page.goto(f"{development.url}/sse/no_sse")
    page.evaluate(
        """(address) => {
          const frame = document.createElement("iframe");
          frame.src = address;
          document.body.append(frame);
        }""",
        f"http://127.0.0.1:{front.port}/tools/sse/",
    )
    page.wait_for_event("console", lambda said: "frame-ancestors" in said.text)
    # The other one is about the icon of the page around it.
    assert any("frame-ancestors 'none'" in each for each in complaints)
    complaints.clear()
    assert page.frames[-1].get_by_role("tab").count() == 0


def test_the_policy_holds(page: Page, complaints: Complaints) -> None:
    """What these tests would see of a violation."""
    page.evaluate(
        """() => {
          const script = document.createElement("script");
          script.textContent = "document.title = 'injected'";
          document.body.append(script);
        }"""
    )
    until(lambda: complaints, "a complaint")
    assert "Content Security Policy" in complaints.pop()
    assert page.title() != "injected"


def test_a_worker_that_dies(context: BrowserContext, front: Server, service: Server) -> None:
    page = opened(context, front, "live")
    sign_in(page, token("frank"))
    memory = page.locator("#live figure").last.locator("li")
    expect(memory).to_have_count(2)
    killed = service.workers()[0]
    killed.kill()
    expect(memory.filter(has_text=f"Worker {killed.pid}")).to_have_text(re.compile("gone$"))
    # The one in its place has a line of its own, and the page a connection.
    expect(memory).to_have_count(3)
    expect(page.locator("#state")).to_have_text("open")


def test_without_a_network(context: BrowserContext, front: Server) -> None:
    page = opened(context, front, "notifications")
    sign_in(page, token("grace"))
    expect(page.locator("#state")).to_have_text("open")
    context.set_offline(True)
    page.locator("#notifications").get_by_role("button", name="Drop my connection").click()
    expect(page.locator("#state")).to_contain_text("reconnecting in")
    publish(page, "into the void")
    failed = page.locator("#notifications [data-failed]")
    expect(failed).to_contain_text("the service can't be reached")
    ask(page, "anybody there?")
    expect(page.locator("#state")).to_contain_text("reconnecting in")
    context.set_offline(False)
    expect(page.locator("#chat .answer")).to_have_text(answer_to(r"anybody there\?"))
    page.get_by_role("tab", name="Notifications").click()
    expect(page.locator("#state")).to_have_text("open")
    # What was not published is there to be sent once more.
    expect(page.locator("#note")).to_have_value("into the void")
    page.get_by_role("button", name="Publish").click()
    expect(page.locator("[data-notes] li").first).to_have_text("into the void")
    expect(failed).to_be_hidden()
