"""The stories in `transcripts/` happen as they are told there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.raft.transcript import rewrite

STORIES = sorted((Path(__file__).parent / "transcripts").glob("*.txt"))


@pytest.mark.parametrize("path", STORIES, ids=lambda path: path.stem)
def test_transcript(path: Path, request: pytest.FixtureRequest) -> None:
    told = path.read_text(encoding="utf-8")
    happens = rewrite(told)
    if request.config.getoption("--rewrite"):
        path.write_text(happens, encoding="utf-8")
    else:
        assert happens == told


def test_there_are_stories() -> None:
    assert len(STORIES) >= 8


def test_a_story_that_has_changed_is_noticed() -> None:
    story = STORIES[0].read_text(encoding="utf-8")
    assert rewrite(story.replace("term 1", "term 7")) == story
