"""Names of channels and patterns: a table of what is one, and containment against matching."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sseflask.errors import ChannelError
from sseflask.store import names as module
from sseflask.store.names import Pattern, check_name

NAMES = ["a", "orders.eu", "A-z_0:9.x", ".", "a.", ".a", "a..b", "x" * 128, "a:b:c"]
NO_NAMES = ["", "a b", "a/b", "é", "a\n", "x" * 129, "a\x00", "a?", "\N{FULLWIDTH DIGIT ONE}"]
PATTERNS = ["*", "**", "a.*", "a.**", "*.a", "*.*", "*.**", "a.*.b.**", *NAMES]
NO_PATTERNS = ["a*", "*a", "a.b*", "***", "**.a", "a.**.b", "**.**", "*" * 129, *NO_NAMES]

# Few letters, so that segments meet by chance.
plain = st.sampled_from(["", "a", "b", "ab"])
names = st.lists(plain, min_size=1, max_size=4).map(".".join).filter(bool)
patterns = st.builds(
    lambda segments, end: ".".join([*segments, *end]),
    st.lists(plain | st.just("*"), max_size=3),
    st.sampled_from([["a"], ["*"], ["**"]]),
).map(Pattern.parse)


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_a_name_and_the_pattern_of_itself(name: str) -> None:
    assert check_name(name) == name
    pattern = Pattern.parse(name)
    assert pattern.is_name
    assert str(pattern) == name
    assert pattern.prefix == name
    assert pattern.matches(name)


@pytest.mark.parametrize("text", [*NO_NAMES, "*", "a.*"])
def test_what_is_no_name_is_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(ChannelError, match=r"1 to 128 of the characters"):
        check_name(text)


@pytest.mark.parametrize("text", PATTERNS)
def test_a_pattern_reads_as_it_was_written(text: str) -> None:
    pattern = Pattern.parse(text)
    assert str(pattern) == text
    assert pattern == Pattern.parse(text)
    assert hash(pattern) == hash(Pattern.parse(text))
    assert pattern.is_name == ("*" not in text)
    assert pattern.is_everything == (text == "**")


@pytest.mark.parametrize("text", NO_PATTERNS)
def test_what_is_no_pattern_is_refused(text: str) -> None:
    with pytest.raises(ChannelError, match=r"is no pattern|is neither a channel name"):
        Pattern.parse(text)


@pytest.mark.parametrize("value", [None, 1, b"a", ["a"]])
def test_what_is_no_text_is_refused(value: object) -> None:
    with pytest.raises(ChannelError):
        check_name(value)  # type: ignore[arg-type]
    with pytest.raises(ChannelError):
        Pattern.parse(value)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("pattern", "has", "has_not"),
    [
        ("orders", ["orders"], ["order", "orders.eu", "Orders"]),
        ("orders.*", ["orders.eu", "orders."], ["orders", "orders.eu.7", "xorders.eu"]),
        ("orders.**", ["orders.eu", "orders.eu.7"], ["orders", "ordersx.eu"]),
        ("*", ["orders", "a:b"], ["orders.eu"]),
        ("**", ["orders", "orders.eu.7", "."], []),
        ("*.eu", ["orders.eu", ".eu"], ["eu", "a.b.eu", "orders.us"]),
        ("*.**", ["a.b", "a.b.c"], ["a"]),
    ],
)
def test_matching(pattern: str, has: list[str], has_not: list[str]) -> None:
    parsed = Pattern.parse(pattern)
    assert [name for name in [*has, *has_not] if parsed.matches(name)] == has


def as_expression(pattern: Pattern) -> re.Pattern[str]:
    """The same meaning in other words."""
    parts = {"*": r"[^.]*", "**": r".*"}
    return re.compile(
        r"\.".join(parts.get(part) or re.escape(part) for part in pattern.segments), re.DOTALL
    )


@given(patterns, names)
def test_matching_is_what_a_regular_expression_says(pattern: Pattern, name: str) -> None:
    assert pattern.matches(name) == bool(as_expression(pattern).fullmatch(name))
    assert pattern.matches(name) == bool(pattern.expression.fullmatch(name))
    assert not pattern.matches(name) or name.startswith(pattern.prefix)


@given(patterns, patterns)
@example(Pattern.parse("*.**"), Pattern.parse("**"))
@example(Pattern.parse("a.**"), Pattern.parse("a.*"))
@example(Pattern.parse("*"), Pattern.parse("**"))
def test_covering_is_matching_whatever_the_other_matches(one: Pattern, other: Pattern) -> None:
    # Segments that stand in no pattern: what matches these names does so for its wildcards only.
    ends = [["new"], ["new", "new"]] if other.segments[-1] == "**" else [[other.segments[-1]]]
    witnesses = [
        ".".join("new" if part == "*" else part for part in [*other.segments[:-1], *end])
        for end in ends
    ]
    assert all(other.matches(name) for name in witnesses)
    assert one.covers(other) == all(one.matches(name) for name in witnesses)


@given(patterns, patterns, names)
def test_what_a_covered_pattern_matches_the_covering_one_matches(
    one: Pattern, other: Pattern, name: str
) -> None:
    if one.covers(other) and other.matches(name):
        assert one.matches(name)
    assert one.covers(one)
    assert Pattern.parse("**").covers(one)


def test_what_strangers_ask_for_does_not_pile_up() -> None:
    for number in range(3000):
        assert str(Pattern.parse(f"stranger.{number}")) == f"stranger.{number}"
        with pytest.raises(ChannelError):
            Pattern.parse(f"no name {number}")
    remembered = module._parsed.cache_info()
    assert remembered.currsize <= (remembered.maxsize or 0) <= 1024
    with pytest.raises(ChannelError):
        Pattern.parse([])  # type: ignore[arg-type]  # what a careless view passes on
