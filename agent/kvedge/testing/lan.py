"""A small network in memory: hosts in network namespaces, and a switch that delays and loses.

    with lan(seed=1) as net:
        a, b = net.host("a"), net.host("b")
        subprocess.Popen([*a.prefix, "some-server", "--listen", a.address])
        b.delay_s, b.loss = 0.05, 0.01
        b.is_cut = True   # as if its cable was pulled: it hears nothing, and is told nothing

Each host is a namespace with one interface, a TAP device whose other end is here: what the host
sends arrives as Ethernet frames in a thread that plays the switch.  So any kernel with namespaces
and TAP devices will do: no bridge, no netem, no firewall, and no program but those of util-linux.
The namespaces end with the processes that hold them; nothing is left behind, and the machine's own
network is neither used nor changed.  Unix sockets are reached from outside as ever.
"""

from __future__ import annotations

import fcntl
import heapq
import itertools
import os
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from random import Random

from kvedge.errors import NotConnected

_NET = "10.77.0"
_FRAME_MAX_BYTES = 2048
_HEADER_BYTES = 12  # of a frame: to whom, from whom
_HOSTS_MAX = 200
_DEVICE = b"lan0"
_READY_S = 10.0

_TUN = "/dev/net/tun"
_TUNSETIFF = 0x400454CA  # linux/if_tun.h
_IFF_TAP_NO_PI = 0x1002
_SIOCGIFFLAGS, _SIOCSIFFLAGS = 0x8913, 0x8914  # linux/sockios.h
_SIOCSIFADDR, _SIOCSIFNETMASK = 0x8916, 0x891C
_IFF_UP = 1


# Whoever is not root becomes somebody who may, in a namespace of users of the host's own.
_AS_USER = os.geteuid() != 0
_UNSHARE = ["unshare", "--net", *(["--user", "--map-current-user", "--keep-caps"] * _AS_USER)]
_ENTER = ["nsenter", "--net", *(["--user", "--preserve-credentials"] * _AS_USER)]


class Host:
    """A host of the network.

    Attributes:
        name: For people.
        address: Its IPv4 address; all hosts are in one network.
        prefix: Words to put in front of a command that is to run there; it keeps its pid.
        delay_s: What its cable delays each frame, in each direction.
        jitter_s: Up to so much more, drawn for each frame, so that frames overtake each other.
        loss: Chance that a frame is lost, in each direction.
        is_cut: Whether all are lost.
    """

    def __init__(self, name: str, address: str) -> None:
        self.name = name
        self.address = address
        self.delay_s = 0.0
        self.jitter_s = 0.0
        self.loss = 0.0
        self.is_cut = False
        self._near, far = socket.socketpair()
        with far:
            self._holder = subprocess.Popen(
                [*_UNSHARE, "--", sys.executable, "-m", __name__, str(far.fileno())],
                stdin=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=[far.fileno()],
                text=True,
            )
        self.prefix = [*_ENTER, f"--target={self._holder.pid}", "--"]
        self.device = self._made()

    def _made(self) -> int:
        """Have the interface made and return its other end.

        Raises:
            NotConnected: This kernel or this user may not.
        """
        self._near.settimeout(_READY_S)
        with suppress(OSError):
            self._near.sendall(self.address.encode())
            devices = socket.recv_fds(self._near, 16, 1)[1]
            if devices:
                return devices[0]
        self._near.close()
        self._holder.kill()
        _, said = self._holder.communicate()
        why = said.strip().rpartition("\n")[2] or "it ended without a word"
        raise NotConnected(
            f"host {self.name}",
            f"no network namespace with a TAP device can be made here ({why}); it takes root, or a "
            f"kernel that lets users have namespaces, and {_TUN}",
        )

    def close(self) -> None:
        """End the namespace; what still runs there has no network any more."""
        os.close(self.device)
        self._near.close()
        self._holder.communicate("")
        self._holder.wait()


