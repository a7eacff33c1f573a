"""The decisions on the way to the disk, as a table: what happened, what is done next."""

from __future__ import annotations

import pytest

from kvedge import limits
from kvedge.storage import commit_queue
from kvedge.storage.commit_queue import CommitQueue, Done, Outcome, Step, Submission

OK, UNDONE, DOUBT = Outcome.DONE, Outcome.UNDONE, Outcome.IN_DOUBT


def queue_of(*submissions: str) -> CommitQueue:
    queue = CommitQueue()
    submit(queue, *submissions)
    return queue


def submit(queue: CommitQueue, *submissions: str) -> None:
    """Submit "1d" (durable) or "2r" (relaxed)."""
    for text in submissions:
        number, durable = int(text[:-1]), text.endswith("d")
        queue.submit(Submission(number, text.encode(), vital=False, durable=durable))


def told(done: Done | None) -> str:
    """Return a report in short: written/synced, then what is refused, uncertain, wanted."""
    if done is None:
        return ""
    text = f"{done.written_to}/{done.synced_to}"
    if done.refused:
        text += f" refused {done.refused.first}-{done.refused.last}"
    if done.uncertain:
        text += f" limbo {done.uncertain.upto}"
    if done.snapshot is not None:
        text += f" snapshot {done.snapshot}"
    return text


def play(queue: CommitQueue, line: str, now_s: float = 0.0) -> str:
    """Do one thing: "+1d +2r" submits, "resume" resumes, "WRITE DONE" is a step and its outcome.

    Returns what was reported.
    """
    words = line.split()
    if words[0].startswith("+"):
        submit(queue, *(word[1:] for word in words))
        return ""
    if words[0] == "resume":
        queue.resume()
        return ""
    if words == ["-"]:
        assert queue.next_step(now_s) is None
        return ""
    step, outcome = Step[words[0]], Outcome[words[1]]
    assert queue.next_step(now_s) is step
    return told(queue.finish(step, outcome, now_s, why="why", snapshot=7))


TABLE = {
    "durable": [("+1d", ""), ("WRITE DONE", ""), ("SYNC DONE", "1/1"), ("-", "")],
    "relaxed is told when it is in the file": [("+1r", ""), ("WRITE DONE", "1/0"), ("-", "")],
    "a batch is everything that waits": [
        ("+1d +2r +3d", ""),
        ("WRITE DONE", "3/0"),
        ("SYNC DONE", "3/3"),
    ],
    "a durable one takes the relaxed ones before it along": [
        ("+1r", ""),
        ("WRITE DONE", "1/0"),
        ("+2d", ""),
        ("WRITE DONE", ""),
        ("SYNC DONE", "2/2"),
    ],
    "the sync comes before the next batch": [
        ("+1d", ""),
        ("WRITE DONE", ""),
        ("+2d", ""),
        ("SYNC DONE", "1/1"),
        ("WRITE DONE", ""),
        ("SYNC DONE", "2/2"),
    ],
    "a refused batch takes along what waits behind it": [
        ("+1d +2d", ""),
        ("WRITE DONE", ""),
        ("SYNC DONE", "2/2"),
        ("+3d +4r", ""),
        ("WRITE UNDONE", "2/2 refused 3-4"),
        ("-", ""),
    ],
    "what arrives before the owner knows of a refusal is dropped": [
        ("+1d", ""),
        ("WRITE UNDONE", "0/0 refused 1-1"),
        ("+2d", ""),
        ("-", ""),
        ("resume", ""),
        ("-", ""),
        ("+3d", ""),
        ("WRITE DONE", ""),
        ("SYNC DONE", "3/3"),
    ],
    "relaxed ones in the file survive a refusal": [
        ("+1r", ""),
        ("WRITE DONE", "1/0"),
        ("+2d", ""),
        ("WRITE UNDONE", "1/0 refused 2-2"),
        ("-", ""),
    ],
    "a failed sync is replayed": [
        ("+1r", ""),
        ("WRITE DONE", "1/0"),
        ("+2d", ""),
        ("WRITE DONE", ""),
        ("SYNC IN_DOUBT", ""),
        ("REPLAY DONE", "2/2"),
        ("-", ""),
    ],
    "a write that cannot be undone is replayed": [
        ("+1d", ""),
        ("WRITE IN_DOUBT", ""),
        ("REPLAY DONE", "1/1"),
    ],
    "a replay that fails leaves limbo": [
        ("+1d", ""),
        ("WRITE DONE", ""),
        ("+2d", ""),
        ("SYNC IN_DOUBT", ""),
        ("REPLAY IN_DOUBT", "1/0 refused 2-2 limbo 1"),
        ("-", ""),
    ],
    "in limbo everything new is refused": [
        ("+1d", ""),
        ("WRITE IN_DOUBT", ""),
        ("REPLAY IN_DOUBT", "0/0 limbo 1"),
        ("+2d +3d", ""),
        ("REFUSE DONE", "0/0 refused 2-3"),
        ("+4d", ""),
        ("resume", ""),
        ("+5d", ""),
        ("REFUSE DONE", "0/0 refused 5-5"),
        ("-", ""),
    ],
}


