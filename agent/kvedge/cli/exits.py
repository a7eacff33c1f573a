"""How a command ends: one exit code per family of errors, one place that prints them.

0 done; 1 the operation failed; 2 wrong usage; 3 nobody reachable; 4 not allowed; 130 interrupted.
An error is one line, `kv: MESSAGE`, and where there is a way out a second line that says it; with
`--json` one object.  Tracebacks are for `-vv`.

This module is on the path of every short command: it imports no more than it must.
"""

from __future__ import annotations

import os
import sys

from kvedge.cli.output import to_json
from kvedge.errors import (
    AccessError,
    AgentError,
    AuthRequired,
    ChainMismatch,
    Disconnected,
    LinkError,
    NameTaken,
    NotConnected,
    ServerFailure,
    UsageError,
    to_wire,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

DONE = 0
FAILED = 1
USAGE = 2
UNREACHABLE = 3
DENIED = 4
NAME_TAKEN = 78  # EX_CONFIG of sysexits.h: the service manager is told not to try again
INTERRUPTED = 130  # 128 + SIGINT, as shells have it

_FAMILIES: tuple[tuple[type[BaseException], int], ...] = (
    (UsageError, USAGE),
    (NameTaken, NAME_TAKEN),
    (AccessError, DENIED),
    (LinkError, UNREACHABLE),
    (KeyboardInterrupt, INTERRUPTED),
)

_HINTS: tuple[tuple[type[AgentError], str], ...] = (
    (
        NotConnected,
        "Is the server running?  Start one with `kv server NAME` or `kv agent`; "
        "name another one with -s SOCKET or -h HOST.",
    ),
    (Disconnected, "Look at the server's log for the reason, then try again."),
    (AuthRequired, "Log in with `kv -a 'METHOD name=NAME' ...` or KV_AUTH."),
    (ChainMismatch, "It is not what you took it for: read it again, then decide."),
    (
        NameTaken,
        "Give one of the two another name and an empty directory; or, if the other one is gone, "
        "start this one with --take-name.",
    ),
    (ServerFailure, "The server's log says more."),
)
_HINT_SOCKET = (
    "You may not open the server's socket.  Join its group with "
    "`sudo adduser $USER kv`, then log in anew."
)


def exit_code(error: BaseException) -> int:
    """Return the exit code for an error."""
    if _is_denied(error):
        return DENIED
    for family, code in _FAMILIES:
        if isinstance(error, family):
            return code
    return FAILED


def hint(error: BaseException) -> str | None:
    """Return the way out of an error, None where the message says it or there is none."""
    if _is_denied(error):
        return _HINT_SOCKET
    for kind, text in _HINTS:
        if isinstance(error, kind):
            return text
    return None


def _is_denied(error: BaseException) -> bool:
    """Tell whether a server's socket is there, and this user may not open it."""
    if not isinstance(error, NotConnected):
        return False
    return isinstance(error.__cause__, PermissionError) or "ermission denied" in error.why


def report(error: BaseException, *, json: bool, verbose: int) -> int:
    """Say on standard error what went wrong and return the exit code.

    Args:
        error: What ended the command.
        json: Whether to say it as JSON.
        verbose: From 2 on with the traceback.
    """
    if isinstance(error, BrokenPipeError):
        return _reader_is_gone()
    if verbose >= 2:
        sys.__excepthook__(type(error), error, error.__traceback__)
    elif isinstance(error, KeyboardInterrupt):
        sys.stderr.write("\n")  # behind the ^C that the terminal shows
    else:
        sys.stderr.write(_as_json(error) if json else _as_text(error))
    return exit_code(error)


def _as_text(error: BaseException) -> str:
    more = hint(error)
    return f"kv: {message(error)}\n" + (f"    {more}\n" if more else "")


def _as_json(error: BaseException) -> str:
    fields = to_wire(error) if isinstance(error, AgentError) else {"error": message(error)}
    fields.setdefault("etype", type(error).__name__)
    more = hint(error)
    return to_json({**fields, "hint": more} if more else fields) + "\n"


def message(error: BaseException) -> str:
    """Return what an error says, on one line."""
    if isinstance(error, OSError) and not isinstance(error, AgentError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    else:
        text = str(error) or type(error).__name__
    return " ".join(text.splitlines())


def _reader_is_gone() -> int:
    """End quietly: nobody wants the rest, as in `kv data monitor | head`."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 1)  # else the interpreter complains when it flushes at its end
    os.close(devnull)
    return DONE


def unexpected(
    kind: type[BaseException], error: BaseException, _traceback: TracebackType | None
) -> None:
    """Say on one line what a defect of ours is; stands in for `sys.excepthook`."""
    sys.stderr.write(
        f"kv: defect in this program: {kind.__name__}: {message(error)}\n"
        "    Please report it, with what `kv -vv ...` prints.\n"
    )