class Lan:
    """The hosts and the switch between them, which learns who is where as any switch does."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)
        self._hosts: list[Host] = []
        self._places: dict[bytes, Host] = {}
        self._order = itertools.count()
        self._waiting: list[tuple[float, int, Host, bytes]] = []
        self._wake, self._waker = socket.socketpair()
        self._is_to_end = False
        self._thread = threading.Thread(target=self._switch, name="lan", daemon=True)
        self._thread.start()

    def host(self, name: str) -> Host:
        """Add a host.

        Raises:
            NotConnected: This kernel or this user may not.
        """
        assert len(self._hosts) < _HOSTS_MAX
        made = Host(name, f"{_NET}.{len(self._hosts) + 1}")
        os.set_blocking(made.device, False)
        self._hosts.append(made)
        self._waker.send(b"x")
        return made

    def close(self) -> None:
        """End the switch, then the hosts."""
        self._is_to_end = True
        self._waker.send(b"x")
        self._thread.join()
        for host in self._hosts:
            host.close()
        self._wake.close()
        self._waker.close()

    # --- the switch's thread ----------------------------------------------------------------

    def _switch(self) -> None:
        while not self._is_to_end:
            by_device = {host.device: host for host in self._hosts}
            wake = self._wake.fileno()
            ready, *_ = select.select([wake, *by_device], [], [], self._wait_s())
            for device in ready:
                if device == wake:
                    self._wake.recv(1024)
                else:
                    self._take(by_device[device])
            self._deliver(time.monotonic())

    def _wait_s(self) -> float | None:
        if not self._waiting:
            return None
        return max(0.0, self._waiting[0][0] - time.monotonic())

    def _take(self, sender: Host) -> None:
        with suppress(BlockingIOError):
            frame = os.read(sender.device, _FRAME_MAX_BYTES)
            to, origin = frame[:6], frame[6:_HEADER_BYTES]
            self._places[origin] = sender
            known = self._places.get(to)
            for receiver in [known] if known else self._hosts:
                if receiver is not sender:
                    self._carry(sender, receiver, frame)

    def _carry(self, sender: Host, receiver: Host, frame: bytes) -> None:
        due_s = time.monotonic()
        for cable in (sender, receiver):
            if cable.is_cut or self._random.random() < cable.loss:
                return
            due_s += cable.delay_s + cable.jitter_s * self._random.random()
        heapq.heappush(self._waiting, (due_s, next(self._order), receiver, frame))

    def _deliver(self, now: float) -> None:
        while self._waiting and self._waiting[0][0] <= now:
            *_, receiver, frame = heapq.heappop(self._waiting)
            if not receiver.is_cut:
                with suppress(OSError):  # its interface is full or down
                    os.write(receiver.device, frame)


@contextmanager
def lan(*, seed: int = 0) -> Iterator[Lan]:
    """Run a network while the block lasts; end what runs in it before.

    Args:
        seed: Of what is lost and how long it takes.
    """
    with ExitStack() as stack:
        net = Lan(seed)
        stack.callback(net.close)
        yield net


# --- in the namespace ----------------------------------------------------------------------------


def _hold(channel: socket.socket) -> None:
    """Make the interface, hand it over, and keep the namespace until told to end."""
    address = channel.recv(64).decode()
    device = os.open(_TUN, os.O_RDWR)
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", _DEVICE, _IFF_TAP_NO_PI))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        for request, number in ((_SIOCSIFADDR, address), (_SIOCSIFNETMASK, "255.255.255.0")):
            wanted = struct.pack("HH4s8x", socket.AF_INET, 0, socket.inet_aton(number))
            fcntl.ioctl(any_socket, request, struct.pack("16s16s8x", _DEVICE, wanted))
        for name in (b"lo", _DEVICE):
            told = fcntl.ioctl(any_socket, _SIOCGIFFLAGS, struct.pack("16sH22x", name, 0))
            flags = struct.unpack("16sH22x", told)[1] | _IFF_UP
            fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sH22x", name, flags))
    socket.send_fds(channel, [b"x"], [device])
    os.close(device)
    sys.stdin.read()


if __name__ == "__main__":
    _hold(socket.socket(fileno=int(sys.argv[1])))
