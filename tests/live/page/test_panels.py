"""Counter, chat and notifications, by what a person does with them."""

from __future__ import annotations

import re
import subprocess
import uuid
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Locator, Page, Route, expect

from tests.live.kit.scripted import ScriptedAnswer
from tests.live.kit.servers import Server
from tests.live.page.conftest import Complaints
from tests.scripted_upstream import frame


def begin_counter(page: Page, count: int, interval: float) -> None:
    page.get_by_label("Events", exact=True).fill(str(count))
    page.get_by_label("Seconds between").fill(str(interval))
    page.get_by_role("button", name="Start", exact=True).click()


def button(page: Page, panel: str, name: str) -> Locator:
    return page.locator(f"#{panel}").get_by_role("button", name=name)


def test_the_counter(page: Page) -> None:
    line = f"curl -N '{page.url}sse/v1?count={{}}&interval={{}}'"
    expect(page.locator("#curl")).to_have_text(line.format(20, 0.5))
    begin_counter(page, 5, 0.05)
    expect(page.locator("#counter [data-said]")).to_have_text(
        "5 events over one connection, none lost and none twice."
    )
    expect(page.locator("#counter [data-number]")).to_have_text("4")
    expect(page.locator("#frames .frame")).to_have_count(5)
    frames = page.locator("#frames .frame").all_inner_texts()
    assert [text.split("\n") for text in frames] == [
        [f"id: {number}", f"data: {number}"] for number in range(5)
    ]
    times = page.locator("#frames time").all_inner_texts()
    assert all(re.fullmatch(r"\d\d:\d\d:\d\d\.\d{3} +\+\d+ m?s", time) for time in times), times
    expect(page.locator("#curl")).to_have_text(line.format(5, 0.05))


def test_a_connection_that_is_dropped(page: Page) -> None:
    begin_counter(page, 8, 0.5)
    expect(page.locator("#counter [data-number]")).to_have_text(re.compile("[1-6]"))
    button(page, "counter", "Drop my connection").click()
    expect(page.locator("#state")).to_have_text(
        re.compile(r"^reconnecting in \d\.\d s: connection lost$")
    )
    expect(page.locator("#counter [data-said]")).to_have_text(
        "8 events over 2 connections, none lost and none twice."
    )
    assert re.search("GET /sse/v1, after [1-7]", page.locator("#frames").inner_text())
    of_connections = [page.locator(f"[data-connection='{each}']").count() for each in range(2)]
    assert min(of_connections) > 0
    assert sum(of_connections) == 8


def test_the_counter_is_stopped(page: Page) -> None:
    begin_counter(page, 1000, 0.1)
    expect(page.locator("#counter [data-number]")).to_have_text(re.compile("[1-9]"))
    button(page, "counter", "Stop").click()
    expect(page.locator("#state")).to_have_text("stopped")
    expect(button(page, "counter", "Stop")).to_be_disabled()


def test_the_last_frames_of_a_fast_stream(page: Page) -> None:
    begin_counter(page, 3000, 0)
    expect(page.locator("#counter [data-number]")).to_have_text("2999")
    expect(page.locator("#frames .frame").last).to_have_text("id: 2999\ndata: 2999")
    assert page.locator("#frames > div").count() == 500


def test_each_panel_has_its_own_wire(page: Page) -> None:
    begin_counter(page, 3, 0)
    expect(page.locator("#frames .frame")).to_have_count(3)
    page.get_by_role("tab", name="Chat").click()
    expect(page.locator("#frames")).to_be_empty()
    expect(page.locator("#curl")).to_contain_text('-d \'{"user_message"')
    page.get_by_label("Message").fill("it's me")
    expect(page.locator("#curl")).to_contain_text("it'\\''s me")
    page.go_back()
    expect(page.locator("#counter")).to_be_visible()
    expect(page.locator("#frames .frame")).to_have_count(3)


def test_the_line_is_copied(page: Page) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy").click()
    expect(page.locator("#copy")).to_have_text("Copied")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == page.locator("#curl").inner_text()


