"""What nodes hold, asked in every way there is, and compared; what a policy ought to leave, worked out the plain way.

Does not know why anything was removed.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx2

from raftchat import _log
from raftchat.chat.commands import post_value
from raftchat.config import Config
from tests.faults.cluster import Node

Message = dict[str, Any]
Rooms = dict[str, list[Message]]
PAGE = 7
CONFIG = Config()


def occupied_bytes(directory: Path) -> int:
    """What `du` counts."""
    total = 0
    for below, _, files in os.walk(directory):
        for name in files:
            try:
                total += os.stat(os.path.join(below, name)).st_blocks * 512
            except FileNotFoundError:
                continue
    return total


def put(node: Node, path: str, policy: dict[str, Any], **params: Any) -> dict[str, Any]:
    """Set a policy: the answer."""
    response = httpx2.put(f"{node.url}{path}", json=policy, params=params, timeout=15)
    assert response.status_code == 200, response.text
    return dict(response.json())


def dry_run(node: Node, path: str, policy: dict[str, Any]) -> dict[str, tuple[int, int, bool]]:
    """Room → (messages, bytes, whether the room goes), of what that policy would remove."""
    told = put(node, path, policy, dry_run="true")
    assert told["Truncated"] is False
    rooms = {room["Name"]: (room["Messages"], room["Bytes"], room["Removed"]) for room in told["Rooms"]}
    assert told["Messages"] == sum(messages for messages, _, _ in rooms.values())
    assert told["Bytes"] == sum(size_bytes for _, size_bytes, _ in rooms.values())
    return rooms


def details(node: Node) -> dict[str, dict[str, Any]]:
    return {room["Name"]: room for room in node.get("/rooms", details="true", limit=10_000).json()}


def held_by_all(nodes: Sequence[Node]) -> Rooms:
    """Every message of every room. Fails unless all nodes tell the same, however they are asked."""
    first, *others = (_told_by(node) for node in nodes)
    for node, other in zip(nodes[1:], others, strict=True):
        assert other.keys() == first.keys(), f"node {node.id}"
        for name, told in first.items():
            assert other[name] == told, f"room {name} on node {node.id}"
    return {name: told[0] for name, told in first.items()}


def _told_by(node: Node) -> dict[str, tuple[list[Message], dict[str, Any], list[Message]]]:
    """Room → messages, details, and the page around its middle; the other pages are checked against the messages."""
    with httpx2.Client(base_url=node.url, timeout=15) as client:

        def get(path: str, **params: Any) -> Any:
            response = client.get(path, params=params)
            assert response.status_code == 200, f"node {node.id}: {response.text}"
            return response.json()

        told = {}
        for room in get("/rooms", details="true", limit=10_000):
            path = f"/rooms/{room['Name']}"
            messages: list[Message] = get(path, after=0, limit=1000)
            while page := get(path, after=messages[-1]["ID"], limit=1000) if messages else []:
                messages += page
            ids = [message["ID"] for message in messages]
            where = f"room {room['Name']} on node {node.id}"
            assert ids == sorted(set(ids)), where
            assert room["Messages"] == len(ids), where
            assert room["Bytes"] == sum(record_bytes(room["Name"], message) for message in messages), where
            around: list[Message] = []
            if ids:
                assert (room["FirstID"], room["LastID"]) == (ids[0], ids[-1]), where
                middle = len(ids) // 2
                assert get(path, limit=PAGE) == messages[-PAGE:], where
                assert get(path, limit=PAGE, before=ids[middle]) == messages[max(0, middle - PAGE) : middle], where
                assert get(path, limit=PAGE, after=ids[middle]) == messages[middle + 1 :][:PAGE], where
                around = get(path, limit=PAGE, around=ids[middle])
                assert messages[middle] in around, where
            told[room["Name"]] = messages, room, around
        return told


def record_bytes(room: str, message: Message) -> int:
    """What it occupies in the log."""
    return len(_log.pack(_log.KIND_POST, room.encode(), post_value(message, CONFIG)))


def losses(rooms: Rooms, left: Rooms) -> dict[str, tuple[int, int, bool]]:
    """What of `rooms` is not in `left`, as `dry_run` tells it."""
    lost = {}
    for name, messages in rooms.items():
        stays = {message["ID"] for message in left.get(name, [])}
        gone = [message for message in messages if message["ID"] not in stays]
        if gone or name not in left:
            lost[name] = len(gone), sum(record_bytes(name, message) for message in gone), name not in left
    return lost


def left_by_rooms(rooms: Rooms, most: int) -> Rooms:
    """`MaxRooms`: the most recently active stay."""
    names = sorted(rooms, key=lambda name: rooms[name][-1]["ID"], reverse=True)[:most]
    return {name: rooms[name] for name in names}


def left_by_age(rooms: Rooms, max_age_s: float, now_s: float) -> Rooms:
    """`MaxAge`."""
    return {
        name: [message for message in messages if now_s - posted_s(message) <= max_age_s]
        for name, messages in rooms.items()
    }


def left_by_amount(rooms: Rooms, *, messages: float = float("inf"), size_bytes: float = float("inf")) -> Rooms:
    """`MaxMessages` and `MaxBytes` of these rooms together: the newest that fit."""
    left: Rooms = {name: [] for name in rooms}
    every = sorted(((message["ID"], name, message) for name in rooms for message in rooms[name]), reverse=True)
    for _, name, message in every:
        messages, size_bytes = messages - 1, size_bytes - record_bytes(name, message)
        if messages < 0 or size_bytes < 0:
            break
        left[name].insert(0, message)
    return left


def posted_s(message: Message) -> float:
    return datetime.fromisoformat(message["PostedAt"]).timestamp()
