"""Values on the command line: sizes and durations with units, peer URLs. Knows how they are written, not what for."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import click

from raftchat.units import parse_duration_ms, parse_size


class Size(click.ParamType):  # type: ignore[type-arg]  # generic only in newer versions
    """Bytes: `1048576`, `64MiB`, `1.5GB`."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            return parse_size(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Duration(click.ParamType):  # type: ignore[type-arg]  # generic only in newer versions
    """Milliseconds: `1000`, `500ms`, `2s`."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            return parse_duration_ms(str(value), "ms")
        except ValueError:
            self.fail(f"{value!r} is not a duration; write 1000 (milliseconds), 500ms or 2s", param, ctx)


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
