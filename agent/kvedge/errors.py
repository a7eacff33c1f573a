"""Every exception raised on purpose, with its stable code on the wire.

One class per thing a caller does differently.  The fields are attributes, and the message is
built from them; `certain` tells whether the operation surely did not happen.  `to_wire` and
`from_wire` carry an error across a connection without losing its class.

This module is on the path of every short command, so it imports nothing.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


class AgentError(Exception):
    """The base of all errors of this project.

    Attributes:
        code: Stable name of the class on the wire and in `--json` output.
        certain: True where the operation surely did not happen; False where it may have.
        fields: Names of the attributes that travel with the error.
    """

    code = "error"
    certain = True
    fields: tuple[str, ...] = ()


# --- the caller asked for something that cannot be asked -----------------------------------


class UsageError(AgentError, ValueError):
    """The request itself is wrong; repeating it does not help."""

    code = "usage"


class BadPath(UsageError):
    """A text or a list of elements is not a path."""

    code = "path"
    fields = ("text", "why")

    def __init__(self, text: str, why: str) -> None:
        super().__init__(f"{text!r} is not a path: {why}")
        self.text = text
        self.why = why


class BadValue(UsageError):
    """A value cannot be stored."""

    code = "value"
    fields = ("what", "why")

    def __init__(self, what: str, why: str) -> None:
        super().__init__(f"{what} cannot be stored: {why}")
        self.what = what
        self.why = why


class BadRequest(UsageError):
    """A request is unknown, or one of its fields is missing or of the wrong type."""

    code = "request"
    fields = ("action", "why")

    def __init__(self, action: str, why: str) -> None:
        super().__init__(f"the request {action!r} is not understood: {why}")
        self.action = action
        self.why = why


class BadSetting(UsageError):
    """A setting, a command-line word or a configuration file cannot be used."""

    code = "setting"
    fields = ("name", "why")

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"{name}: {why}")
        self.name = name
        self.why = why


class LimitExceeded(UsageError):
    """Something is larger than the bound in `kvedge.limits`."""

    code = "limit"
    fields = ("what", "actual", "limit", "unit")

    def __init__(self, what: str, *, actual: int, limit: int, unit: str) -> None:
        super().__init__(f"{what} has {actual} {unit}; at most {limit} {unit} are allowed")
        self.what = what
        self.actual = actual
        self.limit = limit
        self.unit = unit


# --- the state of the tree forbids it -------------------------------------------------------


class ConflictError(AgentError):
    """The tree is not as the request assumed; read again and decide anew."""

    code = "conflict"


class ChainMismatch(ConflictError):
    """A compare-and-set found another chain (or another value) than expected."""

    code = "chain"
    fields = ("path", "expected", "found")

    def __init__(self, path: str, *, expected: str, found: str) -> None:
        super().__init__(f"{path} has changed: expected {expected}, found {found}")
        self.path = path
        self.expected = expected
        self.found = found


class FencedOff(ConflictError):
    """A job wrote under a right that has passed to somebody else."""

    code = "fenced"
    fields = ("job", "fence", "known")

    def __init__(self, job: str, *, fence: int, known: int) -> None:
        super().__init__(
            f"the job {job} may not write any more: its fence {fence} is below {known}"
        )
        self.job = job
        self.fence = fence
        self.known = known


class EntryAbsent(ConflictError, KeyError):
    """There is no value where one was needed."""

    code = "absent"
    fields = ("path",)

    def __init__(self, path: str) -> None:
        super().__init__(f"No data at {path}")
        self.path = path

    __str__ = Exception.__str__  # KeyError would print the message in quotes


class SchemaViolation(ConflictError):
    """A value does not match the type that is attached to its path."""

    code = "schema"
    fields = ("path", "schema", "why")

    def __init__(self, path: str, *, schema: str, why: str) -> None:
        super().__init__(f"{path} must be of type {schema}: {why}")
        self.path = path
        self.schema = schema
        self.why = why


# --- who asks may not -----------------------------------------------------------------------


class AccessError(AgentError, PermissionError):
    """The caller is not allowed to do this."""

    code = "access"


class AuthRequired(AccessError):
    """The server wants a login first."""

    code = "auth"
    fields = ("methods",)

    def __init__(self, methods: str) -> None:
        super().__init__(f"You need to log in using: {methods}")
        self.methods = methods


class AuthFailed(AccessError):
    """The login was refused; the reason is not told."""

    code = "login"
    fields = ("user",)

    def __init__(self, user: str) -> None:
        super().__init__(f"the login of {user!r} was refused")
        self.user = user


class NotAllowed(AccessError):
    """A right is missing."""

    code = "denied"
    fields = ("path", "right")

    def __init__(self, path: str, right: str) -> None:
        super().__init__(f"{path}: you lack the right to {right}")
        self.path = path
        self.right = right


# --- one of the two programs is wrong -------------------------------------------------------


class ProtocolError(AgentError):
    """The rules of the connection were broken; it ends."""

    code = "protocol"


class LocalProtocolError(ProtocolError):
    """Our own side broke the rules: a defect of this program."""

    code = "local"
    fields = ("why",)

    def __init__(self, why: str) -> None:
        super().__init__(f"defect in this program: {why}")
        self.why = why


class RemoteProtocolError(ProtocolError):
    """The other side broke the rules."""

    code = "remote"
    fields = ("why",)

    def __init__(self, why: str) -> None:
        super().__init__(f"the other side sent something unusable: {why}")
        self.why = why


class ServerFailure(ProtocolError):
    """The server met an error of its own while it worked on a request."""

    code = "server"
    certain = False
    fields = ("why",)

    def __init__(self, why: str) -> None:
        super().__init__(f"the server failed: {why}")
        self.why = why


# --- the other side cannot be reached -------------------------------------------------------


class LinkError(AgentError, ConnectionError):
    """There is no working connection."""

    code = "link"


class NotConnected(LinkError):
    """No connection could be made."""

    code = "connect"
    fields = ("endpoint", "why")

    def __init__(self, endpoint: str, why: str) -> None:
        super().__init__(f"cannot reach {endpoint}: {why}")
        self.endpoint = endpoint
        self.why = why


class Disconnected(LinkError):
    """The connection ended while something was under way."""

    code = "disconnect"
    certain = False
    fields = ("reason",)

    def __init__(self, reason: str) -> None:
        super().__init__(f"the connection ended: {reason}")
        self.reason = reason


class TimedOut(LinkError, TimeoutError):
    """The answer did not come in time; a write may have happened."""

    code = "timeout"
    certain = False
    fields = ("what", "after_s")

    def __init__(self, what: str, after_s: float) -> None:
        super().__init__(f"{what}: no answer after {after_s:g} s; it may have happened")
        self.what = what
        self.after_s = after_s


# --- the disk -------------------------------------------------------------------------------


class StorageError(AgentError, OSError):
    """The store on disk cannot do what was asked."""

    code = "storage"


class JournalCorrupt(StorageError):
    """A file of the store is damaged at a place that cannot be passed over."""

    code = "corrupt"
    fields = ("file", "offset", "why")

    def __init__(self, file: str, *, offset: int, why: str) -> None:
        super().__init__(f"{file} is damaged at byte {offset}: {why}")
        self.file = file
        self.offset = offset
        self.why = why


class BadDump(StorageError):
    """A file that should be loaded is no dump, or a damaged one; nothing of it was taken."""

    code = "dump"
    fields = ("file", "offset", "why")

    def __init__(self, file: str, *, offset: int, why: str) -> None:
        super().__init__(f"{file} cannot be loaded: at byte {offset}: {why}")
        self.file = file
        self.offset = offset
        self.why = why


class SnapshotMissing(StorageError):
    """The journal needs a snapshot that is not there."""

    code = "snapshot"
    fields = ("file",)

    def __init__(self, file: str) -> None:
        super().__init__(f"{file} is missing, and the journal that is left does not reach back")
        self.file = file


class WrongStore(StorageError):
    """The directory holds the store of another network, node or program version."""

    code = "store"
    fields = ("directory", "why")

    def __init__(self, directory: str, why: str) -> None:
        super().__init__(f"{directory} cannot be used: {why}")
        self.directory = directory
        self.why = why


class StoreLocked(StorageError):
    """Another process works on the directory."""

    code = "locked"
    fields = ("directory", "pid")

    def __init__(self, directory: str, pid: int) -> None:
        super().__init__(f"{directory} is in use by process {pid}; stop that one first")
        self.directory = directory
        self.pid = pid


class NameTaken(StorageError):
    """Another server runs under this one's name, and is the younger one."""

    code = "name"
    fields = ("node", "directory")

    def __init__(self, node: str, directory: str) -> None:
        super().__init__(f"another server has taken over the name {node} from {directory}")
        self.node = node
        self.directory = directory


