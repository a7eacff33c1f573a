"""Each story holds, with every seed."""

from __future__ import annotations

import pytest

from kvedge.testing.sim.stories import STORIES, Story


@pytest.mark.slow
@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
def test_a_story_holds(story: Story) -> None:
    story(1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 12))
def test_short_stories_hold_with_other_delays(seed: int) -> None:
    long = {"crash_at_each_operation", "crash_at_each_event", "daily_restarts", "a_crash_loop"}
    for story in STORIES:
        if story.__name__ not in long:
            story(seed)
