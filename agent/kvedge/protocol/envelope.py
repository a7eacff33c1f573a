"""Envelopes: what every message between servers is wrapped in, and the checks before it counts.

    "kv" | major u8 | minor u8 | length u32 | length of the network's name u8 | the name
    | msgpack array: node, incarnation, number, kind, body, … | MAC, 16 bytes

The length is that of the whole.  **Versions**: a new major may change all but the first three
bytes, and majors do not talk to each other.  A new minor may append fields to the array, which
older ones pass over, and may send kinds that older ones do not know.

**MAC**: keyed BLAKE2b (RFC 7693) over topic and envelope, so a message cannot be altered, nor
moved to another topic.  Its key is derived from the network's name and the network key.  Without
a network key it comes from the name alone, which everybody may know: that guards against two
networks at one broker and other mistakes, and against no attacker.

**Replay**: a sender numbers its messages from 1 in each incarnation, and each number is taken
once, in a sliding window (as in RFC 4303, section 3.4.3).  Per node the windows of the newest
two incarnations are kept: the last words of the one before may come late, and two servers
under one name must hear each other.  Anything older is refused, and the caller is told the newest
incarnation, for a restored card must learn that it is one.  Number 0 stands outside: a last
will is sealed when the connection is made and sent when it breaks, thousands of numbers later.

What this does not give: secrecy (that is TLS), and memory across a restart of the receiver.  A
broker can drop messages, and repeat to a new receiver what an old one has heard.  So every
message is idempotent or names the incarnation it is for.

Nothing that comes in raises.  The outcome says why a message was refused, to be counted and told.
"""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass
from enum import Enum
from hashlib import blake2b
from struct import Struct

from kvedge.errors import BadSetting, LimitExceeded
from kvedge.limits import BROADCAST_MAX_BYTES, NODES_MAX, REPLAY_WINDOW
from kvedge.model.stamp import Rid
from kvedge.model.value import decode, packb
from kvedge.protocol.codec import is_number, is_text
from kvedge.protocol.framing import check_parts

VERSION_MAJOR = 1
VERSION_MINOR = 0

MAC_BYTES = 16
"""128 bits: nobody guesses one, and a small message stays small."""

NETWORK_KEY_MIN_BYTES = 16
"""A shorter key could be tried out; a file with less is a mistake."""

_MAGIC = b"kv"
_HEAD = Struct(">2sBBI")
_FIELDS = 5
_PARTS_MAX = 64  # of the array, fields of later minors included; the body counts as one
_INCARNATIONS_KEPT = 2
_WINDOW_MASK = (1 << REPLAY_WINDOW) - 1
_NAME = re.compile(r"[A-Za-z0-9_-]{1,63}")
_KIND = re.compile(r"[a-z_]{1,31}")


# --- outcomes ---------------------------------------------------------------------------------


class Cause(Enum):
    """Why a message was refused."""

    TOO_LARGE = "too large"
    FOREIGN = "not a message of this program"
    WRONG_MAJOR = "another major version"
    TRUNCATED = "truncated"
    TRAILING = "followed by further bytes"
    WRONG_NETWORK = "from another network"
    BAD_MAC = "altered, on another topic, or made with another network key"
    MALFORMED = "not built as this version expects"
    BAD_BODY = "wrong in its body"
    OWN = "our own"
    REPLAYED = "repeated, or later than the window allows"
    OLD_INCARNATION = "from an incarnation that was replaced"


@dataclass(frozen=True, slots=True)
class Opened:
    """A message that passed every check.

    Attributes:
        sender: Who sent it.
        minor: Minor version of the sender.
        number: Running number; 0 where the message may be repeated.
        kind: What the body is; perhaps one that this version does not know.
        body: As the sender gave it: msgpack, still to be checked.
    """

    sender: Rid
    minor: int
    number: int
    kind: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Refused:
    """A message that did not pass.

    Attributes:
        cause: Why; a fault per cause is enough.
        detail: What was found, for the log; safe to print.
        sender: Who sent it, None where that is not proven.
        newest: With OLD_INCARNATION the newest incarnation of the sender's node.
    """

    cause: Cause
    detail: str = ""
    sender: Rid | None = None
    newest: int | None = None


# --- keys -------------------------------------------------------------------------------------


