"""The checker finds what it is for: a clean history passes, and each kind of anomaly, planted alone, is named."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest

from tests.faults.checker import check
from tests.faults.history import History, Message, Outcome, Post, Read, Stream


def clean() -> History:
    """Twelve posts to two rooms, one failed and two unknown of which one took effect; reads, a stream, three nodes."""
    history = History()
    story: dict[str, list[Message]] = {"a": [], "b": []}
    for n in range(12):
        room, text, id = "ab"[n % 2], f"text {n}", 10 + 2 * n
        began, ended = float(n), n + 0.5
        outcome = {4: Outcome.FAILED, 7: Outcome.UNKNOWN, 9: Outcome.UNKNOWN}.get(n, Outcome.OK)
        history.posts.append(Post(room, text, n % 3 + 1, began, ended, outcome, id=id if outcome is Outcome.OK else 0))
        if n not in (4, 7):
            story[room].append(Message(id, text))
        visible = story[room][-3:]
        history.reads.append(
            Read(room, n % 3 + 1, ended + 0.1, ended + 0.2, True, len(story[room]) <= 3, list(visible))
        )
    everything = sorted((message, room) for room, messages in story.items() for message in messages)
    stream = Stream(2, opened=2.5, closed=20.0, drained=True)
    stream.messages = [(room, message) for message, room in everything if message.id >= 14]
    history.streams.append(stream)
    history.final = {node: copy.deepcopy(story) for node in (1, 2, 3)}
    return history


def test_a_clean_history_has_no_anomaly() -> None:
    assert check(clean()) == []


def test_nothing_is_said_about_nodes_that_were_not_read() -> None:
    history = clean()
    history.final = {}
    with pytest.raises(ValueError, match="no node was read"):
        check(history)


def everywhere(history: History, edit: Callable[[dict[str, list[Message]]], None]) -> None:
    """The same fault on all nodes, and nobody looked in between: only the posts can tell."""
    history.reads, history.streams = [], []
    for rooms in history.final.values():
        edit(rooms)


def lost(history: History) -> None:
    everywhere(history, lambda rooms: rooms["a"].pop(1))


def duplicated(history: History) -> None:
    everywhere(history, lambda rooms: rooms["a"].append(Message(99, rooms["a"][0].text)))


def reordered(history: History) -> None:
    def swap(rooms: dict[str, list[Message]]) -> None:
        one, two = rooms["a"][2:4]
        rooms["a"][2:4] = [Message(one.id, two.text), Message(two.id, one.text)]

    everywhere(history, swap)
    ids = {message.text: message.id for message in history.final[1]["a"]}
    for post in history.posts:
        post.id = ids.get(post.text, post.id) if post.outcome is Outcome.OK else 0


def misnumbered(history: History) -> None:
    history.posts[0].id += 1


def phantom_of_nobody(history: History) -> None:
    everywhere(history, lambda rooms: rooms["b"].append(Message(99, "who wrote this?")))


def phantom_in_another_room(history: History) -> None:
    def move(rooms: dict[str, list[Message]]) -> None:
        rooms["b"].append(Message(99, "text 4"))
        history.posts[4].outcome = Outcome.UNKNOWN

    everywhere(history, move)


def phantom_of_a_failed_post(history: History) -> None:
    everywhere(history, lambda rooms: rooms["a"].insert(2, Message(18, "text 4")))


def differ_in_content(history: History) -> None:
    history.final[3]["a"][0] = Message(10, "text 4")


def differ_in_length(history: History) -> None:
    history.final[2]["b"].pop()


def differ_in_rooms(history: History) -> None:
    del history.final[3]["b"]


def repeated_at_the_end(history: History) -> None:
    everywhere(history, lambda rooms: rooms["a"].insert(1, rooms["a"][0]))


def repeated_in_a_stream(history: History) -> None:
    history.streams[0].messages.insert(3, history.streams[0].messages[2])


def skipped_in_a_stream(history: History) -> None:
    del history.streams[0].messages[3]


def skipped_at_a_streams_start(history: History) -> None:
    del history.streams[0].messages[:2]


def skipped_at_a_streams_end(history: History) -> None:
    history.streams[0].messages.pop()


def skipped_in_a_read(history: History) -> None:
    del history.reads[-1].messages[1]


def skipped_at_a_whole_reads_start(history: History) -> None:
    assert history.reads[2].whole
    del history.reads[2].messages[0]


def stale_after_a_post(history: History) -> None:
    history.reads[10].messages.pop()


def stale_after_a_read(history: History) -> None:
    """Post 9 is unknown, so only the read that showed it obliges later ones."""
    seen = history.reads[9]
    history.reads.append(Read("b", 1, seen.ended + 0.1, seen.ended + 0.2, True, False, seen.messages[:-1]))


def stale_and_empty(history: History) -> None:
    history.reads[6].messages = []


def future(history: History) -> None:
    history.reads[6].messages.append(Message(26, "text 8"))


def flipflop_in_a_read(history: History) -> None:
    history.reads[7].messages.append(Message(24, "text 7"))


def flipflop_under_another_id(history: History) -> None:
    history.reads[5].messages[-1] = Message(21, "text 5")


def flipflop_in_a_stream(history: History) -> None:
    at = [message.id for _, message in history.streams[0].messages].index(28)
    history.streams[0].messages.insert(at, ("b", Message(24, "text 7")))


def flipflop_of_rooms(history: History) -> None:
    room, message = history.streams[0].messages[4]
    history.streams[0].messages[4] = ("ab"[room == "a"], message)


PLANTED = [
    lost,
    duplicated,
    reordered,
    misnumbered,
    phantom_of_nobody,
    phantom_in_another_room,
    phantom_of_a_failed_post,
    differ_in_content,
    differ_in_length,
    differ_in_rooms,
    repeated_at_the_end,
    repeated_in_a_stream,
    skipped_in_a_stream,
    skipped_at_a_streams_start,
    skipped_at_a_streams_end,
    skipped_in_a_read,
    skipped_at_a_whole_reads_start,
    stale_after_a_post,
    stale_after_a_read,
    stale_and_empty,
    future,
    flipflop_in_a_read,
    flipflop_under_another_id,
    flipflop_in_a_stream,
    flipflop_of_rooms,
]


@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__)
def test_a_planted_anomaly_is_named(plant: Callable[[History], None]) -> None:
    history = clean()
    plant(history)
    kind = plant.__name__.split("_")[0]
    assert kind in {anomaly.kind for anomaly in check(history)}, check(history)


def test_local_reads_may_be_stale_but_not_wrong() -> None:
    history = clean()
    stale_after_a_post(history)
    history.reads[10].linearizable = False
    assert check(history) == []


def test_an_unknown_post_may_take_effect_later_than_others() -> None:
    history = clean()
    late = Message(40, "text 7")
    for rooms in history.final.values():
        rooms["b"].append(late)
    history.streams[0].messages.append(("b", late))
    assert check(history) == []
