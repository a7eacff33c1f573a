"""`kv run`: what is stored, races, states and outputs of all nodes."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from kvedge.client.result import Result
from kvedge.client.sync import SyncClient
from kvedge.model.path import KV, P
from kvedge.runner.spec import CLOCK_WAIT, JobSpec, Missed
from kvedge.testing.transcripts import Outcome

Kv = Callable[..., Outcome]
JOB = P(":.kv.run.single.box.default.a")


def test_what_is_stored_is_what_a_runner_reads(kv_here: Kv, client: SyncClient) -> None:
    words = "run -n box set -c the.answer -t now -r 60 -d 1.5 -b 2 -k 10 -v x 1 -e y 1 a"
    assert kv_here(*words.split()).code == 0
    assert JobSpec.from_value(JOB, client.get(JOB).value) == JobSpec(
        code=P("the.answer"),
        data={"x": "1", "y": 1},
        target=0,
        repeat=60,
        delay=1.5,
        backoff=2,
        ok_after=10,
    )


def test_words_and_their_zone_are_stored_for_the_node(kv_here: Kv, client: SyncClient) -> None:
    words = ("-t", "2 tue 9 hr", "-r", "30 min", "--zone", "Mars/Olympus", "--missed", "skip")
    done = kv_here("run", "-n", "box", "set", "-c", "x", *words, "--timeout", "1m", "a")
    assert done.code == 0
    assert "note: zone 'Mars/Olympus': this machine knows no such time zone" in done.errors
    assert JobSpec.from_value(JOB, client.get(JOB).value) == JobSpec(
        code=P("x"),
        target="2 tue 9 hr",
        repeat="30 min",
        zone="Mars/Olympus",
        missed=Missed.SKIP,
        timeout=60,
    )
    assert kv_here("run", "-n", "box", "set", "--zone", "-", "a").code == 0
    assert client.get(JOB).value["zone"] is None


def test_list_tells_what_a_job_waits_for(kv_here: Kv, client: SyncClient) -> None:
    client.set(JOB, {"code": P("x"), "target": "12 hr"})
    state = KV + ("state", "single", "box", "default", "a")
    client.set(state, {"waits": CLOCK_WAIT})
    assert f"waiting: {CLOCK_WAIT}" in kv_here("run", "list").output
    client.set(state, {"computed": 4e9})
    (row,) = json.loads(kv_here("run", "list", "--json").output)
    assert (row["state"], row["next"]) == ("waiting", 4e9)


def test_set_keeps_what_is_not_given(kv_here: Kv, client: SyncClient) -> None:
    client.set(JOB, {"code": P("x"), "data": {"a": 1}, "delay": 7, "future": True})
    kv_here("run", "-n", "box", "set", "-r", "5", "-e", "b", "2", "a")
    value = client.get(JOB).value
    assert value["data"] == {"a": 1, "b": 2}
    assert (value["code"], value["delay"], value["repeat"]) == (P("x"), 7, 5)
    assert value["future"] is True


def test_set_is_not_lost_in_a_race(
    kv_here: Kv, client: SyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.set(JOB, {"code": P("x"), "delay": 7})
    get = SyncClient.get
    others = [8, 9]

    def get_and_lose(self: SyncClient, path: Any, *, nchain: int = 0) -> Result:
        found = get(self, path, nchain=nchain)
        if path == JOB and others:
            client.set(JOB, {"code": P("x"), "delay": others.pop(0)})
        return found

    monkeypatch.setattr(SyncClient, "get", get_and_lose)
    assert kv_here("run", "-n", "box", "set", "-r", "5", "a").code == 0
    monkeypatch.undo()
    assert not others
    assert client.get(JOB).value["delay"] == 9
    assert client.get(JOB).value["repeat"] == 5


def test_set_gives_up_against_a_busy_neighbour(
    kv_here: Kv, client: SyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    get = SyncClient.get

    def get_and_lose(self: SyncClient, path: Any, *, nchain: int = 0) -> Result:
        found = get(self, path, nchain=nchain)
        if path == JOB:
            client.set(JOB, {"code": P("x")})
        return found

    monkeypatch.setattr(SyncClient, "get", get_and_lose)
    done = kv_here("run", "-n", "box", "set", "-c", "x", "a")
    assert done.code == 1
    assert done.errors.startswith("kv: :.kv.run.single.box.default.a has changed: ")


def test_an_entry_that_is_no_job(kv_here: Kv, client: SyncClient) -> None:
    client.set(JOB, 5)
    client.set(KV + ("run", "some"), 1)
    client.set(P(":.kv.run.single.box.default.b"), {"code": P("x"), "delay": "long"})
    listed = {row["path"]: row for row in json.loads(kv_here("run", "list", "--json").output)}
    assert set(listed) == {"a", "b"}
    assert listed["a"]["state"] == listed["b"]["state"] == "invalid"
    assert "a map is wanted" in listed["a"]["problem"]
    assert "delay is 'long'" in kv_here("run", "list").output


STATE = {"started": 1, "stopped": 2, "reason": "done", "result": 3, "target": 0, "tock": 1 << 62}


def test_state(kv_here: Kv, client: SyncClient) -> None:
    client.set(JOB, {"code": P("x"), "target": 1})
    client.set(P(":.kv.state.single.box.default.a"), {**STATE, "target": 1})
    assert f"tock: {1 << 62}\n" in kv_here("run", "-n", "box", "state", "a").output
    state = json.loads(kv_here("run", "state", "a", "-n", "box", "--json").output)
    assert state == {**STATE, "target": 1, "tock": str(1 << 62)}
    (row,) = json.loads(kv_here("run", "list", "--json").output)
    assert (row["state"], row["result"], row["started"]) == ("done", 3, 1)


def test_a_job_of_all_nodes_has_a_state_for_each(kv_here: Kv, client: SyncClient) -> None:
    client.set(P(":.kv.run.all.g.a"), {"code": P("x"), "target": 1})
    for node, result in (("one", 1), ("two", 2)):
        value = {**STATE, "result": result, "target": 1}
        client.set(KV + ("state", "all", node, "g", "a"), value)
        client.set(KV + ("output", "all", node, "g", "a"), {"lines": [[9, node]], "dropped": 0})
    client.set(P(":.kv.state.all.one.other.a"), STATE)
    done = kv_here("run", "-n", "-", "-g", "g", "state", "a", "--json")
    assert {node: state["result"] for node, state in json.loads(done.output).items()} == {
        "one": 1,
        "two": 2,
    }
    rows = json.loads(kv_here("run", "list", "--json").output)
    assert [(row["node"], row["result"]) for row in rows] == [("one", 1), ("two", 2)]
    lines = kv_here("run", "-n", "-", "-g", "g", "log", "a", "--json").output.splitlines()
    assert [json.loads(line)["node"] for line in lines] == ["one", "two"]


def test_log(kv_here: Kv, client: SyncClient) -> None:
    client.set(JOB, {"code": P("x")})
    value = {"lines": [[0.5, "Forty-Two!"], [1.5, "again"]], "dropped": 7}
    client.set(P(":.kv.output.single.box.default.a"), value)
    done = kv_here("run", "-n", "box", "log", "a")
    assert [line[20:] for line in done.output.splitlines()] == ["Forty-Two!", "again"]
    assert done.errors == "kv: note: 7 earlier lines are not kept\n"


def test_log_goes_on_with_what_comes(
    kv_here: Kv, client: SyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.set(JOB, {"code": P("x")})
    place = P(":.kv.output.single.box.default.a")
    client.set(place, {"lines": [[1, "a"]], "dropped": 0})
    watch = SyncClient.watch

    def watch_a_little(self: SyncClient, *words: Any, **options: Any) -> Any:
        for result in watch(self, *words, **options):
            yield result
            if result.get("state") == "uptodate":
                client.set(place, {"lines": [[1, "a"], [2, "b"]], "dropped": 0})
            elif len(result.get("value", {}).get("lines", ())) > 1:
                raise KeyboardInterrupt

    monkeypatch.setattr(SyncClient, "watch", watch_a_little)
    done = kv_here("run", "-n", "box", "log", "-f", "a", "--json")
    assert [json.loads(line)["text"] for line in done.output.splitlines()] == ["a", "b"]
    assert done.code == 130


def test_info_tells_of_runners(kv_here: Kv, client: SyncClient) -> None:
    client.set(KV + ("runner", "single", "box", "default"), {"name": "kv agent", "pid": 1})
    client.set(JOB, {"code": P("x"), "target": 1})
    client.set(P(":.kv.state.single.box.default.a"), {"node": "box", "started": 1})
    assert json.loads(kv_here("run", "info", "--json").output) == [
        {
            "placement": "single",
            "node": "box",
            "group": "default",
            "jobs": 1,
            "running": 1,
            "runner": "kv agent",
        }
    ]


def test_help_for_who_forgot_the_node(kv_here: Kv, client: SyncClient) -> None:
    client.set(JOB, {"code": P("x")})
    for verb in ("get", "state", "delete", "log"):
        done = kv_here("run", verb, "a")
        assert done.code == 1
        assert done.errors == (
            "kv: a: there is no such job with these options, but one with `-n box`\n"
        )
