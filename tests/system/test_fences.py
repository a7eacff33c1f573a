"""Fences: a job whose right has passed to somebody else writes no more, as far as that is known."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kvedge.errors import FencedOff
from kvedge.testing.mosquitto import Mosquitto, mosquitto

pytestmark = pytest.mark.system

JOB = "any.radio"


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    """A broker of the test's own."""
    with mosquitto(tmp_path / "broker") as running:
        yield running


@pytest.fixture
def pair(new_server: Callable[..., Any], broker: Mosquitto) -> tuple[Any, Any]:
    """Two servers that know each other."""
    one, two = (new_server(name, node=name).start("--mqtt", broker.uri) for name in ("one", "two"))
    write(one, "x", 0)
    assert until(lambda: read(two, "x") == 0)
    write(two, "x", 1)
    assert until(lambda: read(one, "x") == 1)
    return one, two


def until(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + 20
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def read(server: Any, path: str) -> object:
    with server.connect() as client:
        found = client.get(path)
    return found.value if "value" in found else None


def write(server: Any, path: str, value: object, fence: int | None = None) -> None:
    with server.connect() as client:
        client.set(path, value, fence=None if fence is None else (JOB, fence))


def conflicts(server: Any) -> list[Any]:
    with server.connect() as client:
        return [item.value for item in client.get_tree(":.kv.conflict")]


def test_a_lower_fence_is_refused_where_a_higher_one_is_known(pair: tuple[Any, Any]) -> None:
    one, two = pair
    write(one, "door", "first", fence=5)
    write(one, "door", "second", fence=5)
    write(two, "lamp", "other", fence=7)
    assert until(lambda: read(one, f":n.fence.{JOB.replace('.', ':.')}") == 7)
    with pytest.raises(FencedOff, match="its fence 5 is below 7"):
        write(one, "door", "late", fence=5)
    assert read(one, "door") == "second"
    write(one, "door", "mine", fence=7)
    write(one, "door", "anybody")
    one.terminate()
    one.start()
    with pytest.raises(FencedOff):
        write(one, "door", "later", fence=6)


def test_a_late_write_of_a_split_is_told_and_not_undone(
    pair: tuple[Any, Any], broker: Mosquitto
) -> None:
    one, two = pair
    write(one, "door", "held", fence=1)
    broker.kill()
    with two.connect() as client:
        now = client.get("door").tock
    write(two, "elsewhere", 1, fence=now + 1)  # the right has passed to two, and one knows nothing
    write(one, "other", 1)
    write(one, "door", "late", fence=1)
    with one.connect() as client:
        assert client.get("door").tock > now + 1
    broker.start()
    assert until(lambda: any(c["kind"] == "fence" for c in conflicts(one)))
    (found,) = [c for c in conflicts(one) if c["kind"] == "fence"]
    assert found["path"] == ("door",)
    assert found["lost"]["value"] == "late"
    assert found["won"]["node"] == "two"
    assert until(lambda: read(two, "door") == read(one, "door") == "late")