class WriteRefused(StorageError):
    """The disk is full or read-only: nothing was written, nothing was changed."""

    code = "refused"
    fields = ("why",)

    def __init__(self, why: str) -> None:
        super().__init__(f"writes are refused, nothing was changed: {why}")
        self.why = why


class WriteUncertain(StorageError):
    """The disk failed in the middle of a write."""

    code = "uncertain"
    certain = False
    fields = ("why",)

    def __init__(self, why: str) -> None:
        super().__init__(f"the write may have happened: {why}")
        self.why = why


# --- jobs and hardware ----------------------------------------------------------------------


class JobError(AgentError):
    """A job cannot do its work."""

    code = "job"


class JobFailed(JobError):
    """A job, or its code, ended with an error."""

    code = "failed"
    fields = ("path", "cause")

    def __init__(self, path: str, cause: str) -> None:
        super().__init__(f"{path} failed: {cause}")
        self.path = path
        self.cause = cause


class NotPlaced(JobError):
    """No node could be found to run a job."""

    code = "placed"
    fields = ("path", "waited_s")

    def __init__(self, path: str, waited_s: float) -> None:
        super().__init__(f"no node took {path} within {waited_s:g} s")
        self.path = path
        self.waited_s = waited_s


class RunnerBusy(JobError):
    """Another runner serves the same jobs already."""

    code = "runner"
    fields = ("runner", "owner")

    def __init__(self, runner: str, owner: str) -> None:
        super().__init__(f"the jobs of {runner} are already run by {owner}")
        self.runner = runner
        self.owner = owner