@pytest.mark.parametrize("story", TABLE.values(), ids=TABLE)
def test_story(story: list[tuple[str, str]]) -> None:
    queue = CommitQueue()
    for line, expected in story:
        assert play(queue, line) == expected, line


def test_batch_is_what_waits_and_a_replay_is_all_that_is_unsynced() -> None:
    queue = queue_of("1r")
    play(queue, "WRITE DONE")
    submit(queue, "2d")
    assert queue.next_step(0) is Step.WRITE
    assert queue.batch == [(b"2d", False)]
    queue.finish(Step.WRITE, Outcome.IN_DOUBT, 0)
    assert queue.next_step(0) is Step.REPLAY
    assert queue.batch == [(b"1r", False), (b"2d", False)]


def test_batch_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commit_queue, "BATCH_MAX_BYTES", 4)
    queue = queue_of("1d", "2d", "3d")
    assert queue.next_step(0) is Step.WRITE
    assert queue.batch == [(b"1d", False), (b"2d", False)]


def test_relaxed_payloads_are_synced_in_time() -> None:
    queue = queue_of("1r")
    play(queue, "WRITE DONE", now_s=100.0)
    submit(queue, "2r")
    play(queue, "WRITE DONE", now_s=100.5)
    deadline_s = queue.next_deadline_s()
    assert deadline_s is not None
    assert 100.0 < deadline_s < 100.0 + limits.RELAXED_DELAY_MAX_S, "from the first one on"
    assert queue.next_step(deadline_s - 0.01) is None
    assert play(queue, "SYNC DONE", now_s=deadline_s) == "2/2"
    assert queue.next_deadline_s() is None


def test_relaxed_payloads_are_synced_when_they_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commit_queue, "BATCH_MAX_BYTES", 4)
    queue = queue_of("1r", "2r")
    assert play(queue, "WRITE DONE") == "2/0"
    assert play(queue, "SYNC DONE") == "2/2"
    submit(queue, "3r")
    assert play(queue, "WRITE DONE") == "3/2"
    play(queue, "-")


def test_limbo_is_retried_each_second_and_told_once() -> None:
    queue = queue_of("1d")
    play(queue, "WRITE IN_DOUBT", now_s=10)
    assert play(queue, "REPLAY IN_DOUBT", now_s=10) == "0/0 limbo 1"
    assert queue.next_deadline_s() == 10 + commit_queue.LIMBO_RETRY_S
    assert queue.next_step(10.9) is None
    assert queue.next_step(11) is Step.REPLAY
    assert queue.finish(Step.REPLAY, Outcome.IN_DOUBT, 11, why="why") is None
    assert queue.next_step(11.9) is None
    assert play(queue, "REPLAY DONE", now_s=12) == "1/1"
    assert queue.next_deadline_s() is None


def test_snapshot_begins_when_everything_is_synced_even_while_more_waits() -> None:
    queue = queue_of("1r")
    play(queue, "WRITE DONE")
    queue.want_snapshot()
    submit(queue, "2d")
    assert play(queue, "SYNC DONE") == "1/1"
    assert play(queue, "CUT DONE") == "1/1 snapshot 7"
    play(queue, "WRITE DONE")


def test_one_snapshot_at_a_time() -> None:
    queue = CommitQueue()
    queue.want_snapshot()
    play(queue, "CUT DONE")
    queue.want_snapshot()
    play(queue, "-")
    queue.snapshot_finished()
    play(queue, "CUT DONE")


def test_closing_syncs_at_once() -> None:
    queue = queue_of("1r")
    play(queue, "WRITE DONE")
    play(queue, "-")
    queue.close()
    assert play(queue, "SYNC DONE") == "1/1"


def test_closing_tries_limbo_once_more_and_gives_up() -> None:
    queue = queue_of("1d")
    play(queue, "WRITE IN_DOUBT")
    play(queue, "REPLAY IN_DOUBT")
    queue.close()
    assert play(queue, "REPLAY IN_DOUBT", now_s=0.1) == "0/0 limbo 1"
    assert queue.next_step(100) is None


def test_refusal_says_why() -> None:
    queue = queue_of("1d")
    queue.next_step(0)
    done = queue.finish(Step.WRITE, Outcome.UNDONE, 0, why="disk full")
    assert done is not None
    assert done.refused is not None
    assert "disk full" in str(done.refused.error)
    assert done.refused.error.certain


def test_limbo_says_why_and_that_it_is_not_certain() -> None:
    queue = queue_of("1d")
    play(queue, "WRITE IN_DOUBT")
    queue.next_step(0)
    done = queue.finish(Step.REPLAY, Outcome.IN_DOUBT, 0, why="broken")
    assert done is not None
    assert done.uncertain is not None
    assert "broken" in str(done.uncertain.error)
    assert not done.uncertain.error.certain
    submit(queue, "2d")
    queue.next_step(0)
    done = queue.finish(Step.REFUSE, Outcome.DONE, 0)
    assert done is not None
    assert done.refused is not None
    assert "broken" in str(done.refused.error)
