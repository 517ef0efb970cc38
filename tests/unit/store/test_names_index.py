from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given

from sseflask.store.names import Pattern, PatternIndex

segments = st.sampled_from(["a", "b", "*"])
patterns = st.builds(
    lambda path, rest: Pattern.parse(".".join([*path, *(["**"] if rest or not path else [])])),
    st.lists(segments, max_size=4),
    st.booleans(),
)
names = st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=5).map(".".join)


@given(st.lists(st.tuples(patterns, st.integers(0, 3)), max_size=8), st.data())
def test_against_matching_one_by_one(those: list[tuple[Pattern, int]], data: st.DataObject) -> None:
    index: PatternIndex[tuple[Pattern, int]] = PatternIndex()
    for pattern, number in those:
        index.add(pattern, (pattern, number))
    gone = data.draw(st.sets(st.sampled_from(those))) if those else set()
    for pattern, number in gone:
        index.remove(pattern, (pattern, number))
        index.remove(pattern, (pattern, number))
    left = set(those) - gone
    name = data.draw(names)
    assert set(index.find(name)) == {each for each in left if each[0].matches(name)}
    assert bool(index) == bool(left)
    for pattern, number in left:
        index.remove(pattern, (pattern, number))
    assert not index
