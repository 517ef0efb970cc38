"""Markers in documents, with a made-up result; and that the committed documents are current."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import publish, record
from benchmarks.document import fill
from benchmarks.markers import DocumentError, markers, results, with_results
from benchmarks.server_process import ROOT
from tests.benchmarks.made_up import result, rounds

RECORD = record.read(result())
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def filled(text: str, found: record.Record = RECORD) -> str:
    once = fill(text, found, name="some.md", charts="charts")
    assert fill(once, found, name="some.md", charts="charts") == once
    return once


def between(marker: str, found: record.Record = RECORD) -> str:
    """What a marker in a sentence becomes."""
    text = f"So <!-- {marker} -->old<!-- / --> it is."
    begin, end = f"So <!-- {marker} -->", "<!-- / --> it is."
    new = filled(text, found)
    assert new.startswith(begin)
    assert new.endswith(end)
    return new[len(begin) : -len(end)]


def test_figures_in_a_sentence() -> None:
    assert between("figure: tick ours cost") == "12.00"
    assert between("ratio: tick ours quick cost") == "0.67"
    assert between("ratio: tick ours plain speed") == "2.50"
    assert between("figure:\n  tick ours\n  cost") == "12.00"
    assert between("per_second: tick ours cost") == "83,000"
    assert between("versions") == "flask 3.1, uvicorn 0.1"
    assert between("machine") == (
        "Measured on 2001-02-03 on 2 cores of Abacus, Linux 6.1, Python 3.11.2."
    )


def test_several_in_one_line() -> None:
    text = (
        "a <!-- figure: tick ours cost --><!-- / -->/<!-- figure: tick slow cost -->7<!-- / --> b"
    )
    assert filled(text) == (
        "a <!-- figure: tick ours cost -->12.00<!-- / -->/"
        "<!-- figure: tick slow cost -->40.00<!-- / --> b"
    )


def test_a_fault_stands_in_the_place_of_the_figure() -> None:
    broken = record.read(
        result(quick=rounds({"cost": 1}, {"cost": 1}, faults=["`finally` <!-- / --> | not run"]))
    )
    fault = r"\`finally\` \<!-- / --> \| not run"
    assert between("figure: tick quick cost", broken) == fault
    assert between("ratio: tick quick ours cost", broken) == fault
    assert (
        between("ratio: tick ours quick cost", broken) == f"no ratio, Starlette, uvicorn: {fault}"
    )
    assert between("figure: tick bare cost") == "has no route 'tick'"


def test_a_table() -> None:
    found = record.read(
        result(
            slow=rounds({"cost": 40}, {"cost": 41}, remarks=["disturbed: others used 7%"]),
            bare=rounds({"cost": 1}, faults=["has no route 'tick' and " + 9 * "more ", "late"]),
        )
    )
    assert filled("<!-- table: tick -->\nold\n<!-- / -->\n", found) == (
        "<!-- table: tick -->\n"
        "| server | CPU µs/event | events/s, ratio | CPU µs/event, ratio |\n"
        "| --- | ---: | ---: | ---: |\n"
        "| Flask + sseflask, gunicorn | 12.00 (10.00 to 30.00) | 2.50 (2.00 to 3.00) | 0.50 |\n"
        "| Starlette, uvicorn | 20.00 (15.00 to 25.00) | 1.25 (1.00 to 1.50) | 0.75 |\n"
        "| Flask generator, gunicorn | 20.00 (16.00 to 60.00) | 1.00 | 1.00 |\n"
        "| FastAPI, uvicorn | 40.50 (40.00 to 41.00) | - | 2.28 |\n"
        "| bare loop | has no route 'tick' and more more more more more more ... | - | - |\n"
        "\n"
        "500 streams, 5 s; medians of 2 to 3 rounds (least to most); "
        "ratios to Flask generator, gunicorn in the same round.\n"
        "\n"
        "- disturbed: others used 7%: FastAPI, uvicorn (2 rounds)\n"
        "- has no route 'tick' and more more more more more more more more more: bare loop\n"
        "- late: bare loop\n"
        "<!-- / -->\n"
    )


def test_a_chart() -> None:
    assert filled("<!-- chart: tick cost --><!-- / -->\n") == (
        "<!-- chart: tick cost -->\n"
        "![Tick: an event costs sseflask 0.67 x the CPU of Starlette on uvicorn]"
        "(charts/tick-cost.svg)\n"
        "<!-- / -->\n"
    )


@pytest.mark.parametrize(
    "text",
    [
        "```markdown\n<!-- figure: no such thing --> <!-- / -->\n```\n",
        "~~~\n<!-- table: tick -->\n```\n<!-- table: tick -->\n~~~\n",
        "- ````\n  ```\n  <!-- table: tick -->\n  ````\n",
        "````\n<!-- table: tick -->\n",
        "say `<!-- figure: tick ours cost -->` and ``<!-- ` / -->`` here",
        "say `<!-- table: tick -->\n<!-- / -->` here",
        "an ordinary <!-- remark: of somebody --> comment",
        "nothing at all",
    ],
)
def test_code_and_other_comments_are_left_alone(text: str) -> None:
    assert filled(text) == text


@pytest.mark.parametrize(
    "before",
    [
        "a lone ` backtick\n\n",
        "- a lone ` backtick\n- ",
        "an escaped \\` backtick ",
        "`code` and ``co`de`` ",
        "``` not a fence ``` ",
        "```\ncode\n```\n",
    ],
)
def test_what_only_looks_like_code_hides_nothing(before: str) -> None:
    text = before + "x <!-- figure: tick ours cost --><!-- / --> and `code`"
    assert "-->12.00<!--" in filled(text)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("<!-- table: tock --><!-- / -->", "no scenario is 'tock'; there are tick"),
        ("a <!-- figure: tick our cost --><!-- / -->", "no server in tick is 'our'; there are sl"),
        ("a <!-- figure: tick ours cots --><!-- / -->", "metric of tick is 'cots'; there are cost"),
        ("a <!-- figure: tick ours speed --><!-- / -->", "<!-- ratio: tick ours plain speed -->"),
        ("a <!-- figure: tick ours --><!-- / -->", "`figure` takes SCENARIO SERVER METRIC"),
        ("a <!-- machine: tick --><!-- / -->", "`machine` takes no arguments"),
        ("a <!-- figur: tick ours cost -->1<!-- / -->", "`figur` begins nothing that has an end"),
        ("a <!-- / -->", "begins nothing that has an end; there are figure, ratio, table, chart"),
        ("a <!-- figure: tick ours cost --> b", "`figure` has no `<!-- / -->`"),
        ("a <!-- machine --> b <!-- versions --><!-- / -->", "`machine` has no `<!-- / -->`"),
        ("a <!-- machine --> `<!-- / -->` b", "`machine` has no `<!-- / -->`"),
        ("a <!-- table: tick --><!-- / -->", "`table` has to begin a line"),
        ("a <!-- per_second: tick ours speed --><!-- / -->", "'speed' is not in microseconds"),
        ("- <!-- figure: tick ours cost --><!-- / --> b", "`figure` must not begin a line"),
    ],
)
def test_an_error_says_where_and_what_there_is(text: str, error: str) -> None:
    with pytest.raises(DocumentError) as caught:
        filled(f"first\n\n{text}\n")
    assert str(caught.value).startswith("some.md:3: ")
    assert error in str(caught.value)


def test_a_chart_that_is_not_drawn_is_an_error() -> None:
    document = result()
    document["scenarios"]["tick"]["charts"] = ["speed"]
    with pytest.raises(DocumentError, match=r"some.md:1: no chart of tick shows 'cost'; .* speed"):
        filled("<!-- chart: tick cost --><!-- / -->", record.read(document))


def test_the_result_file_that_a_document_names() -> None:
    text = "`<!-- results: a.json -->`\n<!-- results: b.json -->\n"
    assert results("none", "some.md") is None
    assert results(text, "some.md") == "b.json"
    assert with_results(text, "c.json", "some.md") == text.replace("b.json", "c.json")
    with pytest.raises(DocumentError, match=r"some.md: has no line `<!-- results: FILE -->`"):
        with_results("none", "c.json", "some.md")
    with pytest.raises(DocumentError, match=r"some.md:3: `results` stands here a second time"):
        results(text + "<!-- results: c.json -->", "some.md")


def test_publishing(tmp_path: Path) -> None:
    chart = "<!-- chart: tick cost --><!-- / -->\n"
    (tmp_path / "docs").mkdir()
    readme, page = tmp_path / "README.md", tmp_path / "docs" / "page.md"
    readme.write_text(f"<!-- results: -  -->\n{chart}")
    page.write_text(f"<!-- results: - -->\n{chart}\nµ <!-- figure: tick ours cost --><!-- / -->")
    file = tmp_path / "results" / "some.json"
    file.parent.mkdir()
    file.write_text(json.dumps(result()))
    everything = ["README.md", "docs/page.md"]
    everything += [
        f"docs/charts/tick-{key}.{end}" for key in ("cost", "speed") for end in ("svg", "png")
    ]

    assert publish.publish(file, [readme, page], tmp_path, check=True) == everything
    assert not (tmp_path / "docs" / "charts").exists()
    assert publish.publish(file, [readme, page], tmp_path, check=False) == everything
    assert "(docs/charts/tick-cost.svg)" in readme.read_text()
    assert "(charts/tick-cost.svg)" in page.read_text()
    assert page.read_text().startswith("<!-- results: results/some.json -->\n")
    assert publish.publish(file, [readme, page], tmp_path, check=False) == []
    assert publish.publish(file, [readme, page], tmp_path, check=True) == []

    file.write_text(json.dumps(result(ours=rounds({"cost": 1, "speed": 40}))))
    assert set(publish.publish(file, [page], tmp_path, check=True)) == set(everything) - {
        "README.md"
    }


def test_nothing_is_written_where_one_document_is_wrong(tmp_path: Path) -> None:
    right, wrong = tmp_path / "right.md", tmp_path / "wrong.md"
    right.write_text("<!-- results: - -->")
    wrong.write_text("<!-- results: - -->\n<!-- table: tock -->\n<!-- / -->")
    file = tmp_path / "some.json"
    file.write_text(json.dumps(result()))
    with pytest.raises(DocumentError, match=r"wrong.md:2: no scenario is 'tock'"):
        publish.publish(file, [right, wrong], tmp_path, check=False)
    assert sorted(tmp_path.iterdir()) == [right, file, wrong]
    assert right.read_text() == "<!-- results: - -->"


def test_the_command_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "some.json"
    file.write_text(json.dumps(result()))
    for arguments, said in (
        (["nosuch.json"], "no file nosuch.json"),
        ([str(file), str(ROOT / "README.md")], "is not in the repository"),
    ):
        with pytest.raises(SystemExit) as ended:
            publish.main(arguments)
        assert ended.value.code == 2
        assert said in capsys.readouterr().err


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_the_committed_documents_are_current(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    name = document.relative_to(ROOT).as_posix()
    file = results(text, name)
    if file is None:
        assert markers(text, name) == [], f"{name} names no result file"
    else:
        assert publish.publish(ROOT / file, [document], ROOT, check=True) == []
