"""The fork server: a small process that makes processes, and takes them down with it.

A process that has threads or an event loop must not fork: the child finds locks that nobody will
ever release.  So the agent forks once, first of all; this child stays single-threaded, sleeps in
poll(2), and forks on request.  Its children share the memory of all modules loaded so far, and
start in milliseconds.

    agent ── requests ──> fork server ── fork ──> runner (a process group of its own)
          <── reports ──

Nothing outlives the agent.  When its end of the request pipe closes, for whatever reason, the fork
server kills the process groups of its children and ends.  When the fork server itself dies, the
kernel kills its children (PR_SET_PDEATHSIG); what those have started is then left to the service
manager.

A SIGTERM, which a service manager may send to all processes of a service at once, is passed on to
the children; the fork server then waits for the agent to end as well, but makes no new ones.

Messages are tuples in msgpack behind a length of four bytes: requests (number, entry, options) and
(0, pid, signal); reports (number, pid) and (0, pid, status).
"""

from __future__ import annotations

import ctypes
import gc
import logging
import math
import os
import select
import signal
import struct
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, NoReturn

import anyio

from kvedge.clock import Clock, SystemClock
from kvedge.errors import Disconnected, LimitExceeded
from kvedge.model.value import decode, packb
from kvedge.runner.heartbeat import Heartbeat, Silence
from kvedge.runner.waiting import SleepUntil, one_error, sleeper

log = logging.getLogger(__name__)

Entry = Callable[[Mapping[str, Any]], int]
"""What a child does with its options; returns the exit code."""

MESSAGE_MAX_BYTES = 60_000
"""Less than a pipe holds: whoever writes does not wait for the reader."""

STOP_WITHIN_S = 10.0
"""How long a child may take to end when it is told to; then it is killed."""

PROVEN_AFTER_S = 60.0
"""A child that ran this long has shown that it can."""

RESTART_MAX_S = 30.0
_RESTART_FIRST_S = 0.1

SILENCE_MAX_S = 60.0
"""How long a child's heart may stand still, then it is killed.  Long: a card that dies may stop a
process for half a minute, and a child that can help itself does so earlier."""

_SILENCE_LOOKS = 6
_STDERR = 2
_SIGNALS = (signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, signal.SIGTERM)
_LENGTH = struct.Struct(">I")
_CRASHED = 70  # EX_SOFTWARE
_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
_PR_SET_NAME = 15


def restart_wait_s(failures: int) -> float:
    """Return how long to wait before a child is started again.

    Args:
        failures: How often in a row it ended too early.
    """
    return min(RESTART_MAX_S, _RESTART_FIRST_S * 2.0 ** min(failures - 1, 30))


def failures_after(failures: int, *, ran_s: float) -> int:
    """Return the number of failures in a row after another one."""
    return 1 if ran_s >= PROVEN_AFTER_S else failures + 1


# --- messages ---------------------------------------------------------------------------------


def _frame(message: tuple[Any, ...]) -> bytes:
    data = packb(message)
    if len(data) > MESSAGE_MAX_BYTES:
        size, limit = len(data), MESSAGE_MAX_BYTES
        raise LimitExceeded("the options of a process", actual=size, limit=limit, unit="bytes")
    return _LENGTH.pack(len(data)) + data


class _Frames:
    """Cuts bytes into messages.  Both ends are this program, so what comes is well formed."""

    def __init__(self) -> None:
        self._data = b""

    def receive(self, data: bytes) -> list[tuple[Any, ...]]:
        self._data += data
        messages = []
        while len(self._data) >= _LENGTH.size:
            end = _LENGTH.size + _LENGTH.unpack_from(self._data)[0]
            if len(self._data) < end:
                break
            messages.append(decode(self._data[_LENGTH.size : end]))
            self._data = self._data[end:]
        return messages


def _write(fd: int, message: tuple[Any, ...]) -> None:
    data = _frame(message)
    while data:
        data = data[os.write(fd, data) :]


# --- inside the fork server -------------------------------------------------------------------


