"""Several processes at once: totals are exact, and nothing is left behind, however they came to be."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes_scene import Actor, Scene

METHODS = ["fork", "spawn", "forkserver"]


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(params=["private", "named"])
def either(request: pytest.FixtureRequest, scene: Scene) -> Scene:
    """A scene on a private bus, and one on a bus that all name."""
    if request.param == "named":
        scene.name_bus()
    return scene


def end(scene: Scene, actor: Actor) -> None:
    """The program ends without a word, and takes its private bus with it."""
    actor.end()
    assert scene.left_behind() == []


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["process", "nested", "pool", "executor"])
def test_workers_of_multiprocessing(either: Scene, kind: str, method: str) -> None:
    actor = either.run("multi.py", kind, method)
    shown = actor.hear()
    expected = shown["expected"]
    assert shown["totals"] == dict.fromkeys(["module", "argument", "queued"], expected)
    # The parent itself emitted nothing.
    either.settled(shown["bus"], alive=set(), delivered=3 * expected)
    end(either, actor)
