"""Pages are defined by order: walking either way finds every ID once, whatever the cursor and wherever the floor is."""

from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftchat.chat import pages
from raftchat.chat.pages import Page
from raftchat.chat.room import Room

KEY = b"a"
LAST_INDEX = 130


class Ids:
    """Look-ups in the IDs that a room has and had."""

    def __init__(self, ids):
        self.ids = sorted(ids)

    def below(self, key, index, limit, floor):
        assert key == KEY
        assert limit > 0
        return array("Q", [i for i in self.ids if floor <= i < index][-limit:])

    def above(self, key, index, limit, last_index):
        assert key == KEY
        assert limit > 0
        return array("Q", [i for i in self.ids if index < i <= last_index][:limit])


def room_of(ids, floor=1):
    ids = sorted(ids)
    room = Room("a", floor)
    live = [i for i in ids if i >= floor]
    room.count = len(live)
    room.first_id = live[0] if live else 0
    room.last_id = ids[-1] if ids else 0
    return room


def page(ids, how, cursor=0, limit=100, floor=1):
    found = pages.select(Ids(ids), room_of(ids, floor), KEY, LAST_INDEX, how, cursor, limit)
    return list(found.ids), found.older, found.newer


IDS = [3, 5, 8, 13, 21]


def test_newest():
    assert page(IDS, "newest", limit=2) == ([13, 21], 13, None)
    assert page(IDS, "newest", limit=5) == (IDS, None, None)


def test_a_room_without_messages_has_empty_pages_that_lead_nowhere():
    for how in ("newest", "before", "after", "around"):
        assert page(IDS, how, 8, 5, floor=22) == ([], None, None)


def test_before_and_after_exclude_the_cursor_which_need_not_exist():
    assert page(IDS, "before", 13, 2) == ([5, 8], 5, 8)
    assert page(IDS, "before", 14, 9) == ([3, 5, 8, 13], None, 13)
    assert page(IDS, "before", 2**64, 9) == (IDS, None, None)
    assert page(IDS, "after", 5, 2) == ([8, 13], 8, 13)
    assert page(IDS, "after", 4, 9) == ([5, 8, 13, 21], 5, None)


def test_an_empty_page_points_back_to_what_there_is():
    assert page(IDS, "before", 3, 2) == ([], None, 2)
    assert page(IDS, "after", 2, 1)[0] == [3]
    assert page(IDS, "after", 21, 2) == ([], 22, None)
    assert page(IDS, "after", 2**64, 2) == ([], 2**64 + 1, None)
    assert page(IDS, "before", 22, 1)[0] == [21]
    assert page(IDS, "before", 0, 2) == ([], None, 0)


def test_around_has_the_cursor_in_the_middle_and_is_full_at_the_ends():
    assert page(IDS, "around", 8, 3) == ([5, 8, 13], 5, 13)
    assert page(IDS, "around", 9, 2) == ([8, 13], 8, 13)
    assert page(IDS, "around", 3, 3) == ([3, 5, 8], None, 8)
    assert page(IDS, "around", 99, 3) == ([8, 13, 21], 8, None)
    assert page(IDS, "around", 8, 9) == (IDS, None, None)
    assert page(IDS, "around", 0, 1) == ([3], None, 3)
    assert page(IDS, "around", 2**64, 1) == ([21], 21, None)


def test_what_lies_below_the_floor_is_not_there():
    assert page(IDS, "newest", limit=9, floor=8) == ([8, 13, 21], None, None)
    assert page(IDS, "before", 13, 9, floor=8) == ([8], None, 8)
    assert page(IDS, "before", 8, 9, floor=8) == ([], None, 7)
    assert page(IDS, "after", 0, 2, floor=8) == ([8, 13], None, 13)
    assert page(IDS, "around", 3, 2, floor=8) == ([8, 13], None, 13)


def test_what_lies_beyond_the_state_is_not_there():
    """Entries that are committed but not applied must not show: their page would say that nothing newer is there."""
    room = room_of(IDS)
    for how, cursor in (("newest", 0), ("before", 99), ("after", 0), ("around", 30)):
        found = pages.select(Ids([*IDS, 30, 31]), room, KEY, 29, how, cursor, 100)
        assert found == Page(found.ids, None, None)
        assert list(found.ids) == IDS


@given(st.sets(st.integers(1, 99), min_size=1), st.integers(1, 120), st.integers(1, 7))
def test_walking_either_way_finds_every_id_once(ids, floor, limit):
    live = sorted(i for i in ids if i >= floor)
    found, older, _ = page(ids, "newest", 0, limit, floor)
    back = list(found)
    while older is not None:
        found, older, _ = page(ids, "before", older, limit, floor)
        back = found + back
    assert back == live
    forth, _, newer = page(ids, "after", 0, limit, floor)
    while newer is not None:
        found, _, newer = page(ids, "after", newer, limit, floor)
        forth += found
    assert forth == live


@given(
    st.sets(st.integers(1, 99), min_size=1),
    st.sampled_from(["newest", "before", "after", "around"]),
    st.integers(0, 120),
    st.integers(1, 7),
    st.integers(1, 120),
)
def test_every_page_is_a_window_and_says_what_lies_beside_it(ids, how, cursor, limit, floor):
    live = sorted(i for i in ids if i >= floor)
    found, older, newer = page(ids, how, cursor, limit, floor)
    if not live:
        assert (found, older, newer) == ([], None, None)
        return
    candidates = {
        "before": [i for i in live if i < cursor],
        "after": [i for i in live if i > cursor],
    }.get(how, live)
    assert len(found) == min(limit, len(candidates))
    assert set(found) <= set(candidates)
    if how == "around":
        assert cursor not in live or cursor in found
    if found:
        start = live.index(found[0])
        assert found == live[start : start + len(found)]
        assert older == (found[0] if start else None)
        assert newer == (found[-1] if found[-1] != live[-1] else None)
    elif how == "before":
        assert (older, newer) == (None, max(0, cursor - 1))
        assert page(ids, "after", newer, limit, floor)[0][0] == live[0]
    else:
        assert (older, newer) == (cursor + 1, None)
        assert page(ids, "before", older, limit, floor)[0][-1] == live[-1]


def test_around_splits_evenly():
    ids = range(1, 100)
    for limit in range(1, 9):
        found, _, _ = page(ids, "around", 50, limit)
        assert found[0] == 50 - limit // 2
        assert len(found) == limit


def test_an_unknown_way_is_a_fault():
    with pytest.raises(AssertionError):
        page(IDS, "beside")
