"""Characters of a name that cannot be seen, or that turn the text around it: with them two names look like one.

A name is an identifier that people tell apart by eye (Unicode TR 36; UTS 39, "General Security Profile"). So what has
no glyph of its own (Default_Ignorable_Code_Point) has no place in one, nor have the controls that reorder text: letters
that run from right to left order themselves and need none.

What makes something visible is let be: a joiner after a virama, a non-joiner between letters that would connect (RFC
5892, appendix A), a joiner between emoji, the tags of a flag, a variation selector behind what has variants. Messages
are not names: they may have anything.
"""

from __future__ import annotations

import re
import unicodedata

ZWNJ, ZWJ = "\u200c", "\u200d"
VIRAMA = 9
"""Canonical combining class."""

# Soft hyphen, grapheme joiner, Arabic letter mark, fillers, zero width space, marks, embeddings, overrides, isolates,
# word joiner, invisible operators, byte order mark, annotations, musical beams, tags.
_NEVER = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\u3164\ufeff\uffa0"
    "\ufff9-\ufffb\U0001d173-\U0001d17a\U000e0000-\U000e007f]"
)
_FLAG = re.compile("\U0001f3f4[\U000e0030-\U000e0039\U000e0061-\U000e007a]+\U000e007f")
_SELECTOR_OF_NOTHING = re.compile("(?:^|[A-Za-z\\s\ufe00-\ufe0f])([\ufe00-\ufe0f])")
_JOINER = re.compile(f"[{ZWNJ}{ZWJ}]")


def find(name: str) -> str | None:
    """The first character of a name that must not be there, or None."""
    if name.isascii():
        return None
    name = _FLAG.sub("\U0001f3f4", name)
    if (never := _NEVER.search(name)) is not None:
        return never[0]
    if (selector := _SELECTOR_OF_NOTHING.search(name)) is not None:
        return selector[1]
    for joiner in _JOINER.finditer(name):
        if not _shapes(name, joiner.start()):
            return joiner[0]
    return None


def _shapes(name: str, at: int) -> bool:
    """Whether a joiner changes how its neighbours look."""
    if at == 0:
        return False
    if unicodedata.combining(name[at - 1]) == VIRAMA:
        return True
    before, after = _base(name[:at]), name[at + 1 : at + 2]
    if name[at] == ZWNJ:
        return _connects(before) and _connects(after)
    return _is_pictogram(before) and _is_pictogram(after)


def _base(text: str) -> str:
    """The last character that is no mark, selector or skin tone upon another."""
    return next((char for char in reversed(text) if unicodedata.category(char) not in ("Mn", "Mc", "Me", "Sk")), "")


def _connects(char: str) -> bool:
    return char != "" and unicodedata.bidirectional(char) == "AL"


def _is_pictogram(char: str) -> bool:
    """Emoji are symbols, some of them arrows of mathematics. Unassigned: newer than this Python."""
    return char != "" and unicodedata.category(char) in ("So", "Sm", "Cn")
