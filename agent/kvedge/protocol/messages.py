"""The requests of the client protocol, one frozen class each: the wire on one page.

`read` checks a decoded message and returns its request; behind that border types are trusted.
Fields that are not known are passed over, so that newer clients work.  An action that ends in
`_internal` is the plain one on system data: its path is taken below None.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING as NO_DEFAULT
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, get_args, get_type_hints

from kvedge.errors import BadRequest
from kvedge.model.entry import JOB_MAX_BYTES, Fence
from kvedge.model.path import SYSTEM, elements_of, key_of
from kvedge.model.value import MISSING, Malformed, Missing, pack, unpack, wire_path
from kvedge.protocol.codec import chain_head, is_number, is_text

DEPTH_UNBOUNDED = 1 << 31


# --- readers: one per kind of field -----------------------------------------------------------


def _count(given: Any) -> int:
    if type(given) is not int or given < -1:
        raise ValueError("is a whole number, -1 for all")
    return given


def _depth(given: Any) -> int:
    if given is None:
        return DEPTH_UNBOUNDED
    if type(given) is not int:
        raise ValueError("is a whole number or None")
    return given if given >= 0 else DEPTH_UNBOUNDED


def _flag(given: Any) -> bool:
    if given is not None and type(given) is not bool and given not in (0, 1):
        raise ValueError("is True or False")
    return bool(given)


def _text(given: Any) -> str:
    if not is_text(given):
        raise ValueError("is a text")
    return given


def _number(given: Any) -> int:
    if not is_number(given):
        raise ValueError("is a whole number from 0")
    return given


def _texts(given: Any) -> tuple[str, ...]:
    if not isinstance(given, tuple) or not all(map(is_text, given)):
        raise ValueError("is a list of texts")
    return given


def _fence(given: Any) -> Fence | None:
    if given is None:
        return None
    if isinstance(given, tuple) and len(given) == 2:
        job, number = given
        if is_text(job) and is_number(number) and 0 < len(job.encode()) <= JOB_MAX_BYTES:
            return Fence(job, number)
    raise ValueError(f"is a pair: a job's name of at most {JOB_MAX_BYTES} bytes, and a number")


PathKey = Annotated[bytes, wire_path]
Packed = Annotated[bytes, pack]
Head = Annotated[tuple[str, int] | None, chain_head]
Right = Annotated[Fence | None, _fence]
Count = Annotated[int, _count]
Depth = Annotated[int, _depth]
Flag = Annotated[bool, _flag]
Text = Annotated[str, _text]
Texts = Annotated[tuple[str, ...], _texts]
Number = Annotated[int, _number]

# --- requests ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class GetValue:
    """`get_value`: the value at a path, or of the entry a node changed at a tick."""

    path: PathKey | Missing = MISSING
    nchain: Count = 0
    node: Text | Missing = MISSING
    tick: Number | Missing = MISSING


@dataclass(frozen=True, slots=True)
class SetValue:
    """`set_value`: store; with `chain` or `prev` only where the entry is still that one.

    `chain` is the newest link as (node, shown tick), None where the place must be empty.
    `relaxed` answers when the record is with the disk, not on it.  `fence` is the right of a job,
    as (job, number): the write is refused where a higher one is known.
    """

    path: PathKey
    value: Packed
    chain: Head | Missing = MISSING
    prev: Packed | Missing = MISSING
    nchain: Count = 1
    idem: Flag = False
    relaxed: Flag = False
    fence: Right = None


@dataclass(frozen=True, slots=True)
class DeleteValue:
    """`delete_value`: as `set_value`, without a value."""

    path: PathKey
    chain: Head | Missing = MISSING
    prev: Packed | Missing = MISSING
    nchain: Count = 1
    fence: Right = None


@dataclass(frozen=True, slots=True)
class DeleteTree:
    """`delete_tree`: delete a place and all below; with `nchain` a stream of what went."""

    path: PathKey = b""
    nchain: Count = 0


@dataclass(frozen=True, slots=True)
class Enumerate:
    """`enum` or `enumerate`: the children of a place."""

    path: PathKey = b""
    with_data: Flag = False
    empty: Flag = False


@dataclass(frozen=True, slots=True)
class GetTree:
    """`get_tree`: a stream of a place and all below."""

    path: PathKey = b""
    nchain: Count = 0
    min_depth: Depth = 0
    max_depth: Depth = DEPTH_UNBOUNDED
    empty: Flag = False


@dataclass(frozen=True, slots=True)
class Watch:
    """`watch`: a stream of changes; with `fetch` the present state and a mark first."""

    path: PathKey = b""
    fetch: Flag = False
    nchain: Count = 0
    min_depth: Depth = 0
    max_depth: Depth = DEPTH_UNBOUNDED
    empty: Flag = False


@dataclass(frozen=True, slots=True)
class SetRoot:
    """`root`: paths of this connection are below this one from now on; returns its entry."""

    path: PathKey = b""
    nchain: Count = 0


@dataclass(frozen=True, slots=True)
class GetTock:
    """`get_tock`: the server's present tock."""


@dataclass(frozen=True, slots=True)
class GetState:
    """`get_state`: what the server has seen of whom."""

    nodes: Flag = False
    known: Flag = False
    superseded: Flag = False
    deleted: Flag = False
    missing: Flag = False
    present: Flag = False
    node_drop: Flag = False
    remote_missing: Flag = False
    debug: Flag = False