def mac_key(network: str, network_key: bytes | None) -> bytes:
    """Return the key of a network's MACs, 32 bytes.

    Args:
        network: Name of the network.
        network_key: The bytes of the key file; white space around them does not count, so that an
            editor's last newline parts nobody.  None: from the name alone, no guard against
            attackers.

    Raises:
        BadSetting: The key is too short.
    """
    name = network.encode()
    digest = blake2b(digest_size=32, person=b"kvedge mac key")
    if network_key is None:
        digest.update(b"name" + name)
        return digest.digest()
    secret = network_key.strip()
    if len(secret) < NETWORK_KEY_MIN_BYTES:
        why = f"the key has {len(secret)} bytes; at least {NETWORK_KEY_MIN_BYTES} are needed"
        raise BadSetting("net.key_file", why)
    digest.update(b"file" + len(name).to_bytes(2, "big") + name + secret)
    return digest.digest()


def _mac(key: bytes, topic: str, signed: bytes | memoryview) -> bytes:
    where = topic.encode(errors="surrogatepass")
    digest = blake2b(key=key, digest_size=MAC_BYTES, person=b"kvedge envelope")
    digest.update(len(where).to_bytes(4, "big") + where)
    digest.update(signed)
    return digest.digest()


def _prefix(network: str) -> bytes:
    name = network.encode()
    return bytes((len(name),)) + name


# --- sealing ----------------------------------------------------------------------------------


class Sealer:
    """Wraps the messages of one incarnation, and numbers them."""

    def __init__(self, network: str, key: bytes, sender: Rid) -> None:
        assert _NAME.fullmatch(sender.node), sender
        self._prefix = _prefix(network)
        self._key = key
        self._sender = sender
        self._number = 0

    def seal(self, topic: str, kind: str, body: bytes, *, is_repeatable: bool = False) -> bytes:
        """Return a message, ready to be published.

        Args:
            topic: Where it will be published, below the network's root.
            kind: What the body is: lower-case letters and `_`.
            body: One packed msgpack object.
            is_repeatable: It gets no number, so receivers take it late and as often as it comes:
                for a last will alone.

        Raises:
            LimitExceeded: The message is too large.
        """
        assert _KIND.fullmatch(kind), kind
        number = 0 if is_repeatable else self._number + 1
        fields = packb((*self._sender, number, kind, body))
        size = _HEAD.size + len(self._prefix) + len(fields) + MAC_BYTES
        if size > BROADCAST_MAX_BYTES:
            what = "a message between servers"
            raise LimitExceeded(what, actual=size, limit=BROADCAST_MAX_BYTES, unit="bytes")
        self._number = number or self._number
        head = _HEAD.pack(_MAGIC, VERSION_MAJOR, VERSION_MINOR, size)
        signed = head + self._prefix + fields
        return signed + _mac(self._key, topic, signed)


# --- opening ----------------------------------------------------------------------------------


class _Window:
    """Which numbers of one incarnation have been taken: the highest, and a bit for each below."""

    __slots__ = ("_bits", "_highest", "incarnation")

    def __init__(self, incarnation: int) -> None:
        self.incarnation = incarnation
        self._highest = 0
        self._bits = 0  # bit n: highest - n was taken

    def take(self, number: int) -> bool:
        """Take a number; tell whether it was new and in the window."""
        ahead = number - self._highest
        if ahead > 0:
            kept = self._bits << ahead if ahead < REPLAY_WINDOW else 0
            self._bits = (kept | 1) & _WINDOW_MASK
            self._highest = number
            return True
        bit = 1 << -ahead if -ahead < REPLAY_WINDOW else 0
        if not bit or self._bits & bit:
            return False
        self._bits |= bit
        return True


