"""Messages over a pipe: a JSON head, and bytes beside it.

A frame is the length of its head (4 bytes, big-endian), the head (UTF-8 JSON: {"message": ..., "sizes": [...]}), and
as many blobs as it has sizes.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from typing import Any, BinaryIO

from tellsign.errors import TellsignError

HEAD_LIMIT = 64 * 2**20
"""Bytes that a frame's head may have."""

BLOB_LIMIT = 2**30
"""Bytes that the blobs of one frame may have together, where the other side is not trusted."""

_CHUNK = 2**20


class FrameError(TellsignError):
    """What came over the pipe is no frame."""


def write(pipe: BinaryIO, message: object, blobs: Sequence[memoryview | bytes] = ()) -> None:
    """Send a message.

    Parameters
    ----------
    pipe : binary file
    message : object
        Made of what JSON has.
    blobs : sequence of bytes or memoryview
        Sent as they are.
    """
    views = [memoryview(blob).cast("B") for blob in blobs]
    head = json.dumps({"message": message, "sizes": [v.nbytes for v in views]}, allow_nan=False).encode()
    pipe.write(struct.pack(">I", len(head)) + head)
    for view in views:
        pipe.write(view)
    pipe.flush()


def read(pipe: BinaryIO, *, blob_limit: int | None = BLOB_LIMIT) -> tuple[Any, list[bytes]] | None:
    """Receive a message and its blobs; None where the other side has closed the pipe.

    Raises
    ------
    FrameError
        What came is no frame, ends in the middle, or is larger than allowed. Memory is filled with what has come
        and not with what is announced.
    """
    start = _exactly(pipe, 4, may_end=True)
    if start is None:
        return None
    (length,) = struct.unpack(">I", start)
    if length > HEAD_LIMIT:
        raise FrameError(f"a head of {length} bytes, which is over {HEAD_LIMIT}")
    try:
        head = json.loads(_exactly(pipe, length) or b"")
        sizes = head["sizes"]
        good = set(head) == {"message", "sizes"} and all(type(n) is int and n >= 0 for n in sizes)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise FrameError(f"a head that is not what it should be ({type(error).__name__})") from None
    if not good:
        raise FrameError("a head that is not what it should be")
    if blob_limit is not None and sum(sizes) > blob_limit:
        raise FrameError(f"{sum(sizes)} bytes of arrays, which is over {blob_limit}")
    return head["message"], [_exactly(pipe, n) or b"" for n in sizes]


def _exactly(pipe: BinaryIO, count: int, *, may_end: bool = False) -> bytes | None:
    got = bytearray()
    while len(got) < count:
        more = pipe.read(min(_CHUNK, count - len(got)))
        if not more:
            if may_end and not got:
                return None
            raise FrameError("a frame that ends in the middle")
        got += more
    return bytes(got)


__all__ = ["BLOB_LIMIT", "HEAD_LIMIT", "FrameError", "read", "write"]
