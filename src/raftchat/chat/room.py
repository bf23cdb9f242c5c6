"""What is known of one room without looking into the log. Knows neither its messages nor other rooms."""

from __future__ import annotations


class Room:
    """A room from its first message until it is removed. Its messages are those posted to it from `floor` on."""

    __slots__ = (
        "bytes",
        "count",
        "first_id",
        "floor",
        "last_id",
        "last_time_ms",
        "name",
        "trimmed_time_ms",
    )

    def __init__(self, name: str, floor: int) -> None:
        self.name = name
        self.floor = floor
        """What has a lower index is not, or no longer, a message of this room."""
        self.first_id = 0
        """Of the oldest message there is. 0: there is none."""
        self.last_id = 0
        """Of the newest message there ever was, also when it is gone."""
        self.count = 0
        """Number of messages."""
        self.bytes = 0
        """What their records occupy in the log."""
        self.last_time_ms = 0
        """Log time of the newest message there ever was."""
        self.trimmed_time_ms = 0
        """Log time at which messages were last removed. 0: never."""
