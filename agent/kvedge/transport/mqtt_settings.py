"""How to reach an MQTT broker; apart from the adapter, whose import takes a tenth of a second."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from kvedge.errors import BadSetting

_PORTS = {"mqtt": 1883, "mqtts": 8883}


class MqttVersion(Enum):
    """Which MQTT is spoken.

    With 5 the broker itself keeps messages away that are too large.  In Debian 12 the clusters of
    NATS and of RabbitMQ speak 3.1.1 alone.
    """

    V311 = "3.1.1"
    V5 = "5"


@dataclass(frozen=True, slots=True)
class MqttSettings:
    """How to reach the broker.

    Attributes:
        host: Name or address.
        port: TCP port.
        user: Who we are to the broker.  None: it takes anybody, or knows us by certificate.
        password: Never shown.
        tls: Whether the connection is encrypted and the broker's certificate checked.
        ca_file: Who may have signed that certificate.  None: those whom the machine trusts.
        certificate_file: Our own certificate, for brokers that ask for it.
        key_file: Its key.  None: it is in the same file.
        version: Of MQTT.
        qos: 1: the broker acknowledges each message, so we see how fast it is and how many are
            under way.  0: it does not, which is right where it would store each of them first.
        keepalive_s: A broker that is silent for twice as long is given up; it gives us up after
            1.5 times.  Higher: fewer packets on an idle network, a dead board is noticed later.
        connect_timeout_s: For the broker's name to be looked up and its port to answer.  Higher:
            survives a slow name server; a broker that comes back is noticed later.
        answer_timeout_s: A connection is given up when bytes, or what was published, are not
            acknowledged for so long.  Higher: survives longer holes in the Wi-Fi.
        retry_min_s: Shortest pause before the next attempt.
        retry_max_s: Longest pause.  Higher: the boards of a large network return less at once.
            With the time to connect it stays below 2 s.
        others: The other nodes of a cluster of brokers, in the order in which they are tried when
            this one is gone; empty for a single broker.
    """

    host: str
    port: int = _PORTS["mqtt"]
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: bool = False
    ca_file: str | None = None
    certificate_file: str | None = None
    key_file: str | None = None
    version: MqttVersion = MqttVersion.V311
    qos: int = 1
    keepalive_s: int = 5
    connect_timeout_s: float = 3.0
    answer_timeout_s: float = 8.0
    retry_min_s: float = 0.2
    retry_max_s: float = 1.5
    others: tuple[MqttSettings, ...] = ()

    @classmethod
    def from_uri(
        cls,
        uri: str,
        *,
        password_file: str | None = None,
        ca_file: str | None = None,
        certificate_file: str | None = None,
        key_file: str | None = None,
        version: MqttVersion = MqttVersion.V311,
        qos: int = 1,
    ) -> MqttSettings:
        """Return settings for `mqtt://USER:PASSWORD@HOST:PORT` or, with TLS, `mqtts://…`.

        Args:
            uri: User, password and port may be absent.  The nodes of a cluster are separated by
                commas, the one to be tried first in front.
            password_file: Its first line is the password, and wins over the URI's.
            ca_file: As the attribute; only with TLS.
            certificate_file: As the attribute; only with TLS.
            key_file: As the attribute; only with TLS.
            version: As the attribute.
            qos: As the attribute.

        Raises:
            BadSetting: The URI is none, or the file of the password cannot be read.
        """
        first, *others = (
            cls._from_one(
                one.strip(),
                password_file=password_file,
                ca_file=ca_file,
                certificate_file=certificate_file,
                key_file=key_file,
                version=version,
                qos=qos,
            )
            for one in uri.split(",")
        )
        return replace(first, others=tuple(others))

    @classmethod
    def _from_one(
        cls,
        uri: str,
        *,
        password_file: str | None,
        ca_file: str | None,
        certificate_file: str | None,
        key_file: str | None,
        version: MqttVersion,
        qos: int,
    ) -> MqttSettings:
        try:
            parts = urlsplit(uri)
            port = parts.port or _PORTS[parts.scheme]
            host = parts.hostname or ""
            host.encode("idna")
            is_more = bool(parts.path.strip("/") or parts.query or parts.fragment)
            if parts.scheme not in _PORTS or not host or is_more:
                raise _bad_uri()
        except (KeyError, UnicodeError, ValueError):
            raise _bad_uri() from None  # the cause may show the password
        files = (ca_file, certificate_file, key_file)
        if parts.scheme != "mqtts" and any(files):
            raise BadSetting("the broker's URI", "certificates need mqtts:, not mqtt:")
        return cls(
            host=host,
            port=port,
            user=_unquoted(parts.username),
            password=_first_line(password_file) if password_file else _unquoted(parts.password),
            tls=parts.scheme == "mqtts",
            ca_file=ca_file,
            certificate_file=certificate_file,
            key_file=key_file,
            version=version,
            qos=qos,
        )

    @property
    def all(self) -> tuple[MqttSettings, ...]:
        """This broker and the others of its cluster."""
        return (self, *self.others)

    @property
    def endpoint(self) -> str:
        """Host and port, to be shown."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def without_password(uri: str) -> str:
    """Return a broker's URI with its user, and without its password.

    >>> without_password("mqtt://joe:se%40cret@box:1883")
    'mqtt://joe@box:1883'
    """
    scheme, _, rest = uri.partition("://")
    login, at, host = rest.rpartition("@")
    return f"{scheme}://{login.partition(':')[0]}{at}{host}"


def with_password(uri: str, password: str) -> str:
    """Return a broker's URI with this password, in the place of the one it has.

    >>> with_password("mqtt://joe@box", "se@cret")
    'mqtt://joe:se%40cret@box'
    """
    scheme, _, rest = without_password(uri).partition("://")
    login, _, host = rest.rpartition("@")
    return f"{scheme}://{login}:{quote(password, safe='')}@{host}"


def _bad_uri() -> BadSetting:
    return BadSetting("the broker's URI", "must look like mqtt://USER:PASSWORD@HOST:PORT or mqtts:")


def _unquoted(text: str | None) -> str | None:
    return unquote(text) if text else None


def _first_line(file: str) -> str:
    try:
        return Path(file).read_text(encoding="utf-8").partition("\n")[0].removesuffix("\r")
    except OSError as error:
        why = f"the password cannot be read: {error.strerror}"
        raise BadSetting(file, why) from error
    except UnicodeDecodeError:
        raise BadSetting(file, "the password is not UTF-8") from None  # the cause shows it