@dataclass(frozen=True, slots=True)
class NetStatus:
    """`net_status`: how the server stands in its network; without one its `name` is None."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """`traffic`: a stream of the messages between servers, as they pass this one."""


@dataclass(frozen=True, slots=True)
class Stop:
    """`stop`: end a stream of this connection, named by its seq."""

    task: Number


@dataclass(frozen=True, slots=True)
class Hello:
    """The answer to the greeting, with seq 0; clients of other make need not send it.

    `kvedge` lists the additions a client of ours knows.  `qlen` is the window of its streams:
    items then carry `wseq`, and the client acknowledges with `{seq, state: "ack", ack: wseq}`.
    """

    kvedge: Texts = ()
    qlen: Number = 0


Request = (
    GetValue | SetValue | DeleteValue | DeleteTree | Enumerate | GetTree | Watch
    | SetRoot | GetTock | GetState | NetStatus | Traffic | Stop
)  # fmt: skip

_ON_TREE: dict[str, type[Any]] = {
    "get_value": GetValue,
    "set_value": SetValue,
    "delete_value": DeleteValue,
    "delete_tree": DeleteTree,
    "enum": Enumerate,
    "enumerate": Enumerate,
    "get_tree": GetTree,
    "watch": Watch,
}
_INTERNAL_NAMES = {
    "get_internal": "get_value",
    "set_internal": "set_value",
    "delete_internal": "delete_value",
    "enum_internal": "enum",
    "get_tree_internal": "get_tree",
}
ACTIONS: Mapping[str, type[Any]] = _ON_TREE | {
    "root": SetRoot,
    "get_tock": GetTock,
    "get_state": GetState,
    "net_status": NetStatus,
    "traffic": Traffic,
    "stop": Stop,
}


def _reader(hint: Any) -> Callable[[Any], Any]:
    """Return the reader that a field's annotation carries."""
    parts = (hint, *get_args(hint))
    found: Callable[[Any], Any] = next(
        part.__metadata__[0] for part in parts if hasattr(part, "__metadata__")
    )
    return found


def _readers(kind: type[Any]) -> tuple[tuple[str, Callable[[Any], Any], bool], ...]:
    hints = get_type_hints(kind, include_extras=True)
    return tuple((f.name, _reader(hints[f.name]), f.default is NO_DEFAULT) for f in fields(kind))


_READERS = {kind: _readers(kind) for kind in {*ACTIONS.values(), Hello}}


def read(message: Mapping[Any, Any], root: bytes) -> Request:
    """Return the request in a decoded message, its path being a whole key.

    Args:
        message: The message.
        root: The key below which the client's paths lie; system data lies outside of it.

    Raises:
        BadRequest: The action is unknown, or a field is missing or of the wrong type.
        BadPath, BadValue, LimitExceeded: What a field holds cannot be used.
    """
    action = message.get("action")
    if not is_text(action):
        raise BadRequest(type(action).__name__, "it has no action")
    internal = action in _INTERNAL_NAMES
    kind = ACTIONS.get(_INTERNAL_NAMES.get(action, action))
    if kind is None:
        raise BadRequest(action[:40], f"there is no such action; there are {', '.join(ACTIONS)}")
    made: Request = _read_fields(kind, action, message)
    if isinstance(made, GetValue) and made.path is MISSING and MISSING in (made.node, made.tick):
        raise BadRequest(action, "it names neither a path nor a node and a tick")
    below = SYSTEM.key if internal else root
    return _moved(made, below) if below else made


_ACTION_OF = {SetValue: "set_value", DeleteValue: "delete_value"}


def written(request: SetValue | DeleteValue) -> dict[str, Any]:
    """Return the message of which `read` makes a request again."""
    message: dict[str, Any] = {"action": _ACTION_OF[type(request)]}
    for name, reader, _ in _READERS[type(request)]:
        value = getattr(request, name)
        if value is not MISSING:
            message[name] = _WRITERS.get(reader, _as_it_is)(value)
    return message


def _as_it_is(value: Any) -> Any:
    return value


def _link(head: tuple[str, int] | None) -> dict[str, Any] | None:
    return None if head is None else {"node": head[0], "tick": head[1]}


_WRITERS: Mapping[Callable[[Any], Any], Callable[[Any], Any]] = {
    wire_path: elements_of,
    pack: unpack,
    chain_head: _link,
}


def read_hello(message: Mapping[Any, Any]) -> Hello:
    """Return the answer to the greeting.

    Raises:
        BadRequest: It is none.
    """
    made: Hello = _read_fields(Hello, "hello", message)
    return made


def _read_fields(kind: type[Any], action: str, message: Mapping[Any, Any]) -> Any:
    values = {}
    for name, reader, required in _READERS[kind]:
        given = message.get(name, MISSING)
        if given is MISSING:
            if required:
                raise BadRequest(action, f"its field {name!r} is missing")
            continue
        if isinstance(given, Malformed) and reader is not pack:
            raise BadRequest(action, f"its field {name!r} is broken: {given.why}")
        try:
            values[name] = reader(given)
        except ValueError as error:
            if hasattr(error, "code"):  # one of ours says all there is to say
                raise
            raise BadRequest(action, f"its field {name!r} {error}") from error
    return kind(**values)


def _moved(request: Any, below: bytes) -> Any:
    """Return a request with its path, if it has one, taken below a key.

    Raises:
        LimitExceeded: The whole path is too long.
    """
    if getattr(request, "path", MISSING) is MISSING:
        return request
    return replace(request, path=key_of(elements_of(below + request.path)))