def test_the_line_gives_the_same(page: Page) -> None:
    begin_counter(page, 3, 0)
    expect(page.locator("#counter [data-number]")).to_have_text("2")
    assert shell(page) == "id: 0\ndata: 0\n\nid: 1\ndata: 1\n\nid: 2\ndata: 2\n\n"
    page.get_by_role("tab", name="Chat").click()
    page.get_by_label("Message").fill("it's `me`, $HOME")
    expect(page.locator("#curl")).to_contain_text("$HOME")
    answer = shell(page)
    assert 'data: {"text":"$HOME"}' in answer
    assert '{"text":"it\'s "}' in answer


def shell(page: Page) -> str:
    """What the curl line gives in a shell."""
    line = page.locator("#curl").inner_text()
    return subprocess.run(
        ["sh", "-c", f"{line} --silent"], check=True, capture_output=True, text=True, timeout=60
    ).stdout


def ask(page: Page, text: str) -> None:
    page.get_by_role("tab", name="Chat").click()
    page.get_by_label("Message").fill(text)
    page.get_by_role("button", name="Send").click()


def answer(page: Page) -> str:
    return page.locator("#chat .answer").last.inner_text()


def answer_to(said: str) -> re.Pattern[str]:
    """The demo model's answer, which has come once."""
    return re.compile(rf"^(?!.*I am.*I am)I am the demo model .*You said: {said}\s*$", re.DOTALL)


def test_chat(page: Page) -> None:
    ask(page, "hello **you**")
    expect(page.locator("#chat .assistant")).to_contain_text("You said: hello you")
    expect(page.locator("#chat .assistant strong")).to_have_text("you")
    expect(page.locator("#chat .user")).to_have_text("hello **you**")
    expect(page.locator("#state")).to_have_text("done")
    page.reload()
    expect(page.locator("#chat .user")).to_have_text("hello **you**")
    expect(page.locator("#chat .assistant")).to_contain_text("You said: hello you")
    page.get_by_role("button", name="Start over").click()
    expect(page.locator("#chat .user, #chat .assistant")).to_have_count(0)
    page.reload()
    expect(page.locator("#chat [data-hint]")).to_be_visible()
    expect(page.locator("#chat .user, #chat .assistant")).to_have_count(0)


def test_what_a_model_says_is_never_markup(page: Page) -> None:
    ask(page, '<img src=x onerror="alert(1)"> [a](javascript:alert(1))')
    expect(page.locator("#chat .assistant")).to_contain_text('<img src=x onerror="alert(1)">')
    assert page.locator("#chat .assistant img, #chat .assistant a").count() == 0


@pytest.mark.parametrize("what", ["reload", "drop", "back"])
def test_an_answer_goes_on(page: Page, what: str) -> None:
    ask(page, what)
    expect(page.locator("#chat .assistant")).to_contain_text("I am the demo")
    if what == "reload":
        page.reload()
    elif what == "back":
        page.goto("about:blank")
        page.go_back(wait_until="commit")
    else:
        button(page, "chat", "Drop my connection").click()
    expect(page.locator("#chat .answer")).to_have_text(answer_to(what))
    expect(page.locator("#chat .user")).to_have_count(1)


def test_an_answer_is_stopped(page: Page) -> None:
    ask(page, "stop")
    expect(page.locator("#chat .assistant")).to_contain_text("I am the demo")
    button(page, "chat", "Stop").click()
    expect(page.locator("#chat .ended")).to_have_text("Ended: stopped")
    assert "You said" not in answer(page)


def test_a_second_window_watches(page: Page, complaints: Complaints) -> None:
    ask(page, "watch")
    with page.context.expect_page() as opening:
        page.get_by_role("link", name="Watch in a second window").click()
    second = complaints.watch(opening.value)
    for each in (page, second):
        expect(each.locator("#chat .answer")).to_have_text(answer_to("watch"))


@pytest.fixture
def real(browser: Browser, runs: Server, complaints: Complaints) -> Iterator[Page]:
    """The page of a service whose upstream the test directs."""
    context = browser.new_context(base_url=runs.url)
    yield complaints.watch(context.new_page())
    context.close()


