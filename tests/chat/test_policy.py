"""What a policy may say, in all the ways that users write it, and that it survives being written down."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftchat.chat.commands import KIND_RETENTION, parse_retention, set_retention
from raftchat.chat.errors import Refused
from raftchat.chat.policy import Policy


def test_missing_members_are_no_limit_but_for_the_age_of_empty_rooms():
    policy = Policy.from_json({}, cluster=True)
    assert policy == Policy(
        max_age_ms=None, max_messages=None, max_bytes=None, max_rooms=None, empty_room_age_ms=3_600_000
    )
    assert policy.to_json(cluster=True) == {
        "MaxAge": None,
        "MaxMessages": None,
        "MaxBytes": None,
        "MaxRooms": None,
        "EmptyRoomAge": 3600,
    }
    assert policy.to_json(cluster=False) == {"MaxAge": None, "MaxMessages": None, "MaxBytes": None}


@pytest.mark.parametrize(
    ("member", "given", "attribute", "limit"),
    [
        ("MaxAge", 3600, "max_age_ms", 3_600_000),
        ("MaxAge", "3600", "max_age_ms", 3_600_000),
        ("MaxAge", 0.5, "max_age_ms", 500),
        ("MaxAge", "30d", "max_age_ms", 30 * 86_400_000),
        ("MaxAge", " 1.5 H ", "max_age_ms", 5_400_000),
        ("MaxAge", "250ms", "max_age_ms", 250),
        ("MaxAge", None, "max_age_ms", None),
        ("MaxMessages", 1, "max_messages", 1),
        ("MaxMessages", 2**53 - 1, "max_messages", 2**53 - 1),
        ("MaxBytes", 5, "max_bytes", 5),
        ("MaxBytes", "1GiB", "max_bytes", 2**30),
        ("MaxBytes", "1.5 kB", "max_bytes", 1500),
        ("MaxRooms", 7, "max_rooms", 7),
        ("EmptyRoomAge", 0, "empty_room_age_ms", 0),
        ("EmptyRoomAge", None, "empty_room_age_ms", None),
    ],
)
def test_units(member, given, attribute, limit):
    assert getattr(Policy.from_json({member: given}, cluster=True), attribute) == limit


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (None, "body_wrong_type"),
        ([], "body_wrong_type"),
        ("30d", "body_wrong_type"),
        ({"maxage": 1}, "retention_unknown_member"),
        ({"MaxAge": "soon"}, "retention_invalid"),
        ({"MaxAge": "5y"}, "retention_invalid"),
        ({"MaxAge": "-5s"}, "retention_invalid"),
        ({"MaxAge": "٣s"}, "retention_invalid"),
        ({"MaxAge": ""}, "retention_invalid"),
        ({"MaxAge": "9" * 5000}, "retention_invalid"),
        ({"MaxBytes": "1 apple"}, "retention_invalid"),
        ({"MaxBytes": "5d"}, "retention_invalid"),
        ({"MaxAge": True}, "retention_wrong_type"),
        ({"MaxAge": []}, "retention_wrong_type"),
        ({"MaxAge": float("nan")}, "retention_wrong_type"),
        ({"MaxAge": float("inf")}, "retention_wrong_type"),
        ({"MaxMessages": 1.5}, "retention_wrong_type"),
        ({"MaxMessages": "5"}, "retention_wrong_type"),
        ({"MaxMessages": False}, "retention_wrong_type"),
        ({"MaxBytes": 1.0}, "retention_wrong_type"),
        ({"MaxAge": 0}, "retention_out_of_range"),
        ({"MaxAge": -1}, "retention_out_of_range"),
        ({"MaxAge": 1e300}, "retention_out_of_range"),
        ({"MaxAge": "999999999999999999d"}, "retention_out_of_range"),
        ({"MaxMessages": 0}, "retention_out_of_range"),
        ({"MaxMessages": 2**53}, "retention_out_of_range"),
        ({"MaxBytes": "0MiB"}, "retention_out_of_range"),
        ({"EmptyRoomAge": -1}, "retention_out_of_range"),
    ],
)
def test_what_is_refused_has_a_code(value, code):
    with pytest.raises(Refused) as caught:
        Policy.from_json(value, cluster=True)
    assert caught.value.code == code
    assert caught.value.detail


def test_rooms_have_no_limits_of_the_cluster():
    for member in ("MaxRooms", "EmptyRoomAge"):
        with pytest.raises(Refused, match=f"{member} is not a member of this policy; there are MaxAge"):
            Policy.from_json({member: 5}, cluster=False)


LIMITS = st.none() | st.integers(1, 2**53 - 1)
POLICIES = st.builds(
    Policy,
    max_age_ms=LIMITS,
    max_messages=LIMITS,
    max_bytes=LIMITS,
    max_rooms=LIMITS,
    empty_room_age_ms=st.none() | st.integers(0, 2**53 - 1),
)


@given(POLICIES, st.booleans())
def test_policies_survive_json_and_the_log(policy, if_unset):
    assert Policy.from_json(policy.to_json(cluster=True), cluster=True) == policy
    command = set_retention(b"", policy, if_unset=if_unset)
    assert (command.kind, command.key) == (KIND_RETENTION, b"")
    assert parse_retention(b"", command.value) == (policy, if_unset)
    own = Policy(max_age_ms=policy.max_age_ms, max_messages=policy.max_messages, max_bytes=policy.max_bytes)
    assert parse_retention(b"a", set_retention(b"a", policy).value) == (own, False)
    assert parse_retention(b"a", set_retention(b"a", None).value) == (None, False)