class _Nursery:
    """The fork server's own side."""

    def __init__(self, requests: int, reports: int, entries: Mapping[str, Entry]) -> None:
        self._requests = requests
        self._reports = reports
        self._entries = entries
        self._children: set[int] = set()
        self._frames = _Frames()
        self._is_over = False
        self._kill_at_s: float | None = None  # set while it is ending
        self._clock = SystemClock()
        # Looked up before any fork, as the dynamic linker has a lock of its own.
        self._prctl = ctypes.CDLL(None, use_errno=True).prctl

    def serve(self) -> None:
        """Serve until the agent is gone, then kill all children."""
        self._prctl(_PR_SET_NAME, b"kv-forkserver", 0, 0, 0)
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # a terminal's; the agent acts on them
        woken, waker = os.pipe()
        for fd in (woken, waker):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, lambda *_: None)
        poller = select.poll()
        for fd in (woken, self._requests):
            poller.register(fd, select.POLLIN)
        while not self._is_over:
            ready = {fd for fd, _ in poller.poll(self._patience_ms())}
            if woken in ready:
                if signal.SIGTERM in os.read(woken, 512):
                    self._begin_end()
                self._reap()
            if self._requests in ready:
                self._receive()
            if self._patience_ms() == 0:
                self._kill_all()
        self._kill_all()

    def _begin_end(self) -> None:
        self._kill_at_s = self._clock.boottime_s() + STOP_WITHIN_S
        for pid in self._children:
            os.kill(pid, signal.SIGTERM)

    def _patience_ms(self) -> int | None:
        """Return how long children may still take to end; None for as long as they like."""
        if self._kill_at_s is None or not self._children:
            return None
        return max(0, math.ceil((self._kill_at_s - self._clock.boottime_s()) * 1000))

    def _receive(self) -> None:
        data = os.read(self._requests, MESSAGE_MAX_BYTES)
        self._is_over = not data
        for message in self._frames.receive(data):
            if message[0] == 0:
                self._signal(message[1], message[2])
            else:
                self._spawn(*message)

    def _signal(self, pid: int, number: int) -> None:
        if pid in self._children:  # not reaped, so the pid is still this child's
            os.kill(pid, number)
            if number == signal.SIGKILL:
                _kill_group(pid)

    def _spawn(self, number: int, entry: str, options: Mapping[str, Any]) -> None:
        if self._kill_at_s is not None:  # the agent was not told to end: it should know
            self._is_over = True
            return
        nursery = os.getpid()
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        pid = os.fork()
        if not pid:
            self._become(entry, options, nursery)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        self._children.add(pid)
        _write(self._reports, (number, pid))

    def _become(self, name: str, options: Mapping[str, Any], nursery: int) -> NoReturn:
        """Be a child: forget what the fork server is, and do what was asked."""
        code = _CRASHED
        try:
            # Signals are held back until here: a SIGTERM must not meet the handler of before.
            signal.set_wakeup_fd(-1)
            for number in _SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            os.setpgid(0, 0)
            self._prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() == nursery:  # else it died before the kernel knew our wish
                self._prctl(_PR_SET_NAME, f"kv-{name}".encode(), 0, 0, 0)
                close_all_but(())
                code = self._entries[name](options)
        except Exception:
            log.exception("process %d crashed", os.getpid())
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)  # threads that never end would hold up a usual end

    def _reap(self) -> None:
        while self._children:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            self._gone(pid, status)

    def _gone(self, pid: int, status: int) -> None:
        self._children.discard(pid)
        _kill_group(pid)  # what it has left behind
        try:
            _write(self._reports, (0, pid, os.waitstatus_to_exitcode(status)))
        except BrokenPipeError:
            self._is_over = True

    def _kill_all(self) -> None:
        for pid in self._children:
            _kill_group(pid)
            os.kill(pid, signal.SIGKILL)
        while self._children:
            self._gone(*os.waitpid(-1, 0))


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return  # there is nobody left in it, or it was not made yet


def close_all_but(kept: tuple[int, ...]) -> None:
    """Close all file descriptors but the standard ones and these."""
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 -- they are numbers, not files
        if int(name) > _STDERR and int(name) not in kept:
            _close(int(name))


def _close(fd: int) -> None:
    try:
        os.close(fd)
    except OSError:
        return  # it was the one of the listing


# --- inside the agent -------------------------------------------------------------------------


class Child:
    """A process that the fork server made.

    Attributes:
        pid: Its process id.
        is_wanted: False where nobody waited long enough to hear of it.
    """

    def __init__(self, server: ForkServer) -> None:
        self.pid = 0
        self.is_wanted = True
        self._server = server
        self._is_started = anyio.Event()
        self._is_gone = anyio.Event()
        self._status: int | None = None

    def started(self, pid: int) -> None:
        """Note that it runs."""
        self.pid = pid
        self._is_started.set()

    def gone(self, status: int | None) -> None:
        """Note that it ended; None where the fork server took its status with it."""
        self._status = status
        self._is_started.set()
        self._is_gone.set()

    async def begun(self) -> None:
        """Wait until it runs."""
        await self._is_started.wait()

    async def wait(self) -> int:
        """Wait until it has ended and return its exit code, or minus the signal that ended it.

        Raises:
            Disconnected: The fork server died, and the child with it.
        """
        await self._is_gone.wait()
        if self._status is None:
            raise Disconnected("the fork server is gone")
        return self._status

    def kill(self, number: int) -> None:
        """Send a signal; SIGKILL goes to its whole process group.  A dead one gets none."""
        self._server.kill(self.pid, number)


