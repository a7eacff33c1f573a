"""The client's half of a connection: the greeting, seq numbers, and who a message is for.

This module is on the path of every short command.
"""

from __future__ import annotations

from kvedge.errors import RemoteProtocolError, from_wire
from kvedge.protocol.codec import FEATURES, encode
from kvedge.protocol.framing import Framer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


class ClientSession:
    """One connection, as the client sees it.

    Attributes:
        greeting: What the server said first; None until it did.
    """

    def __init__(self) -> None:
        # We chose to trust this server; a list of names may have as many parts as it likes.
        self._framer = Framer(1 << 26, parts_max=1 << 26)
        self._seq = 0
        self.greeting: Mapping[str, Any] | None = None

    def receive(self, data: bytes) -> list[tuple[int, dict[str, Any]]]:
        """Return the messages in these bytes, each with the seq that it belongs to.

        Raises:
            AgentError: The server ended the conversation, and this is why.
            RemoteProtocolError: The bytes are no messages.
        """
        found = []
        for message in self._framer.feed(data):
            seq = message.get("seq")
            if self.greeting is None:
                self._take_greeting(message)
            elif isinstance(seq, int):
                found.append((seq, message))
            elif "error" in message:
                raise from_wire(message)
            else:
                raise RemoteProtocolError("a message has no seq")
        if self._framer.failure is not None:
            raise self._framer.failure
        return found

    def _take_greeting(self, message: dict[str, Any]) -> None:
        if "error" in message:
            raise from_wire(message)
        if message.get("seq") != 0 or "version" not in message:
            raise RemoteProtocolError("it does not greet like a key-value server")
        self.greeting = message

    def hello(self, window: int = 0) -> bytes:
        """Return our answer to the greeting; goes out before any request.

        Args:
            window: How many items of a stream may be under way; 0 for any number.
        """
        return encode({"seq": 0, "kvedge": FEATURES, "qlen": window})

    def ack(self, seq: int, number: int) -> bytes:
        """Return the message that says that a stream's items up to a number were taken."""
        return encode({"seq": seq, "state": "ack", "ack": number})

    def request(self, action: str, fields: Mapping[str, Any]) -> tuple[int, bytes]:
        """Return the seq of a new request and its bytes."""
        self._seq += 1
        return self._seq, encode({"seq": self._seq, "action": action, **fields})
