"""Connections by which the processes of a run learn of each other's end, and why.

Process 0 keeps a connection to every other process. A process that fails says why
before it closes its end; the operating system closes the connections of one that is
killed. A thread reads them, as the main thread may wait for a process that is gone.
"""

import contextlib
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from rich.console import Console

from train.console import say

__all__ = ["Lifeline", "Listener", "absorb"]

Json = dict[str, Any]


class Listener:
    """Process 0's end, before the others have connected.

    Attributes:
      port: the port that it listens on, on all interfaces.
      token: what the others must send, so that strangers are left out.
    """

    def __init__(self) -> None:
        """Opens a free port."""
        self._server = _listen("")
        self.port = self._server.getsockname()[1]
        self.token = secrets.token_hex()

    def accept(self, others: int, seconds: float) -> "Lifeline":
        """Waits for the other processes.

        Args:
          others: their number.
          seconds: how long to wait.

        Raises:
          TimeoutError: if one does not connect in time.
        """
        end = time.monotonic() + seconds
        found: dict[int, socket.socket] = {}
        with self._server as server:
            while len(found) < others:
                server.settimeout(max(0.01, end - time.monotonic()))
                connection, _ = server.accept()
                connection.settimeout(10)
                process = self.process_of(connection)
                if process is None:
                    connection.close()
                else:
                    found[process] = connection
        return Lifeline(0, found)

    def close(self) -> None:
        """Closes the port."""
        self._server.close()

    def process_of(self, connection: socket.socket) -> int | None:
        """The number of the process that has connected; None for a stranger."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            # Unbuffered: what follows, such as an error at once, is for `Lifeline`.
            hello = json.loads(connection.makefile("rb", buffering=0).readline(1000))
            if secrets.compare_digest(hello["token"], self.token):
                return int(hello["process"])
        return None


class Lifeline:
    """The connections of a process to the others: of process 0, or to process 0.

    Attributes:
      has_failed: whether this process has told the others that it fails.
    """

    def __init__(self, process: int, connections: dict[int, socket.socket]) -> None:
        """Starts to read the connections, given by the number of the other process."""
        self._process = process
        self._connections = connections
        self._ending = threading.Event()
        self.has_failed = False
        for other, connection in connections.items():
            connection.settimeout(None)
            _keep_alive(connection)
            threading.Thread(
                target=self._read, args=(other, connection), daemon=True
            ).start()

    @classmethod
    def connect(
        cls, host: str, port: int, token: str, process: int, seconds: float
    ) -> "Lifeline":
        """Connects to process 0, which listens there.

        Raises:
          OSError: if it cannot be reached.
        """
        connection = socket.create_connection((host, port), seconds)
        _send(connection, {"token": token, "process": process})
        return cls(process, {0: connection})

    def fail(self, text: str) -> None:
        """Tells the others why this process ends; they end too."""
        if not self._ending.is_set():
            self._ending.set()
            self.has_failed = True
            self._tell({"process": self._process, "text": text})

    def finish(self) -> None:
        """Tells the others that this process ends as planned."""
        self._ending.set()
        self._tell({"process": self._process, "text": None})

    def _tell(self, message: Json) -> None:
        for connection in self._connections.values():
            with contextlib.suppress(OSError):
                _send(connection, message)

    def _read(self, other: int, connection: socket.socket) -> None:
        """Reads what another process says last, and ends this process if it failed."""
        line = ""
        with contextlib.suppress(OSError):
            line = connection.makefile().readline()
        message = json.loads(line) if line.endswith("\n") else None
        if message is not None and message["text"] is None:
            return
        if self._ending.is_set():  # This process has its own reason.
            return
        if message is None:
            text = "it was killed, or its machine or the network failed"
            message = {"process": other, "text": text}
        self._tell(message)
        say(
            Console(stderr=True),
            f"Process {message['process']} of this run has ended: {message['text']}\n"
            f"Process {self._process} ends too. What was saved is complete; the same "
            "commands resume the run.",
        )
        os._exit(1)  # The main thread may wait in a collective for ever.


def absorb(host: str, port: int) -> tuple[int, Callable[[], bool]]:
    """Forwards a local port to a server, and hides the server's death from its clients.

    JAX aborts a process, with a trace of its C++ stack, as soon as the connection to
    its coordinator breaks. Through this, it stays open, and `Lifeline` can say what
    happened.

    Args:
      host: the server's host.
      port: its port.

    Returns:
      The local port, and a function that tells whether the server has ever answered.
    """
    server, reached = _listen("127.0.0.1"), threading.Event()

    def serve() -> None:
        while True:
            client, _ = server.accept()
            try:
                upstream = socket.create_connection((host, port), 5)
            except OSError:
                client.close()  # The client tries again.
                continue
            reached.set()
            upstream.settimeout(None)
            for ends in ((client, upstream, True), (upstream, client, False)):
                threading.Thread(target=_copy, args=ends, daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    return server.getsockname()[1], reached.is_set


def _copy(source: socket.socket, target: socket.socket, close: bool) -> None:
    """Copies bytes from one connection to another, and then closes it if asked to."""
    with contextlib.suppress(OSError):
        while data := source.recv(2**16):
            target.sendall(data)
    if close:
        target.close()


def _listen(host: str) -> socket.socket:
    if not host and socket.has_dualstack_ipv6():
        return socket.create_server(
            ("", 0), family=socket.AF_INET6, dualstack_ipv6=True
        )
    return socket.create_server((host, 0))


def _send(connection: socket.socket, message: Json) -> None:
    connection.sendall((json.dumps(message) + "\n").encode())


def _keep_alive(connection: socket.socket) -> None:
    """Breaks the connection soon after the other machine, or the network, is lost."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("KEEPIDLE", 10), ("KEEPINTVL", 5), ("KEEPCNT", 4)):
        if option := getattr(socket, f"TCP_{name}", None):  # Not on every system.
            connection.setsockopt(socket.IPPROTO_TCP, option, value)
