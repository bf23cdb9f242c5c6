"""Which segments are rewritten: what is mostly dead, with small neighbours, and each byte only so often."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from raftchat.node.compaction import Drop, Rewrite, Sealed, plan

SIZE = 1 << 20
HEADER = 104


@dataclass
class Segment:
    base_index: int
    last_index: int
    size_bytes: int


def sealed(*lives: int | None, sizes: list[int] | None = None) -> list[Sealed]:
    return [
        Sealed(Segment(at * 10 + 1, at * 10 + 10, sizes[at] if sizes else SIZE), live) for at, live in enumerate(lives)
    ]


def planned(segments: list[Sealed]) -> Drop | Rewrite | None:
    return plan(segments, SIZE, 50)


def test_what_lives_is_let_be() -> None:
    assert planned([]) is None
    assert planned(sealed(SIZE, SIZE, SIZE // 2)) is None


def test_the_oldest_are_dropped_when_nothing_in_them_lives() -> None:
    assert planned(sealed(0, 0, SIZE)) == Drop(2)
    assert planned(sealed(0)) == Drop(1)


def test_a_segment_that_is_mostly_dead_is_rewritten_with_its_neighbours_that_are_too() -> None:
    assert planned(sealed(SIZE, SIZE // 2 - 256, SIZE)) == Rewrite(1, 2)
    assert planned(sealed(SIZE, SIZE // 3, SIZE // 3, SIZE // 3, SIZE // 3, SIZE)) == Rewrite(1, 4)
    assert planned(sealed(SIZE, 0, SIZE)) == Rewrite(1, 2)


def test_a_small_neighbour_is_taken_along_but_not_a_large_one() -> None:
    small = sealed(SIZE // 8, SIZE // 4, SIZE // 8, sizes=[SIZE // 8, SIZE, SIZE // 8])
    assert planned(small) == Rewrite(0, 3)
    large = sealed(SIZE // 2, SIZE // 4, SIZE // 2, sizes=[SIZE // 2, SIZE, SIZE // 2])
    assert planned(large) == Rewrite(1, 2)


def test_many_small_ones_are_merged_though_all_in_them_lives() -> None:
    three = [SIZE // 8] * 3
    assert planned(sealed(*three, sizes=three)) is None
    four = [SIZE // 8] * 4
    assert planned(sealed(*four, sizes=four)) == Rewrite(0, 4)


def test_what_is_not_known_is_never_touched() -> None:
    assert planned(sealed(None, 0, 0)) == Rewrite(1, 3)
    assert planned(sealed(0, None, SIZE // 8, None)) == Drop(1)
    assert planned(sealed(None, SIZE // 8, None, SIZE // 8)) == Rewrite(1, 2)


@given(st.randoms(use_true_random=False), st.integers(1, 40))
def test_it_comes_to_an_end_with_little_dead_and_few_files(random: Random, count: int) -> None:
    segments = sealed(*(random.choice([SIZE, random.randrange(SIZE)]) for _ in range(count)))
    written = 0
    total = sum(one.live_bytes or 0 for one in segments)
    while (step := planned(segments)) is not None:
        if isinstance(step, Drop):
            del segments[: step.segments]
            continue
        run = segments[step.start : step.stop]
        live = sum(one.live_bytes or 0 for one in run)
        assert live <= SIZE
        written += live + HEADER
        assert written <= 8 * total + count * 8 * HEADER, "each byte is rewritten a few times at most"
        merged = Segment(run[0].segment.base_index, run[-1].segment.last_index, live + HEADER)
        segments[step.start : step.stop] = [Sealed(merged, live)]
    assert sum(one.live_bytes or 0 for one in segments) == total
    for one in segments:
        assert one.segment.size_bytes <= 2 * (one.live_bytes or 0) + 256 + 1


def test_a_segment_never_stands_for_more_entries_than_its_postings_can_count() -> None:
    """Beyond 2**32 it could neither be indexed nor searched, and what it was made of would go."""
    far = 2**32

    def spread(last_of_second: int, live: int) -> list[Sealed]:
        bounds = [(1, 10), (11, last_of_second)]
        while len(bounds) < 4:
            bounds.append((bounds[-1][1] + 1, bounds[-1][1] + 10))
        return [Sealed(Segment(first, last, SIZE // 8), live) for first, last in bounds]

    small = SIZE // 64
    assert planned(spread(far - 20, small)) == Rewrite(0, 4)
    assert planned(spread(far, small)) == Rewrite(0, 2)
    assert planned(spread(far + 1, small)) == Rewrite(0, 1)
    assert planned([Sealed(spread(far + 1, SIZE)[0].segment, SIZE // 8), *spread(far + 1, small)[1:2]]) == Rewrite(1, 2)
    whole = SIZE // 8
    assert planned(spread(far - 20, whole)) == Rewrite(0, 4)
    assert planned(spread(far, whole)) is None
