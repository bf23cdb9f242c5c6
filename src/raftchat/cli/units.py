"""Values on the command line: sizes and durations with units, peer URLs. Knows how they are written, not what for."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

import click

_SIZES = {"": 1, "b": 1, "kib": 2**10, "mib": 2**20, "gib": 2**30, "kb": 10**3, "mb": 10**6, "gb": 10**9}
_DURATIONS_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


class Size(click.ParamType):  # type: ignore[type-arg]  # generic only in newer versions
    """Bytes: `1048576`, `64MiB`, `1.5GB`."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", str(value).strip().lower())
        if match is None or match[2] not in _SIZES:
            self.fail(f"{value!r} is not a size; write 1048576, 64MiB or 1.5GB", param, ctx)
        return round(float(match[1]) * _SIZES[match[2]])


class Duration(click.ParamType):  # type: ignore[type-arg]  # generic only in newer versions
    """Milliseconds: `1000`, `500ms`, `2s`."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", str(value).strip().lower())
        if match is None or (match[2] or "ms") not in _DURATIONS_MS:
            self.fail(f"{value!r} is not a duration; write 1000 (milliseconds), 500ms or 2s", param, ctx)
        return round(float(match[1]) * _DURATIONS_MS[match[2] or "ms"])


class PeerUrls(click.ParamType):  # type: ignore[type-arg]  # generic only in newer versions
    """Comma-separated URLs in order of node id; each `http://host:port`, made to look alike."""

    name = "url,url"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[str]:
        given = value if isinstance(value, list) else str(value).split(",")
        urls = [self._url(str(url).strip(), param, ctx) for url in given]
        for url in urls:
            if urls.count(url) > 1:
                self.fail(f"{url} is there twice; every node needs a peer URL of its own", param, ctx)
        return urls

    def _url(self, url: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        example = "write them as http://127.0.0.1:12379,http://127.0.0.1:22379"
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            self.fail(f"{url!r} is not a URL; {example}", param, ctx)
        if parts.scheme == "https":
            self.fail(f"{url}: encrypted peer connections are not supported yet; use http://", param, ctx)
        if parts.scheme != "http" or not parts.hostname:
            self.fail(f"{url!r} is not a URL of http://host:port; {example}", param, ctx)
        if not port:
            self.fail(f"{url}: the port is missing; {example}", param, ctx)
        if parts.path not in ("", "/") or parts.query or parts.fragment or parts.username is not None:
            self.fail(f"{url}: only host and port belong into a peer URL; {example}", param, ctx)
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        return f"http://{host}:{port}"
