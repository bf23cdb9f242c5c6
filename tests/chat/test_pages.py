"""Pages are defined by order: walking either way finds every ID once, whatever the cursor."""

from array import array

from hypothesis import given
from hypothesis import strategies as st

from raftchat.chat import pages

IDS = array("Q", [3, 5, 8, 13, 21])


def shape(page):
    return list(page.ids), page.older, page.newer


def test_newest():
    assert shape(pages.newest(IDS, 2)) == ([13, 21], 13, None)
    assert shape(pages.newest(IDS, 5)) == (list(IDS), None, None)
    assert shape(pages.newest(array("Q"), 5)) == ([], None, None)


def test_before_and_after_exclude_the_cursor_which_need_not_exist():
    assert shape(pages.before(IDS, 13, 2)) == ([5, 8], 5, 8)
    assert shape(pages.before(IDS, 14, 9)) == ([3, 5, 8, 13], None, 13)
    assert shape(pages.after(IDS, 5, 2)) == ([8, 13], 8, 13)
    assert shape(pages.after(IDS, 4, 9)) == ([5, 8, 13, 21], 5, None)


def test_an_empty_page_points_back_to_what_there_is():
    assert shape(pages.before(IDS, 3, 2)) == ([], None, 2)
    assert list(pages.after(IDS, 2, 1).ids) == [3]
    assert shape(pages.after(IDS, 21, 2)) == ([], 22, None)
    assert list(pages.before(IDS, 22, 1).ids) == [21]
    assert shape(pages.before(IDS, 0, 2)) == ([], None, 0)


def test_around_has_the_cursor_in_the_middle_and_is_full_at_the_ends():
    assert shape(pages.around(IDS, 8, 3)) == ([5, 8, 13], 5, 13)
    assert shape(pages.around(IDS, 9, 2)) == ([8, 13], 8, 13)
    assert shape(pages.around(IDS, 3, 3)) == ([3, 5, 8], None, 8)
    assert shape(pages.around(IDS, 99, 3)) == ([8, 13, 21], 8, None)
    assert shape(pages.around(IDS, 8, 9)) == (list(IDS), None, None)


@given(st.sets(st.integers(1, 99)), st.integers(1, 7))
def test_walking_either_way_finds_every_id_once(ids, limit):
    ids = array("Q", sorted(ids))
    page = pages.newest(ids, limit)
    back = list(page.ids)
    while page.older is not None:
        page = pages.before(ids, page.older, limit)
        back = list(page.ids) + back
    assert back == list(ids)
    page = pages.after(ids, 0, limit)
    forth = list(page.ids)
    while page.newer is not None:
        page = pages.after(ids, page.newer, limit)
        forth += page.ids
    assert forth == list(ids)


@given(st.sets(st.integers(1, 99)), st.integers(0, 120), st.integers(1, 7))
def test_around_is_a_window_that_holds_the_cursor(ids, cursor, limit):
    ids = sorted(ids)
    page = pages.around(array("Q", ids), cursor, limit)
    assert len(page.ids) == min(limit, len(ids))
    assert cursor not in ids or cursor in page.ids
