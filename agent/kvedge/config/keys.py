"""Every setting that there is: its name, what it may be, its default, and what it does.

This table is the one source: the reader checks files against it, and the tests check the
reference page and the commented file in `deploy/etc` against it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

from kvedge.config.connect import port_number
from kvedge.errors import BadSetting
from kvedge.transport.address import PORT as DEFAULT_PORT
from kvedge.transport.address import parse_address

LEVELS = ("error", "warning", "info", "debug")
"""Of the log, the quietest first."""

PLACEMENTS = ("single", "any", "all")

CLOCKS = ("synchronised", "any")


@dataclass(frozen=True, slots=True)
class Kind:
    """What a setting may be.

    Attributes:
        words: For people, after "a setting is ...".
        check: Returns the value to keep; raises ValueError with the reason.
    """

    words: str
    check: Callable[[object], object]


@dataclass(frozen=True, slots=True)
class Key:
    """One setting.

    Attributes:
        name: Section and key, joined by dots.
        kind: What it may be.
        default: What holds when nobody sets it, in words or as TOML.
        meaning: What it is, with its unit.
        effect: What changing it brings about.
        example: A value, as TOML.
        secret: What must not be shown of it; None where all may be.
    """

    name: str
    kind: Kind
    default: str
    meaning: str
    effect: str
    example: str
    secret: re.Pattern[str] | None = None

    def shown(self, value: object) -> object:
        """Return the value as it may be shown, passwords replaced."""
        if self.secret is None or not isinstance(value, str):
            return value
        return self.secret.sub("***", value)

    @property
    def section(self) -> str:
        """The part before the first dot."""
        return self.name.partition(".")[0]


# --- kinds -----------------------------------------------------------------------------------


def _text(value: object) -> str:
    if isinstance(value, str) and value.strip() and "\0" not in value:
        return value
    raise ValueError("must be text, and not empty")


def _absolute_path(value: object) -> str:
    if _text(value).startswith("/"):
        return str(value)
    raise ValueError("must be a path that begins with /")


def _word(value: object) -> str:
    if re.fullmatch(r"[A-Za-z0-9_-]{1,63}", _text(value)):
        return str(value)
    raise ValueError("must be 1 to 63 letters, digits, '_' or '-'")


def _node_name(value: object) -> str:
    _word(_text(value).partition(".")[0])  # a dotted one is cut later, with a note
    return str(value)


def _topic(value: object) -> str:
    if re.fullmatch(r"[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*", _text(value)):
        return str(value)
    raise ValueError("must be words of letters, digits, '_' or '-', with '/' between them")


def _brokers(value: object) -> str:
    uris = _text(value).split(",")
    if all(re.fullmatch(r"mqtts?://[^/\s]+/?", uri.strip()) for uri in uris):
        return str(value)
    raise ValueError("must look like mqtt://HOST:PORT or mqtts://HOST:PORT")


def _seconds(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise ValueError("must be a number of seconds, 0 or more")
    return value


def _qos(value: object) -> int:
    if type(value) is int and value in (0, 1):
        return value
    raise ValueError("must be 0 or 1")


def _address(value: object) -> str:
    text = _text(value)
    try:
        parse_address(text)
    except BadSetting as error:
        raise ValueError(f"must hold addresses, and {error.why}") from error
    return text


def _addresses(value: object) -> tuple[str, ...]:
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, list) or not items:
        raise ValueError("must be a list of addresses, and not empty")
    return tuple(_address(item) for item in items)


def _one_of(choices: tuple[str, ...]) -> Kind:
    def check(value: object) -> str:
        if value in choices:
            return str(value)
        raise ValueError(f"must be one of {', '.join(choices)}")

    return Kind("one of " + ", ".join(f"`{choice}`" for choice in choices), check)


TEXT = Kind("text", _text)
PATH = Kind("an absolute path", _absolute_path)
WORD = Kind("letters, digits, `_` and `-`", _word)
NODE = Kind("letters, digits, `_` and `-`", _node_name)
TOPIC = Kind("words of letters, digits, `_` and `-` with `/` between them", _topic)
BROKERS = Kind("`mqtt://HOST:PORT` or `mqtts://HOST:PORT`, or some, by commas", _brokers)
SECONDS = Kind("a number of seconds, 0 or more", _seconds)
QOS = Kind("0 or 1", _qos)
ADDRESSES = Kind("a list of `unix:PATH` and `HOST:PORT`", _addresses)
PORT = Kind("a number from 1 to 65535", port_number)

# --- the table -------------------------------------------------------------------------------

_ALL = (
    Key(
        "node.name",
        NODE,
        default="the first label of the host name",
        meaning="The name of this node, unique in its network.",
        effect="It is fixed when the store is first made; another name then needs another store. "
        "The host names raspberrypi, localhost and debian, which come with images, get a suffix "
        "from the board's serial number or machine id.",
        example='"greenhouse"',
    ),
    Key(
        "net.name",
        WORD,
        default='"kvedge"',
        meaning="The name of the network. Nodes of one network share one tree.",
        effect="Nodes with different names do not see each other, even at the same broker.",
        example='"kvedge"',
    ),
    Key(
        "net.key_file",
        PATH,
        default="none",
        meaning="A file with the key that all nodes of the network share.",
        effect="Without it the messages between nodes are guarded against mistakes, "
        "not against an attacker.",
        example='"/etc/kvedge/net.key"',
    ),
    Key(
        "server.dir",
        PATH,
        default="/var/lib/kvedge for root and the user kvedge, "
        "else kvedge below $XDG_STATE_HOME or ~/.local/state",
        meaning="The directory of the store: journal and snapshots.",
        effect="One server owns it at a time. It must be on a disk that keeps what was synced; "
        "a directory in memory loses all at a power cut.",
        example='"/var/lib/kvedge"',
    ),
    Key(
        "server.listen",
        ADDRESSES,
        default="the socket kv.sock in the runtime directory: /run/kvedge for root and the user "
        "kvedge, else kvedge below $XDG_RUNTIME_DIR, else /tmp/kvedge-UID; "
        f"`kv server` listens at 127.0.0.1:{DEFAULT_PORT} too",
        meaning="Where clients may connect.",
        effect="It replaces the default as a whole, so name the socket as well. Whoever reaches "
        "an address may read and write all data until a login is set up.",
        example=f'["unix:/run/kvedge/kv.sock", "127.0.0.1:{DEFAULT_PORT}"]',
    ),
    Key(
        "server.mqtt.uri",
        BROKERS,
        default="none; the node stays by itself",
        meaning="The MQTT broker through which the nodes of the network find each other.",
        effect="With it the node exchanges its data with all others of the network's name. "
        "User and password stand before the host: mqtt://USER:PASSWORD@HOST. The nodes of a "
        "cluster of brokers are named with commas between them and tried in turn, the first first.",
        example='"mqtt://broker.example:1883"',
        secret=re.compile(r"(?<=//)[^/]*(?=@)"),
    ),
    Key(
        "server.mqtt.password_file",
        PATH,
        default="none",
        meaning="A file whose first line is the password for the broker.",
        effect="It keeps the password out of this file, and wins over one in the URI.",
        example='"/etc/kvedge/mqtt.password"',
    ),
    Key(
        "server.mqtt.ca_file",
        PATH,
        default="none",
        meaning="The certificates that the broker's may be signed by, in PEM; only with mqtts.",
        effect="Without it those of the system count.",
        example='"/etc/kvedge/broker-ca.pem"',
    ),
    Key(
        "server.mqtt.certificate_file",
        PATH,
        default="none",
        meaning="The certificate that this node shows to the broker, in PEM; only with mqtts.",
        effect="A broker may want it in the place of a password.",
        example='"/etc/kvedge/node.pem"',
    ),
    Key(
        "server.mqtt.key_file",
        PATH,
        default="none",
        meaning="The private key of that certificate, in PEM.",
        effect="Without it the key is looked for in the certificate's file.",
        example='"/etc/kvedge/node.key"',
    ),
    Key(
        "server.mqtt.qos",
        QOS,
        default="1",
        meaning="Whether the broker acknowledges each message (1) or not (0).",
        effect="Nothing depends on it but speed. With 1 a node sees how fast the broker is. A NATS "
        "cluster stores each message on most of its nodes before it does: use 0 there.",
        example="0",
    ),
    Key(
        "server.root",
        TOPIC,
        default="the name of the network",
        meaning="The MQTT topic below which all messages of the network are.",
        effect="Nodes with different roots do not see each other.",
        example='"house/kvedge"',
    ),
    Key(
        "connect.host",
        TEXT,
        default="none; the local sockets are tried, then 127.0.0.1",
        meaning="Where `kv` connects by TCP: a name or an address. KV_HOST and -h go before it.",
        effect="It takes the place of a socket that a weaker source names.",
        example='"greenhouse.local"',
    ),
    Key(
        "connect.port",
        PORT,
        default=str(DEFAULT_PORT),
        meaning="The TCP port at connect.host. KV_PORT and -p go before it.",
        effect="It must be the port of the server's `listen`.",
        example=str(DEFAULT_PORT),
    ),
    Key(
        "connect.socket",
        PATH,
        default="none; kv.sock in the user's runtime directory is tried, then /run/kvedge/kv.sock",
        meaning="Where `kv` connects: a Unix socket. KV_SOCKET and -s go before it.",
        effect="It takes the place of a host that a weaker source names.",
        example='"/run/kvedge/kv.sock"',
    ),
    Key(
        "connect.auth",
        TEXT,
        default="none; no login",
        meaning="How `kv` logs in: method and parameters. KV_AUTH and -a go before it.",
        effect="It may hold a password, so keep the file to yourself (mode 0600).",
        example='"password name=joe password=secret"',
        secret=re.compile(r"(?<=\s)\S.*", re.DOTALL),
    ),
    Key(
        "runner.placement",
        _one_of(PLACEMENTS),
        default='"single"',
        meaning="Which jobs the runner takes: those of this node alone, those that any one node "
        "of the group runs, or those that all nodes of the group run.",
        effect="Each [[runner]] table is one runner in `kv agent`.",
        example='"single"',
    ),
    Key(
        "runner.group",
        WORD,
        default='"default"',
        meaning="The group of nodes the runner belongs to.",
        effect="A runner sees the jobs of its own group only.",
        example='"default"',
    ),
    Key(
        "runner.node",
        NODE,
        default="the name of this node",
        meaning="The node whose jobs a runner with placement single takes.",
        effect="Set it to take over the jobs of a node that is gone.",
        example='"greenhouse"',
    ),
    Key(
        "runner.clock",
        _one_of(CLOCKS),
        default='"synchronised"',
        meaning="Which clock is good enough for jobs that start at a time told in words: one that "
        "was synchronised (since the runner started), or any.",
        effect="With synchronised such jobs wait, and say so, until the time is known. Choose any "
        "for a board with a battery clock and no time server.",
        example='"any"',
    ),
    Key(
        "runner.block_max_s",
        SECONDS,
        default="10",
        meaning="How long, in seconds, an async job may keep the other jobs of the runner from "
        "running; 0 for as long as it likes.",
        effect="Then it is named in a fault, the runner starts again, and the job waits like one "
        "that failed.",
        example="30",
    ),
    Key(
        "log.level",
        _one_of(LEVELS),
        default='"info"',
        meaning="What server and agent tell on standard error. -v and -vv make it one and two "
        "steps louder; short commands begin at warning.",
        effect="At info there is one line per change of state, at debug one per message. "
        "Below info the disk of the log may become the slowest part.",
        example='"info"',
    ),
)

KEYS = {key.name: key for key in _ALL}
"""All settings by name.  `runner.*` are those of each table in the list `[[runner]]`."""

SECTIONS = frozenset(key.section for key in _ALL)
