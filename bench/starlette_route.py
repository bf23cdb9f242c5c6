"""The least that Starlette under uvicorn does for a request: one route that returns bytes it already has.

Run as a program it serves the bytes on its stdin at the port in its argument; `StarletteRoute` starts that.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys

import httpx2

from tests.faults.cluster import HOST, free_port, wait_for


class StarletteRoute:
    """A context manager: the route is served while it is entered."""

    def __init__(self, body: bytes) -> None:
        self.body = body
        port = free_port()
        self.command = [sys.executable, "-m", "bench.starlette_route", str(port)]
        self.url = f"http://{HOST}:{port}"

    def __enter__(self) -> StarletteRoute:
        self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE)
        assert self.process.stdin is not None
        self.process.stdin.write(self.body)
        self.process.stdin.close()
        wait_for("the route is served", self._serves, 15)
        return self

    def _serves(self) -> bool:
        assert self.process.poll() is None, "the reference server ended"
        with contextlib.suppress(httpx2.TransportError):
            return httpx2.get(self.url).content == self.body
        return False

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(10)


def main() -> None:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    body = sys.stdin.buffer.read()

    async def page(request: Request) -> Response:
        return Response(body, media_type="application/json")

    uvicorn.run(
        Starlette(routes=[Route("/", page)]),
        host=HOST,
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        log_level="warning",
        access_log=False,
    )


if __name__ == "__main__":
    main()
