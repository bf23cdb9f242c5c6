"""Bugs planted in the code under test, each of which the checkers must find.

A mutant replaces pieces of functions' source texts. A piece that is not there exactly once any more is an error
(`SeamMoved`), so that a mutant cannot silently plant nothing. `planted.py` has the list. Knows neither what a bug does
nor who finds it.
"""

from __future__ import annotations

import importlib
import inspect
import textwrap
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import FunctionType


class SeamMoved(Exception):
    """The code is not what it was when the mutant was written: bring the mutant up to date."""


@dataclass(frozen=True)
class Edit:
    """In the function `place` ("module:name" or "module:Class.name"), `old` becomes `new`."""

    place: str
    old: str
    new: str


@dataclass(frozen=True)
class Mutant:
    name: str
    edits: tuple[Edit, ...]

    @contextmanager
    def planted(self) -> Iterator[None]:
        """Within this block the code has the bug."""
        places = {edit.place: [e for e in self.edits if e.place == edit.place] for edit in self.edits}
        with ExitStack() as stack:
            for place, edits in places.items():
                stack.enter_context(_edited(place, edits))
            yield


@contextmanager
def _edited(place: str, edits: list[Edit]) -> Iterator[None]:
    function = _function(place)
    source = textwrap.dedent(inspect.getsource(function))
    for edit in edits:
        if source.count(edit.old) != 1:
            raise SeamMoved(f"{place} has {edit.old!r} {source.count(edit.old)} times, not once")
        source = source.replace(edit.old, edit.new)
    if source.startswith("@"):
        source = source.partition("\n")[2]
    namespace = dict(function.__globals__)
    exec(compile(source, f"<mutant of {place}>", "exec"), namespace)
    # The code is replaced, not the function, so that whoever has imported it has the bug too.
    code, function.__code__ = function.__code__, namespace[function.__name__].__code__
    try:
        yield
    finally:
        function.__code__ = code


def _function(place: str) -> FunctionType:
    module, _, path = place.partition(":")
    found: object = importlib.import_module(module)
    try:
        for name in path.split("."):
            found = inspect.getattr_static(found, name)
    except AttributeError:
        raise SeamMoved(f"{place} does not exist any more") from None
    if isinstance(found, property):
        found = found.fget
    if not isinstance(found, FunctionType):
        raise SeamMoved(f"{place} is not a function any more")
    return found
