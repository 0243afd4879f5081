"""What a plugin does beside answering: hosts that it reaches for, and state of the process that it changes."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFile

from tellsign.weights import store


@contextlib.contextmanager
def network(reached: list[str]) -> Iterator[None]:
    """Refuse every connection, but one on this machine over a Unix socket, for the body of a `with`, and note it."""
    names = ("connect", "connect_ex", "sendto")
    before: dict[str, Any] = {name: getattr(socket.socket, name) for name in names}
    look_up = socket.getaddrinfo

    def refuse(what: str) -> Any:
        reached.append(what)
        raise OSError(f"a plugin must not reach the network from detect: {what}")

    def guarded(name: str) -> Any:
        def call(self: socket.socket, *args: Any) -> Any:
            if self.family == getattr(socket, "AF_UNIX", None):
                return before[name](self, *args)
            return refuse(f"a connection to {args[-1]!r}")

        return call

    try:
        for name in names:
            setattr(socket.socket, name, guarded(name))
        socket.getaddrinfo = lambda host, *args, **kwargs: refuse(f"a look-up of {host!r}")
        yield
    finally:
        for name in names:
            setattr(socket.socket, name, before[name])
        socket.getaddrinfo = look_up


@contextlib.contextmanager
def shared_weights(asked: set[str]) -> Iterator[None]:
    """Note the names of the larger weights that are asked for, for the body of a `with`."""
    real = store.path_of

    def noted(name: str) -> Path:
        path = real(name)
        asked.add(name)
        return path

    store.path_of = noted  # `locate` and all that goes through it look there, however they were imported
    try:
        yield
    finally:
        store.path_of = real


def settled() -> dict[str, object]:
    """State of the process that belongs to the application and not to a plugin."""
    root = logging.getLogger()
    state: dict[str, object] = {
        "the working directory": os.getcwd(),
        "sys.path": tuple(sys.path),
        "numpy's error handling": tuple(sorted(np.geterr().items())),
        "PIL.Image.MAX_IMAGE_PIXELS": Image.MAX_IMAGE_PIXELS,
        "PIL.ImageFile.LOAD_TRUNCATED_IMAGES": ImageFile.LOAD_TRUNCATED_IMAGES,
        "the root logger": (root.level, tuple(map(id, root.handlers))),
        "sys.stdout and sys.stderr": (id(sys.stdout), id(sys.stderr)),
        "the default socket timeout": socket.getdefaulttimeout(),
    }
    for name in ("SIGINT", "SIGTERM", "SIGALRM"):
        if hasattr(signal, name):
            state[f"the handler of {name}"] = signal.getsignal(getattr(signal, name))
    torch = sys.modules.get("torch")
    # Not imported yet means: as torch is when it is.
    state["torch's default dtype"] = "torch.float32" if torch is None else str(torch.get_default_dtype())
    state["torch's gradients"] = True if torch is None else torch.is_grad_enabled()
    state["torch's default device"] = "cpu" if torch is None else str(torch.get_default_device())
    state["torch's deterministic algorithms"] = False if torch is None else torch.are_deterministic_algorithms_enabled()
    return state


def drawn() -> dict[str, object]:
    """State of the random generators that everyone shares, and of the environment."""
    state: dict[str, object] = {
        "random's state": hash(random.getstate()),
        "numpy's global random state": hash(str(np.random.get_state(legacy=False))),
        "the environment": tuple(sorted(os.environ.items())),
    }
    torch = sys.modules.get("torch")
    if torch is not None:
        state["torch's random state"] = hash(torch.random.get_rng_state().numpy().tobytes())
    return state


def changed(before: dict[str, object], after: dict[str, object]) -> list[str]:
    """What differs, by name."""
    return [name for name, value in before.items() if after.get(name) != value]


__all__ = ["changed", "drawn", "network", "settled", "shared_weights"]
