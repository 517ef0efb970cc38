"""The panel with the service's own figures."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.live.kit.clients import open_stream
from tests.live.kit.servers import Server
from tests.live.kit.waiting import until
from tests.live.page.conftest import Complaints

KINDS = ("stream", "channel", "run")


def open_live(page: Page) -> None:
    page.get_by_role("tab", name="Live data").click()
    expect(page.locator("#live figure li").first).to_be_visible()


def legend(page: Page, chart: str) -> dict[str, str]:
    """The names and values below a chart."""
    figure = page.locator("#live figure").filter(has_text=chart)
    rows = figure.locator("li").all_inner_texts()
    return dict(re.split(r"\s*\n\s*", row.strip()) for row in rows)


def test_the_figures_of_the_service(page: Page, development: Server) -> None:
    open_live(page)
    (worker,) = development.workers()
    figures = page.locator("#live figure")
    expect(figures).to_have_count(4)
    expect(page.locator("#curl")).to_contain_text("/channels/sseflask.live'")
    expect(page.locator("#frames .frame").last).to_contain_text("event: figures")
    with (
        open_stream(development, "/sse/v1?count=1000&interval=0.05"),
        open_stream(development, "/sse/v1?count=1000&interval=0.05"),
    ):
        streams = figures.filter(has_text="Open streams").locator("li")
        expect(streams.filter(has_text="Streams")).to_have_text(re.compile(r"[2-9]$"))
        delivered = figures.filter(has_text="Events a second").locator("li").first
        expect(delivered).to_have_text(re.compile(r"delivered\s*[\d.]+ k?B/s, [1-9]\d"))
    assert list(legend(page, "CPU")) == [f"Worker {worker.pid}"]
    assert re.fullmatch(r"\d+ MiB", legend(page, "Memory")[f"Worker {worker.pid}"])
    # The same for readers that do not see the charts.
    page.get_by_text("As a table").click()
    cells = page.locator("#live tbody tr").locator("th, td")
    expect(cells.first).to_have_text(str(worker.pid))
    expect(cells).to_have_count(8)
    expect(cells.last).to_have_text(re.compile(r"^\d+ MiB$"))


def points(page: Page) -> int:
    """How many there are in the longest line of the first chart."""
    drawn = page.locator("#live figure path[class='s1']").first.get_attribute("d") or ""
    return len(re.findall("[ML]", drawn))


def test_they_are_there_again_after_a_reload(page: Page) -> None:
    open_live(page)
    until(lambda: page.locator("#frames .frame").count() >= 3, "three seconds have come")
    before = points(page)
    page.reload()
    expect(page.locator("#live figure li").first).to_be_visible()
    assert points(page) >= before >= 2


def test_they_pause_and_go_on(page: Page) -> None:
    open_live(page)
    page.get_by_role("button", name="Pause").click()
    expect(page.locator("#state")).to_have_text("paused")
    expect(page.locator("#live [data-said]")).to_have_text("Paused.")
    page.get_by_role("button", name="Go on").click()
    expect(page.locator("#state")).to_have_text("open")
    page.locator("#live").get_by_role("button", name="Drop my connection").click()
    expect(page.locator("#state")).to_contain_text("reconnecting in")
    expect(page.locator("#state")).to_have_text("open")
    expect(page.locator("#live [data-said]")).to_have_text("")


def test_a_look_back(page: Page) -> None:
    open_live(page)
    page.locator("#live svg.chart").first.hover(position={"x": 5, "y": 20})
    expect(page.locator("#live [data-said]")).not_to_have_text("")
    cursor = page.locator("#live .cursor").first
    expect(cursor).not_to_have_attribute("hidden", "")
    page.locator("h1").hover()
    expect(page.locator("#live [data-said]")).to_have_text("")
    expect(cursor).to_have_attribute("hidden", "")


def hide(page: Page, hidden: bool) -> None:
    """A tab in the background, which a browser without a window does not have."""
    page.evaluate(
        """(hidden) => {
          Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
          document.dispatchEvent(new Event("visibilitychange"));
        }""",
        hidden,
    )


def test_what_nobody_looks_at_costs_nothing(page: Page) -> None:
    open_live(page)
    expect(page.locator("#state")).to_have_text("open")
    hide(page, True)
    expect(page.locator("#state")).to_have_text("closed, as nobody looks")
    hide(page, False)
    expect(page.locator("#state")).to_have_text("open")
    page.get_by_role("tab", name="Counter").click()
    expect(page.get_by_role("tab", name="Live data")).to_have_attribute("data-state", "closed")


def test_tabs_share_it(page: Page, complaints: Complaints) -> None:
    open_live(page)
    other = complaints.watch(page.context.new_page())
    other.goto("/#live")
    expect(other.locator("#state")).to_have_text("another tab has the connection")
    # What the first had read was there at once.
    expect(other.locator("#live figure li").first).to_be_visible()
    hide(page, True)
    expect(other.locator("#state")).to_have_text("open")
    page.close()


@pytest.mark.parametrize("motion", ["no-preference", "reduce"])
def test_nothing_slides_for_those_who_do_not_want_it(
    browser: Browser, development: Server, complaints: Complaints, motion: Any
) -> None:
    context = browser.new_context(base_url=development.url, reduced_motion=motion)
    page = complaints.watch(context.new_page())
    page.goto("/#live")
    frames = page.locator("#frames .frame")
    slides = "document.getAnimations().some((each) => each.effect.target?.closest('.chart'))"
    until(lambda: frames.count() >= 2, "figures come")
    if motion == "reduce":
        begun = frames.count()
        until(lambda: page.evaluate(slides) or frames.count() >= begun + 2, "more of them")
        assert not page.evaluate(slides)
    else:
        until(lambda: page.evaluate(slides), "the lines slide")
    context.close()


def worker(pid: int, **changes: Any) -> dict[str, Any]:
    plain = {"pid": pid, "cpu": 0.5, "memory": 2**26, "events": 3.0, "bytes": 100.0}
    return {**plain, "streams": dict.fromkeys(KINDS, 1), **changes}


def test_a_gap_is_a_gap(page: Page) -> None:
    """Where figures are missing, or a worker has died, its line is in pieces."""
    points = [
        {"at": at, "published": 1, "workers": [worker(7), *([worker(8)] if at < 103 else [])]}
        for at in (100, 101, 102, 103, 110, 111)
    ]
    found = page.evaluate(
        """async (points) => {
          const { Figures, workerOf } = await import("./static/page/figures.js");
          const figures = new Figures();
          for (const [at, point] of points.entries()) {
            figures.add({ id: `e-${at}`, data: JSON.stringify(point) });
          }
          // Once more, as after a tab has handed over: it counts once.
          figures.add({ id: "e-0", data: JSON.stringify(points[0]) });
          const times = (pid) => figures
            .pieces((point) => workerOf(point, pid)?.cpu)
            .map((piece) => piece.map(([at]) => at));
          return {
            one: times(7), other: times(8), slots: figures.workers,
            near: figures.near(110.4)?.at, none: figures.near(106),
          };
        }""",
        points,
    )
    assert found == {
        "one": [[100, 101, 102, 103], [110, 111]],
        "other": [[100, 101, 102]],
        "slots": [{"pid": 7, "slot": 0}, {"pid": 8, "slot": 1}],
        "near": 110,
        "none": None,
    }


def test_machines_are_shown_together(page: Page) -> None:
    """Each tells of its own workers; their clocks differ, and one of them may end."""
    events = [
        {"at": at + skew, "machine": machine, "published": 2, "workers": [worker(7)]}
        for at in range(100, 108)
        for machine, skew in (("a", 0.0), ("b", -0.4))
        if machine == "a" or at < 103
    ]
    found = page.evaluate(
        """async (events) => {
          const { Figures, workerOf } = await import("./static/page/figures.js");
          const figures = new Figures();
          for (const [at, event] of events.entries()) {
            figures.add({ id: `e-${at}`, data: JSON.stringify(event) });
          }
          figures.add({ id: "e-3", data: JSON.stringify(events[3]) });
          const { points } = figures;
          const ends = (pid) => figures
            .pieces((point) => workerOf(point, pid)?.cpu)
            .map((piece) => Math.round(piece.at(-1)[0]));
          return {
            points: points.length, published: points.map((point) => point.published),
            a: ends("a 7"), b: ends("b 7"),
            ascending: points.every(({ at }, number) => !number || at > points[number - 1].at),
          };
        }""",
        events,
    )
    assert found == {
        "points": len(events),
        "published": [2, *[4] * 7, *[2] * 3],
        "a": [107],
        "b": [104],
        "ascending": True,
    }


def test_the_window_moves_on(page: Page) -> None:
    """Two minutes are kept; a worker that is out of sight leaves its colour to the next one."""
    found = page.evaluate(
        """async ([first, second]) => {
          const { Figures } = await import("./static/page/figures.js");
          const figures = new Figures();
          for (let at = 0; at < 300; at += 1) {
            const workers = [second];
            if (at < 100) workers.unshift(first);
            if (at >= 250) workers.push({ ...first, pid: 9 });
            figures.add({ id: `e-${at}`, data: JSON.stringify({ at, published: 0, workers }) });
          }
          return [figures.points[0].at, figures.before, figures.workers];
        }""",
        [worker(7), worker(8)],
    )
    assert found == [177, "e-176", [{"pid": 8, "slot": 1}, {"pid": 9, "slot": 0}]]


def test_steps_of_an_axis(page: Page) -> None:
    """Few enough to be read, and numbers that people count in."""
    steps = {4: 1, 10: 5, 11: 5, 40: 10, 41: 20, 123: 50, 0.7: 0.2, 1e6: 5e5}
    found = page.evaluate(
        "(most) => import('./static/page/chart.js').then(({ stepOf }) => most.map(stepOf))",
        list(steps),
    )
    assert found == pytest.approx(list(steps.values()))
