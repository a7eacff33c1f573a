"""Boards that come back with less, twice, or after they were given up: nothing diverges."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kvedge.testing.mosquitto import Mosquitto, mosquitto

pytestmark = pytest.mark.system

PATIENCE_S = 25.0


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    """A broker of the test's own."""
    with mosquitto(tmp_path / "broker") as running:
        yield running


@pytest.fixture
def start(new_server: Callable[..., Any], broker: Mosquitto) -> Callable[..., Any]:
    """Returns a running server of a node."""

    def start(node: str, place: str | None = None) -> Any:
        return new_server(place or node, node=node).start("--mqtt", broker.uri)

    return start


def held(server: Any, path: str = ":") -> dict[str, object]:
    with server.connect() as client:
        found = client.get_tree(path)
        return {str(i.path): i.value for i in found if not str(i.path).startswith(":.kv")}


def until(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


def write(server: Any, path: str, value: object) -> None:
    with server.connect() as client:
        client.set(path, value)


def test_an_old_image_brings_nothing_back(start: Callable[..., Any], broker: Mosquitto) -> None:
    one, two = start("one"), start("two")
    write(one, "kept", 1)
    write(one, "deleted", 1)
    assert until(lambda: held(two) == {"kept": 1, "deleted": 1})
    two.terminate()
    image = two.home / "image"
    shutil.copytree(two.data, image)
    two.start("--mqtt", broker.uri)
    write(two, "later", 2)
    with one.connect() as client:
        client.delete("deleted")
    assert until(lambda: held(two) == {"kept": 1, "later": 2})
    assert until(lambda: held(one) == {"kept": 1, "later": 2})
    two.terminate()  # which tells what it has stored

    shutil.rmtree(two.data)
    image.rename(two.data)
    two.start("--mqtt", broker.uri)
    assert until(lambda: "takes a whole copy" in two.log())
    assert until(lambda: held(two) == {"kept": 1, "later": 2})
    write(two, "again", 3)
    assert until(lambda: held(one) == held(two) == {"kept": 1, "later": 2, "again": 3})
    assert any(two.data.glob("*.aside"))


def test_a_server_without_a_disk_comes_back_with_nothing(
    start: Callable[..., Any], new_server: Callable[..., Any], broker: Mosquitto
) -> None:
    one, two = start("one"), start("two")
    write(two, "a", 1)
    assert until(lambda: held(one) == {"a": 1})
    two.kill()
    shutil.rmtree(two.data)
    two.start("--mqtt", broker.uri)
    write(two, "b", 2)  # at once, before anybody was heard
    assert until(lambda: held(one) == held(two) == {"a": 1, "b": 2})


def test_of_two_under_one_name_one_gives_way(
    start: Callable[..., Any], new_server: Callable[..., Any], broker: Mosquitto
) -> None:
    one, two = start("one"), start("two")
    write(two, "a", 1)
    assert until(lambda: held(one) == {"a": 1})
    two.terminate()
    clone = new_server("clone", node="two")
    shutil.copytree(two.data, clone.data)
    broker.stop()
    two.start("--mqtt", broker.uri)
    clone.start("--mqtt", broker.uri)
    write(two, "of.two", 1)
    write(clone, "of.clone", 1)
    broker.start()
    assert until(lambda: two.has_ended() or clone.has_ended())
    older, younger = (two, clone) if two.has_ended() else (clone, two)
    assert older.ended() == 78
    everything = {"a": 1, "of.two": 1, "of.clone": 1}
    assert until(lambda: held(one) == held(younger) == everything)
    code, said = older.refused("--mqtt", broker.uri)
    assert code == 78
    assert "--take-name" in said


def test_an_expired_member_takes_a_copy(start: Callable[..., Any], broker: Mosquitto) -> None:
    one, two = start("one"), start("two")
    write(one, "a", 1)
    write(one, "b", 1)
    assert until(lambda: held(two) == {"a": 1, "b": 1})
    two.terminate()
    write(one, ":n.member.two", {"state": "expired", "by": "one", "reason": "by hand"})
    with one.connect() as client:
        client.delete("b")
    two.start()
    write(two, "new", 2)
    two.terminate()
    two.start("--mqtt", broker.uri)
    assert until(lambda: held(two) == held(one) == {"a": 1, "new": 2})
    assert any(two.data.glob("unsynced-*.dump"))
