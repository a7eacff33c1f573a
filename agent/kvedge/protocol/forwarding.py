"""Writes that one server asks another one to make: the bodies of such calls and their answers.

The question is the request as a client would send it; the answer is the reply as the client would
get it, and the record that was made, so that the asker has it when it answers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kvedge.errors import AgentError, LimitExceeded, RemoteProtocolError, from_wire, to_wire
from kvedge.limits import BROADCAST_MAX_BYTES
from kvedge.model.stamp import Rid
from kvedge.model.value import decode, packb
from kvedge.protocol.batches import (
    Carried,
    Writers,
    read_body,
    read_records,
    read_writers,
    record_parts,
)
from kvedge.protocol.messages import DeleteValue, SetValue, read, written

VERB = "write"
"""What such calls are named."""

BODY_MAX_BYTES = BROADCAST_MAX_BYTES - 1024
"""What fits into a message between servers, beside names and signature."""

Result = dict[str, Any] | AgentError
"""The fields of a reply, or what went wrong."""


def question(request: SetValue | DeleteValue) -> bytes:
    """Return the body of the call for a write.

    Raises:
        LimitExceeded: New and expected value together are too large for a message.
    """
    body = packb(written(request))
    if len(body) > BODY_MAX_BYTES:
        what = "a write that another node makes"
        raise LimitExceeded(what, actual=len(body), limit=BODY_MAX_BYTES, unit="bytes")
    return body


def read_question(body: bytes) -> SetValue | DeleteValue:
    """Return the write that is asked for.

    Raises:
        RemoteProtocolError: It is none.
    """
    try:
        request = read(_mapping(body), b"")
    except (AgentError, ValueError) as error:
        raise RemoteProtocolError(f"a call for a write cannot be read: {error}") from error
    if not isinstance(request, SetValue | DeleteValue):
        raise RemoteProtocolError("a call for a write is something else")
    return request


def answer(reply: bytes, record: Carried | None, bases: Callable[[Rid], int]) -> bytes:
    """Return the body of the answer: a packed reply, and the record at the place now.

    The value that was there before is left out where it does not fit beside the record.
    """
    writers = Writers()
    records = [] if record is None else [record_parts(record, writers, bases)]
    body = packb((reply, writers.listed, records))
    if len(body) > BODY_MAX_BYTES:
        fields = _mapping(reply)
        fields.pop("prev", None)
        body = packb((packb(fields), writers.listed, records))
    return body


def failure(error: AgentError) -> bytes:
    """Return the packed reply for a write that failed."""
    return packb({"failed": to_wire(error)})


def read_answer(body: bytes) -> tuple[Result, list[Carried], dict[Rid, int]]:
    """Return what came of a write, the record at its place, and the bases of its writers.

    Raises:
        RemoteProtocolError: It is none.
    """
    reply, listed, records = read_body(body, 3)[:3]
    writers = read_writers(listed)
    fields = _mapping(reply)
    carried = read_records(records, writers)
    failed = fields.get("failed")
    if isinstance(failed, dict):
        return from_wire(failed), carried, dict(writers)
    fields.pop("seq", None)
    return fields, carried, dict(writers)


def _mapping(packed: Any) -> dict[str, Any]:
    try:
        found = decode(packed)
    except (TypeError, ValueError) as error:
        raise RemoteProtocolError(f"a call cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise RemoteProtocolError("a call holds no map")
    return found
