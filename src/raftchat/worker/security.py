"""Headers that keep browsers safe. Does not know routes.

The API answers any origin, as long as names are free and there is no login: a page elsewhere can do what its user
could do anyway. The web client is given a policy that lets it load its own files and talk to its own server, nothing
else, so that what slips through as markup cannot run.
"""

from __future__ import annotations

Headers = list[tuple[bytes, bytes]]

EXPOSED = b"Link, Location, Retry-After, X-Raft-Index"

API_HEADERS: Headers = [
    (b"access-control-allow-origin", b"*"),
    (b"access-control-expose-headers", EXPOSED),
    (b"x-content-type-options", b"nosniff"),
]

CONTENT_SECURITY_POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "manifest-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
    ]
).encode()

PAGE_HEADERS: Headers = [
    (b"content-security-policy", CONTENT_SECURITY_POLICY),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
]
