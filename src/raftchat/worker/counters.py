"""What a worker counts: plain integers, sent to the Raft process at most once a second when they changed.

Knows names and numbers. Does not know Prometheus; `metrics.py` shows the sum over all workers of this node.
"""

from __future__ import annotations

from bisect import bisect_left

SECONDS_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of the latency histogram's buckets; one more counts what is slower."""

COUNTERS = {
    "posts_committed": "Posts answered with 201.",
    "posts_failed": "Posts that were proposed and certainly not committed.",
    "posts_unknown": "Posts whose outcome was not known in time.",
    "pages": "Pages of messages served.",
    "requests_refused": "Requests answered with a 4xx.",
    "read_rounds": "Rounds of linearizable reads begun; one serves all reads that wait.",
    "sockets_opened": "WebSockets accepted.",
    "sockets_lagged": "WebSockets closed with 1013 because they read too slowly.",
    "messages_delivered": "Messages handed to WebSockets.",
}
GAUGES = {
    "sockets_open": "WebSockets open now.",
    "post_bytes_pending": "Bytes of posts that are proposed and not decided.",
}


class Counters:
    def __init__(self) -> None:
        self.posts_committed = 0
        self.posts_failed = 0
        self.posts_unknown = 0
        self.pages = 0
        self.requests_refused = 0
        self.sockets_opened = 0
        self.sockets_lagged = 0
        self._post_buckets = [0] * (len(SECONDS_BOUNDS) + 1)
        self._post_seconds = 0.0

    def observe_post(self, seconds: float) -> None:
        """From the whole request to its 201."""
        self.posts_committed += 1
        self._post_seconds += seconds
        self._post_buckets[bisect_left(SECONDS_BOUNDS, seconds)] += 1

    def snapshot(
        self, *, read_rounds: int, messages_delivered: int, sockets_open: int, post_bytes_pending: int
    ) -> dict[str, int | float]:
        """All counters by name, those that others keep included. Buckets are not cumulative."""
        return {
            "posts_committed": self.posts_committed,
            "posts_failed": self.posts_failed,
            "posts_unknown": self.posts_unknown,
            "pages": self.pages,
            "requests_refused": self.requests_refused,
            "read_rounds": read_rounds,
            "sockets_opened": self.sockets_opened,
            "sockets_lagged": self.sockets_lagged,
            "messages_delivered": messages_delivered,
            "sockets_open": sockets_open,
            "post_bytes_pending": post_bytes_pending,
            "post_seconds_sum": self._post_seconds,
            **{f"post_seconds_bucket_{number}": count for number, count in enumerate(self._post_buckets)},
        }
