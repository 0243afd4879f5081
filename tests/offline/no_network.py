"""Makes every connection but one over a Unix socket raise, and every look-up of a host's name."""

import socket

_real_connect, _real_connect_ex = socket.socket.connect, socket.socket.connect_ex
_real_sendto = socket.socket.sendto


class NetworkBlockedError(OSError):
    """A test, or something that a test started, tried to reach the network."""


def _refuse(what):
    raise NetworkBlockedError(f"tests run offline: {what} was about to reach the network")


def _connect(self, address):
    return _real_connect(self, address) if self.family == socket.AF_UNIX else _refuse(f"a connection to {address!r}")


def _connect_ex(self, address):
    return _real_connect_ex(self, address) if self.family == socket.AF_UNIX else _refuse(f"a connection to {address!r}")


def _sendto(self, *args):
    return _real_sendto(self, *args) if self.family == socket.AF_UNIX else _refuse(f"a datagram to {args[-1]!r}")


def _look_up(host, *args, **kwargs):
    return _refuse(f"a look-up of {host!r}")


def block():
    """Block this interpreter for good."""
    socket.socket.connect, socket.socket.connect_ex = _connect, _connect_ex
    socket.socket.sendto = _sendto
    socket.getaddrinfo = socket.gethostbyname = socket.gethostbyname_ex = _look_up


def is_blocked():
    """Whether `block` is in force."""
    return socket.socket.connect is _connect and socket.getaddrinfo is _look_up
