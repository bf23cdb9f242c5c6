"""The web client: `/` and `/web/…`, read once at start and served from memory.

Knows files and their validators. Does not know what is in them. The client's own URLs are relative, so it also works
behind a proxy that puts a prefix in front.
"""

from __future__ import annotations

import importlib.resources
import mimetypes
from hashlib import sha256
from importlib.resources.abc import Traversable
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from raftchat.worker.problems import Problem
from raftchat.worker.security import PAGE_HEADERS

_TYPES = {".js": "text/javascript", ".svg": "image/svg+xml", ".webmanifest": "application/manifest+json"}
"""What `mimetypes` leaves to the machine's own tables; browsers refuse modules of a wrong type."""


class _File(NamedTuple):
    body: bytes
    content_type: str
    etag: str


def web_directory() -> Traversable:
    """Where the web client's files are: package data, in a source checkout a link to the top-level `web/`."""
    return importlib.resources.files("raftchat") / "web"


def routes(directory: Traversable) -> list[Route]:
    web = _Web(directory)
    return [Route("/", web.index), Route("/web/{path:path}", web.file)]


class _Web:
    def __init__(self, directory: Traversable) -> None:
        self._files: dict[str, _File] = {}
        self._load(directory, "")

    def _load(self, directory: Traversable, prefix: str) -> None:
        for entry in directory.iterdir():
            if entry.name.startswith((".", "__")):
                continue
            if entry.is_dir():
                self._load(entry, f"{prefix}{entry.name}/")
                continue
            body = entry.read_bytes()
            suffix = entry.name[entry.name.rfind(".") :]
            kind = _TYPES.get(suffix) or mimetypes.guess_type(entry.name)[0] or "application/octet-stream"
            if kind.startswith("text/"):
                kind += "; charset=utf-8"
            self._files[f"{prefix}{entry.name}"] = _File(body, kind, f'"{sha256(body).hexdigest()[:32]}"')

    async def index(self, request: Request) -> Response:
        return self._serve(request, "index.html")

    async def file(self, request: Request) -> Response:
        # Looked up among the names that were found at start: no path from outside ever reaches the file system.
        return self._serve(request, request.path_params["path"])

    def _serve(self, request: Request, name: str) -> Response:
        file = self._files.get(name)
        if file is None:
            raise Problem("not_found", "There is no such file.")
        headers = {name.decode(): value.decode() for name, value in PAGE_HEADERS}
        headers["ETag"] = file.etag
        # Always asked for again: names carry no version, and a page must not mix files of two versions.
        headers["Cache-Control"] = "no-cache"
        given = {tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")}
        if file.etag in given or "*" in given:
            return Response(status_code=304, headers=headers)
        headers["Content-Type"] = file.content_type
        return Response(file.body, headers=headers)