def test_reasoning_is_folded_above_the_answer(real: Page, script: ScriptedAnswer) -> None:
    real.goto("/#chat")
    ask(real, script.message)
    thought = {"index": 0, "delta": {"reasoning_content": "Let me <b>think</b>."}}
    script.send(frame(choices=[thought]))
    reasoning = real.locator("#chat .assistant details")
    expect(reasoning.locator("summary")).to_have_text("Reasoning")
    expect(reasoning.locator("div")).to_be_hidden()
    script.say("Four", ".")
    expect(real.locator("#chat .answer")).to_have_text("Four.")
    expect(real.locator("#chat .assistant")).to_have_attribute("aria-busy", "true")
    reasoning.locator("summary").click()
    expect(reasoning.locator("div")).to_have_text("Let me <b>think</b>.")
    script.finish()
    expect(real.locator("#state")).to_have_text("done")
    expect(real.locator("#chat .assistant")).not_to_have_attribute("aria-busy", "true")


def test_a_reload_before_the_first_word(real: Page, script: ScriptedAnswer) -> None:
    """The run is not known yet: asking again with the same key attaches to it."""
    real.goto("/#chat")
    ask(real, script.message)
    script.wait_for_requests()
    real.reload()
    script.say("Once.")
    script.finish()
    expect(real.locator("#chat .answer")).to_have_text("Once.")
    assert script.count == 1


def test_a_failure_is_reported(real: Page, script: ScriptedAnswer, complaints: Complaints) -> None:
    real.goto("/#chat")
    ask(real, script.message)
    script.answer(400, b'{"error": {"message": "There is no such model."}}')
    expect(real.locator("#chat .failed")).to_have_text("There is no such model.")
    expect(real.get_by_role("button", name="Start over")).to_be_enabled()
    # The browser's own word for any status from 400 on.
    assert "status of 400" in complaints.pop()


def publish(page: Page, text: str) -> None:
    page.get_by_label("Notification", exact=True).fill(text)
    page.get_by_role("button", name="Publish").click()


def notes(page: Page, tag: str) -> Locator:
    return page.locator("[data-notes] li").filter(has_text=tag)


def test_tabs_share_one_connection(page: Page, complaints: Complaints) -> None:
    tag = uuid.uuid4().hex
    other = complaints.watch(page.context.new_page())
    other.goto("/#notifications")
    expect(other.locator("[data-share]")).to_contain_text("This tab has the connection")
    expect(other.locator("#notifications [name=drop]")).to_be_enabled()
    publish(other, f"before {tag}")
    expect(notes(other, tag)).to_have_text([f"before {tag}"])
    page.bring_to_front()
    page.get_by_role("tab", name="Notifications").click()
    expect(page.locator("[data-share]")).to_contain_text("Another tab")
    expect(page.locator("#state")).to_have_text("another tab has the connection")
    # What had come before it was there.
    expect(notes(page, tag)).to_have_text([f"before {tag}"])
    publish(page, f"first {tag}")
    for each in (page, other):
        expect(notes(each, tag)).to_have_text([f"first {tag}", f"before {tag}"])
    expect(page.locator("#frames .frame").last).to_contain_text(f"data: first {tag}")
    other.close()
    expect(page.locator("[data-share]")).to_contain_text("This tab has the connection")
    expect(page.locator("#state")).to_have_text("open")
    publish(page, f"second {tag}")
    all_notes = [f"second {tag}", f"first {tag}", f"before {tag}"]
    expect(notes(page, tag)).to_have_text(all_notes)
    button(page, "notifications", "Drop my connection").click()
    expect(page.locator("#state")).to_contain_text("reconnecting in")
    publish(page, f"while it was away {tag}")
    expect(notes(page, tag)).to_have_text([f"while it was away {tag}", *all_notes])
    page.reload()
    expect(notes(page, tag)).to_have_text([f"while it was away {tag}", *all_notes])


def test_notifications_that_are_forgotten(page: Page) -> None:
    """The id that the page presents stands for one of a log that is not there any more."""
    tag = uuid.uuid4().hex
    page.get_by_role("tab", name="Notifications").click()
    publish(page, f"before {tag}")
    expect(notes(page, tag)).to_have_text([f"before {tag}"])

    def of_another_log(route: Route) -> None:
        route.continue_(headers={**route.request.headers, "last-event-id": "of-another-log"})

    page.route("**/channels/page.notifications", of_another_log)
    button(page, "notifications", "Drop my connection").click()
    remark = page.locator("#notifications .remark")
    expect(remark).to_have_text("Some are missing here: the service has forgotten them.")
    publish(page, f"after {tag}")
    expect(notes(page, tag)).to_have_text([f"after {tag}", f"before {tag}"])
