"""`raft-chat room list`: the rooms of a cluster, asked of any of its nodes over REST.

Knows the HTTP interface, as any client does; nothing of the node's inside.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode, urlsplit
from urllib.request import ProxyHandler, build_opener

import click

from raftchat.cli import work
from raftchat.node.exits import RUNTIME

PAGE = 1000
TIMEOUT_S = 15.0

EPILOG = """
\b
  raft-chat room list
  raft-chat room list --url http://127.0.0.1:12380 --prefix team-
  raft-chat room list --json | jq -r '.[] | select(.Messages > 1000) | .Name'

Exit codes: 0 done, 1 no node answered, or not with what was asked, 2 wrong usage.
"""


class Unanswered(Exception):
    """No list came. The message is for the user."""


@click.group(short_help="List the rooms of a cluster.")
def room() -> None:
    """What rooms there are."""


@room.command("list", epilog=EPILOG)
@click.option("--url", default="http://127.0.0.1:9121", show_default=True, help="HTTP API of any node.")
@click.option("--prefix", default="", help="Only rooms whose names begin like this.")
@click.option("--json", "as_json", is_flag=True, help="The result as a JSON array.")
def list_rooms(url: str, prefix: str, as_json: bool) -> None:
    """List all rooms in order of name, with how much is in them."""
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
        raise click.UsageError(f"--url {url!r} is not a URL of http://host:port")
    try:
        pages = _pages(url.rstrip("/"), prefix)
        if as_json:
            click.echo(json.dumps([room for page in pages for room in page], ensure_ascii=False))
        else:
            _show(pages)
    except Unanswered as error:
        click.echo(f"Error: {error}", err=True)
        raise SystemExit(RUNTIME) from None


def _show(pages: Iterator[list[dict[str, Any]]]) -> None:
    for number, page in enumerate(pages):
        if number == 0:
            click.echo(f"{'MESSAGES':>10}  {'BYTES':>10}  {'LAST POSTED':<24}  NAME")
        for room in page:
            name = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in room["Name"])
            click.echo(
                f"{room['Messages']:>10}  {work.size(room['Bytes']):>10}  {room['LastPostedAt'] or '':<24}  {name}"
            )


def _pages(url: str, prefix: str) -> Iterator[list[dict[str, Any]]]:
    query = {"details": "true", "limit": str(PAGE)} | ({"prefix": prefix} if prefix else {})
    # A proxy that is meant for the web has no way to a node.
    opener = build_opener(ProxyHandler({}))
    more = True
    while more:
        try:
            with opener.open(f"{url}/rooms?{urlencode(query)}", timeout=TIMEOUT_S) as response:
                page = json.load(response)
                more = 'rel="next"' in response.headers.get("Link", "")
        except HTTPError as error:
            raise Unanswered(f"{url} answers {error.code}: {_detail(error)}") from None
        except (URLError, OSError, http.client.HTTPException, ValueError) as error:
            reason = getattr(error, "reason", None) or error
            reason = getattr(reason, "strerror", None) or reason
            raise Unanswered(
                f"no node answers at {url} ({reason}); say with --url where one serves HTTP, as it told when it started"
            ) from None
        if not isinstance(page, list) or not all(isinstance(room, dict) and "Name" in room for room in page):
            raise Unanswered(f"what answers at {url} is not raft-chat")
        yield page
        if not page:
            return
        query["after"] = page[-1]["Name"]


def _detail(error: HTTPError) -> str:
    """Of a problem document, its detail; else the status line's words."""
    try:
        return str(json.load(error)["detail"])
    except (ValueError, KeyError, TypeError):
        return error.reason
