"""Who this node is: cluster id, member id, epoch, and the membership the cluster began with.

The file `identity` is one line of header and one of JSON:

    raft-chat identity 1 <XXH3-64 of "1 " and the second line without its newline, 16 hex digits>
    {"ClusterID":"…","ID":1,"Epoch":1,"Members":{"1":"http://…","2":"http://…"}}

It is the last file made at bootstrap, so a directory with it is complete and one without it was never a node's. At
bootstrap the cluster id is the hash of the peer URLs in order: every node computes the same one without being told,
and two clusters differ unless all their URLs are the same. Later it is only compared. Other members come and go through
the log; this file keeps the first ones, which are the base that the log's membership entries stand on.

A restored directory is a member of a new cluster with an epoch of its own. While it is being made, the file `restoring`
lies in it, and no identity: it is nobody's then, and no node starts on it.

Knows files; does not know how members are reached, nor Raft.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import orjson
import xxhash

from raftchat.storage.errors import CorruptFile, StorageError
from raftchat.storage.files import write_durably

FILE_NAME = "identity"
RESTORING = "restoring"
FORMAT = 1
_MAGIC = b"raft-chat identity "


@dataclass(frozen=True, slots=True)
class Identity:
    cluster_id: str
    """16 hex digits, the same on every member."""
    member_id: int
    epoch: int
    """Which life of the cluster: another one after a restore. IDs of messages mean nothing across epochs."""
    members: dict[int, str]
    """id → peer URL, as the cluster began."""


def bootstrap(member_id: int, urls: Sequence[str]) -> Identity:
    """The identity of member `member_id` (1-based) of a new cluster of these peer URLs."""
    assert 1 <= member_id <= len(urls)
    digest = xxhash.xxh3_64_hexdigest("\n".join(urls).encode())
    return Identity(digest, member_id, 1, dict(enumerate(urls, start=1)))


def restored(
    old: Identity,
    member_id: int,
    urls: Sequence[str],
    epoch: int,
    last_index: int,
    last_term: int,
    *,
    retention: bool = True,
) -> Identity:
    """The identity of a member of the cluster that begins with a copy of the old one up to that entry.

    All that went into it is in the cluster id: members that were restored from different copies, or at different times,
    or with and without the policies of the copy, are strangers to each other and to every member of the old cluster.
    """
    assert 1 <= member_id <= len(urls)
    assert epoch > old.epoch
    origin = f"{old.cluster_id} {old.epoch} {epoch} {last_index} {last_term}{'' if retention else ' none'}"
    digest = xxhash.xxh3_64_hexdigest("\n".join([*urls, origin]).encode())
    return Identity(digest, member_id, epoch, dict(enumerate(urls, start=1)))


def encode(identity: Identity) -> bytes:
    body = orjson.dumps(
        {
            "ClusterID": identity.cluster_id,
            "ID": identity.member_id,
            "Epoch": identity.epoch,
            "Members": {str(member): url for member, url in identity.members.items()},
        }
    )
    return b"%s%d %s\n%s\n" % (_MAGIC, FORMAT, _checksum(FORMAT, body), body)


def decode(data: bytes, path: str) -> Identity:
    """Raises CorruptFile, or StorageError for a newer format."""
    header, _, rest = data.partition(b"\n")
    fields = header.removeprefix(_MAGIC).split(b" ")
    if not header.startswith(_MAGIC) or len(fields) != 2 or not fields[0].isdigit():
        raise CorruptFile(path, "not an identity file of raft-chat")
    version, body = int(fields[0]), rest.removesuffix(b"\n")
    if not rest.endswith(b"\n") or _checksum(version, body) != fields[1]:
        raise CorruptFile(path, "checksum does not match; put this file back from a backup of this node")
    if version != FORMAT:
        raise StorageError(f"{path}: written by a newer version of raft-chat (format {version}); start that version")
    value = orjson.loads(body)
    members = {int(member): url for member, url in value["Members"].items()}
    return Identity(value["ClusterID"], value["ID"], value["Epoch"], members)


def _checksum(version: int, body: bytes) -> bytes:
    # The version is part of it, so that damage to the version is not taken for a newer format.
    return xxhash.xxh3_64_hexdigest(b"%d %s" % (version, body)).encode()


def store(directory: str, identity: Identity) -> None:
    """Durable on return. Raises OSError."""
    write_durably(os.path.join(directory, FILE_NAME), encode(identity))


def load(directory: str) -> Identity | None:
    """None: the directory has never been a node's. Raises CorruptFile, StorageError, OSError."""
    path = os.path.join(directory, FILE_NAME)
    try:
        with open(path, "rb") as file:
            data = file.read()
    except FileNotFoundError:
        if os.path.lexists(os.path.join(directory, RESTORING)):
            raise StorageError(
                f"a restore into {directory} was broken off; give the same restore command again"
            ) from None
        return None
    return decode(data, path)


def check(identity: Identity, directory: str, member_id: int, urls: Sequence[str]) -> None:
    """Compare what is stored with what the flags say. Raises StorageError, with the remedies, if they differ.

    Another list is never taken for a wish to change the membership: the nodes that were started with it would be a
    cluster of their own beside this one.
    """
    if identity.member_id != member_id:
        raise StorageError(
            f"{directory} belongs to node {identity.member_id}, and this node was started with --id {member_id}; "
            f"use --id {identity.member_id}, or another --data-dir"
        )
    stored = list(identity.members.values())
    if stored != list(urls):
        raise StorageError(
            f"{directory} belongs to a node of the cluster {identity.cluster_id}, which began with "
            f"--cluster {','.join(stored)}, and this node was started with --cluster {','.join(urls)}; "
            f"use --cluster {','.join(stored)}, or another --data-dir for a node of the new cluster"
        )