class DriverError(AgentError):
    """A bus or a device does not do what it should."""

    code = "driver"


class PortUnavailable(DriverError):
    """The bus itself cannot be reached."""

    code = "port"
    fields = ("port", "why")

    def __init__(self, port: str, why: str) -> None:
        super().__init__(f"{port} cannot be reached: {why}")
        self.port = port
        self.why = why


class PortBusy(DriverError):
    """The bus has another speaker, or too much waits for it."""

    code = "busy"
    fields = ("port", "why")

    def __init__(self, port: str, why: str) -> None:
        super().__init__(f"{port} is busy: {why}")
        self.port = port
        self.why = why


class DeviceAbsent(DriverError):
    """A device does not answer on its bus."""

    code = "device"
    fields = ("address",)

    def __init__(self, address: str) -> None:
        super().__init__(f"{address} does not answer")
        self.address = address


class BadReading(DriverError):
    """A device answered with something that is not a reading."""

    code = "reading"
    fields = ("raw", "why")

    def __init__(self, raw: str, why: str) -> None:
        super().__init__(f"{raw} is not a reading: {why}")
        self.raw = raw
        self.why = why


class RemoteError(AgentError):
    """An error of a class that this version does not know."""

    code = "unknown"
    fields = ("etype", "text")

    def __init__(self, etype: str, text: str) -> None:
        super().__init__(text)
        self.etype = etype
        self.text = text


def _all_classes(base: type[AgentError]) -> list[type[AgentError]]:
    found = [base]
    for child in base.__subclasses__():
        found += _all_classes(child)
    return found


BY_CODE: Mapping[str, type[AgentError]] = {c.code: c for c in _all_classes(AgentError)}


def to_wire(error: AgentError) -> dict[str, object]:
    """Return the fields that an error message carries: error, etype, fields."""
    return {
        "error": str(error),
        "etype": error.code,
        "fields": {name: getattr(error, name) for name in error.fields},
        "certain": error.certain,
    }


def from_wire(message: Mapping[str, object]) -> AgentError:
    """Return the error that `to_wire` described; RemoteError for an unknown one.

    Args:
        message: A message with `error`, perhaps `etype`, `fields` and `certain`.
    """
    text = str(message.get("error"))
    kind = BY_CODE.get(str(message.get("etype")))
    given = message.get("fields")
    if kind is None or not isinstance(given, dict):
        kind, given = RemoteError, {"etype": str(message.get("etype")), "text": text}
    try:
        error = kind(**given) if kind.fields else kind(text)
    except (TypeError, ValueError):  # other fields than this version knows, or of another type
        error = RemoteError(etype=str(message.get("etype")), text=text)
    certain = message.get("certain")
    if isinstance(certain, bool):
        error.certain = certain
    return error