class Opener:
    """Checks the messages that come in, and remembers which of them have been.

    Its memory is bounded: NODES_MAX nodes, those heard last, with two windows each.
    """

    def __init__(self, network: str, key: bytes, own: Rid) -> None:
        self._prefix = _prefix(network)
        self._key = key
        self._own = own
        # Windows of a node, the newest incarnation first; nodes in the order they were heard.
        self._windows: dict[str, list[_Window]] = {}

    def open(self, topic: str, data: bytes) -> Opened | Refused:
        """Return what is in a message, or why it does not count.

        The first checks, up to the MAC, speak of what the bytes pretend to be.

        Args:
            topic: Where it came from, below the network's root.
            data: The whole message.
        """
        refused = _frame_flaw(data) or self._origin_flaw(topic, data)
        if refused:
            return refused
        opened = _read(data, _HEAD.size + len(self._prefix))
        if isinstance(opened, Refused):
            return opened
        return self._repetition(opened) or opened

    def _origin_flaw(self, topic: str, data: bytes) -> Refused | None:
        """Tell whether somebody else than a server of this network made a message."""
        if not data.startswith(self._prefix, _HEAD.size):
            name = data[_HEAD.size + 1 :][: data[_HEAD.size]]
            return Refused(Cause.WRONG_NETWORK, ascii(name.decode(errors="replace")))
        wanted = _mac(self._key, topic, memoryview(data)[:-MAC_BYTES])
        if not hmac.compare_digest(wanted, data[-MAC_BYTES:]):
            return Refused(Cause.BAD_MAC, f"on topic {topic!a}")
        return None

    def _repetition(self, opened: Opened) -> Refused | None:
        """Tell whether a message was here before, or comes from the past."""
        sender = opened.sender
        if sender == self._own:
            return Refused(Cause.OWN, sender=sender)
        windows = self._windows.pop(sender.node, [])
        window = _window_of(sender.incarnation, windows)
        self._windows[sender.node] = windows
        if len(self._windows) > NODES_MAX:
            del self._windows[next(iter(self._windows))]
        if window is None:
            newest = windows[0].incarnation
            detail = f"{sender.incarnation}, the newest is {newest}"
            return Refused(Cause.OLD_INCARNATION, detail, sender, newest)
        if opened.number and not window.take(opened.number):
            return Refused(Cause.REPLAYED, f"number {opened.number}", sender)
        return None


def _window_of(incarnation: int, windows: list[_Window]) -> _Window | None:
    """Return the window of an incarnation, made where it is new; None where it is too old."""
    for window in windows:
        if window.incarnation == incarnation:
            return window
    made = _Window(incarnation)
    windows.append(made)
    windows.sort(key=lambda window: -window.incarnation)
    del windows[_INCARNATIONS_KEPT:]
    return made if made in windows else None


def _frame_flaw(data: bytes) -> Refused | None:
    """Tell what is wrong with the outermost bytes of a message."""
    size = len(data)
    if size > BROADCAST_MAX_BYTES:
        return Refused(Cause.TOO_LARGE, f"{size} bytes; at most {BROADCAST_MAX_BYTES} are allowed")
    if not data.startswith(_MAGIC[:size]):
        return Refused(Cause.FOREIGN, f"begins with {data[:8].hex()}")
    if size > len(_MAGIC) and data[len(_MAGIC)] != VERSION_MAJOR:
        return Refused(Cause.WRONG_MAJOR, f"{data[len(_MAGIC)]}, ours is {VERSION_MAJOR}")
    if size < _HEAD.size:
        return Refused(Cause.TRUNCATED, f"{size} bytes")
    return _length_flaw(size, _HEAD.unpack_from(data)[3])


def _length_flaw(size: int, told: int) -> Refused | None:
    detail = f"{size} bytes, {told} were sent"
    if told > size:
        return Refused(Cause.TRUNCATED, detail)
    if told < size:
        return Refused(Cause.TRAILING, detail)
    if size <= _HEAD.size + MAC_BYTES:
        return Refused(Cause.MALFORMED, detail)
    return None


def _read(data: bytes, start: int) -> Opened | Refused:
    """Return the fields of a message whose MAC is right."""
    raw = data[start:-MAC_BYTES]
    try:
        check_parts(raw, _PARTS_MAX)
        fields = decode(raw)
    except (LimitExceeded, ValueError) as error:
        return Refused(Cause.MALFORMED, str(error))
    if not isinstance(fields, tuple) or len(fields) < _FIELDS:
        return Refused(Cause.MALFORMED, "fields are missing")
    node, incarnation, number, kind, body = fields[:_FIELDS]
    wrong = [
        name
        for name, is_right in (
            ("node", is_text(node) and _NAME.fullmatch(node)),
            ("incarnation", is_number(incarnation)),
            ("number", is_number(number)),
            ("kind", is_text(kind) and _KIND.fullmatch(kind)),
            ("body", isinstance(body, bytes)),
        )
        if not is_right
    ]
    if wrong:
        return Refused(Cause.MALFORMED, f"wrong fields: {', '.join(wrong)}")
    return Opened(Rid(node, incarnation), data[len(_MAGIC) + 1], number, kind, body)
