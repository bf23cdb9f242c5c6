"""Names that look alike and are not, or that turn what stands beside them, are refused; no script is, and no emoji."""

from __future__ import annotations

import pytest

from raftchat.chat.commands import Refused, check_text, check_user, room_key
from raftchat.config import Config

CONFIG = Config()

INVISIBLE = [
    *range(0x202A, 0x202F),
    *range(0x2066, 0x206A),
    *(0x200B, 0x2060, 0xFEFF, 0x061C, 0x200E, 0x200F),
    *(0x00AD, 0x034F, 0x115F, 0x1160, 0x180E, 0x2061, 0x206A, 0x3164, 0xFFA0, 0xFFF9, 0xE0041),
]


@pytest.mark.parametrize("code", INVISIBLE, ids="U+{:04X}".format)
@pytest.mark.parametrize("name", ["gen{}eral", "{}general", "general{}", "\u05e9\u05dc{}\u05d5\u05dd", "{}"])
def test_what_cannot_be_seen_is_refused_wherever_it_stands(name: str, code: int) -> None:
    name = name.format(chr(code))
    for what, check in (("room", room_key), ("user", check_user)):
        with pytest.raises(Refused) as caught:
            check(name, CONFIG)
        assert caught.value.code == f"{what}_invisible_character"
        assert f"U+{code:04X}" in caught.value.detail
    check_text(f"{name} is a text", CONFIG)


@pytest.mark.parametrize(
    "name",
    [
        "gen\u200deral",
        "gen\u200ceral",
        "\u200dgeneral",
        "general\u200d",
        "\u6f22\u200d\u5b57",  # Han
        "\u05e9\u200c\u05dc",  # Hebrew does not connect
        "\u0645\u06cc\u200c",  # nothing to be kept apart from
        "\U0001f469\u200d",
        "\U0001f469\u200da",
        "a\u0301\u200d\U0001f469",
        "genera\ufe0fl",
        "\ufe0fgeneral",
        "\u2764\ufe0f\ufe0f",
        "\U0001f3f4\U000e0067\U000e0062",  # a flag's tags without their end
    ],
    ids=ascii,
)
def test_joiners_and_selectors_that_shape_nothing_are_refused(name: str) -> None:
    with pytest.raises(Refused) as caught:
        room_key(name, CONFIG)
    assert caught.value.code == "room_invisible_character"


@pytest.mark.parametrize(
    "name",
    [
        "\u05e9\u05dc\u05d5\u05dd",  # Hebrew
        "\u0645\u0631\u062d\u0628\u0627 123",  # Arabic with digits
        "general \u05e9\u05dc\u05d5\u05dd",  # both directions
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",  # Persian, kept apart
        "\u0645\u064e\u200c\u062e",  # behind a vowel sign
        "\u0915\u094d\u200d\u0937",  # Devanagari, half form
        "\u0915\u094d\u200c\u0937",
        "\U0001f469\u200d\U0001f469\u200d\U0001f467",  # family
        "\U0001f468\U0001f3fd\u200d\U0001f4bb",  # with a skin tone
        "\U0001f3f3\ufe0f\u200d\U0001f308",  # rainbow flag
        "\u2764\ufe0f\u200d\U0001f525",
        "\U0001f642\u200d\u2194\ufe0f",  # an arrow of mathematics
        "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",  # England
        "1\ufe0f\u20e3",  # keycap
        "\u2139\ufe0f",
        "gr\u00f6\u00dfe",
        "e\u0301te\u0301",  # combining marks
        "\u6f22\U000e0100\u5b57",  # variant of an ideograph
        "\ud55c\uad6d\uc5b4",
        "\u0600\u0661",  # Arabic number sign: a format character that is seen
    ],
    ids=ascii,
)
def test_what_is_seen_or_shapes_what_is_seen_round_trips(name: str) -> None:
    assert room_key(name, CONFIG).decode() == name
    check_user(name, CONFIG)