class ForkServer:
    """The fork server as the agent holds it.

    Make it before there is any thread or loop, then open it in the loop.
    """

    def __init__(self, entries: Mapping[str, Entry]) -> None:
        requests_in, self._requests = os.pipe()
        self._reports, reports_out = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        gc.collect()
        gc.freeze()  # what is loaded stays; the collector's marks would unshare its pages
        self.pid = os.fork()
        if not self.pid:
            _be_nursery(requests_in, reports_out, entries)
        os.close(requests_in)
        os.close(reports_out)
        os.set_blocking(self._reports, False)
        self._frames = _Frames()
        self._number = 0
        self._asked: dict[int, Child] = {}
        self._living: dict[int, Child] = {}
        self._is_open = True

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[ForkServer]:
        """Follow its reports while the block runs; afterwards all its children are dead.

        Raises:
            Disconnected: It died; the block was cancelled.
        """
        try:
            with one_error():
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._follow)
                    yield self
                    tasks.cancel_scope.cancel()
        finally:
            self.close()

    async def spawn(self, entry: str, options: Mapping[str, Any]) -> Child:
        """Start a process.  Where this is cancelled, the process is told to end.

        Args:
            entry: Which of the entries.
            options: What it is told; at most `MESSAGE_MAX_BYTES` when packed.

        Raises:
            Disconnected: The fork server is gone.
        """
        child = Child(self)
        self._number += 1
        self._asked[self._number] = child
        self._send((self._number, entry, dict(options)))
        try:
            await child.begun()
        finally:
            child.is_wanted = bool(child.pid)
        if not child.pid:
            raise Disconnected("the fork server is gone")
        return child

    def kill(self, pid: int, number: int) -> None:
        """Send a signal to a child, unless it is dead."""
        if pid in self._living:
            self._send((0, pid, number))

    def close(self) -> None:
        """End it with all its children, and wait for that."""
        if self._is_open:
            self._is_open = False
            os.close(self._requests)
            os.waitpid(self.pid, 0)
            os.close(self._reports)

    def _send(self, message: tuple[Any, ...]) -> None:
        try:
            _write(self._requests, message)
        except BrokenPipeError as error:
            raise Disconnected("the fork server is gone") from error

    async def _follow(self) -> None:
        while True:
            await anyio.wait_readable(self._reports)
            data = os.read(self._reports, MESSAGE_MAX_BYTES)
            if not data:
                self._lose()
                raise Disconnected("the fork server is gone")
            for message in self._frames.receive(data):
                self._take(*message)

    def _take(self, number: int, pid: int, status: int = 0) -> None:
        if number:
            child = self._living[pid] = self._asked.pop(number)
            child.started(pid)
            if not child.is_wanted:
                child.kill(signal.SIGTERM)
        else:
            self._living.pop(pid).gone(status)

    def _lose(self) -> None:
        for child in (*self._asked.values(), *self._living.values()):
            child.gone(None)
        self._asked.clear()
        self._living.clear()


def _be_nursery(requests: int, reports: int, entries: Mapping[str, Entry]) -> NoReturn:
    code = _CRASHED
    try:
        close_all_but((requests, reports))
        _Nursery(requests, reports, entries).serve()
        code = 0
    except Exception:
        log.exception("the fork server crashed")
    finally:
        sys.stderr.flush()
        os._exit(code)


async def keep_running(
    server: ForkServer,
    entry: str,
    options: Mapping[str, Any],
    *,
    clock: Clock,
    sleep_until: SleepUntil | None = None,
    heart: Heartbeat | None = None,
) -> None:
    """Run a process, and start it again when it ends, until cancelled; then it is told to end.

    Args:
        server: Who makes it.
        entry: Which of the entries of the fork server.
        options: What it is told.
        clock: The clock of the node.
        sleep_until: How to wait on that clock; None: really.
        heart: What it beats while it is well; when that stands still, it is killed.

    Raises:
        Disconnected: The fork server is gone.
    """
    wait_until = sleep_until or sleeper(clock)
    failures = 0
    while True:
        started_s = clock.boottime_s()
        child = await server.spawn(entry, options)
        log.info("the %s is process %d", entry, child.pid)
        try:
            with one_error():
                async with anyio.create_task_group() as tasks:
                    if heart is not None:
                        tasks.start_soon(_kill_when_silent, child, heart, clock, wait_until)
                    status = await child.wait()
                    tasks.cancel_scope.cancel()
        finally:
            await _stop(child)
        failures = failures_after(failures, ran_s=clock.boottime_s() - started_s)
        wait_s = restart_wait_s(failures)
        log.warning("the %s ended with %d; it starts again in %.1f s", entry, status, wait_s)
        await wait_until(clock.boottime_s() + wait_s)


async def _kill_when_silent(
    child: Child, heart: Heartbeat, clock: Clock, sleep_until: SleepUntil
) -> None:
    silence = Silence(_SILENCE_LOOKS)
    while not silence.is_long(heart.count):
        await sleep_until(clock.boottime_s() + SILENCE_MAX_S / _SILENCE_LOOKS)
    log.error("process %d shows no life for %g s; it is killed", child.pid, SILENCE_MAX_S)
    child.kill(signal.SIGKILL)


async def _stop(child: Child) -> None:
    """End a child that may still run: politely, then for certain."""
    with anyio.move_on_after(STOP_WITHIN_S, shield=True) as scope:
        child.kill(signal.SIGTERM)
        await child.wait()
    if scope.cancelled_caught:
        log.error("process %d does not end; it is killed", child.pid)
        child.kill(signal.SIGKILL)
