"""Worlds for one test and for the session, their servers, and a browser."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from page_worlds import World, add_history, alarm_everywhere, serve, world_maker
from playwright.sync_api import Browser, sync_playwright


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Callable[..., World]]:
    """Makes worlds for one test."""
    yield from world_maker(tmp_path)


@pytest.fixture(scope="session")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., World]]:
    """Makes worlds for the session."""
    yield from world_maker(tmp_path_factory.mktemp("worlds"))


@pytest.fixture(scope="session")
def busy(worlds: Callable[..., World]) -> World:
    """A world with traffic, labels, a snapshot and a history; not to be changed."""
    made = worlds()
    add_history(made)
    made.take_snapshot()
    made.start_page_threads()
    return made


@pytest.fixture(scope="session")
def desk(worlds: Callable[..., World]) -> World:
    """A world without traffic, in which tests open alarms about slices of their own."""
    made = worlds(rows=0, labels=0)
    made.start_page_threads()
    return made


@pytest.fixture
def serving() -> Iterator[Callable[[FastAPI], str]]:
    """Serves applications for one test, and returns their addresses."""
    with ExitStack() as stack:
        yield lambda app: stack.enter_context(serve(app))


@pytest.fixture(scope="session")
def served(worlds: Callable[..., World], busy: World, desk: World) -> Iterator[dict[str, str]]:
    """Addresses of worlds of every kind."""
    kinds: dict[str, dict[str, Any]] = {
        "many": {"count": 200, "rows": 120},
        "quiet": {"rows": 0, "labels": 0},
        "unlabelled": {"labels": 0},
        "bare": {"count": 0},
        "new": {},
        "untrained": {"rows": 0, "labels": 0, "version": None},
    }
    made = {name: worlds(**values) for name, values in kinds.items()}
    alarm_everywhere(made["many"])
    for name, each in made.items():
        if name != "new":
            each.take_snapshot()
        each.start_page_threads()
    with ExitStack() as stack:
        addresses = {
            name: stack.enter_context(serve(each.app)) for name, each in {**made, "busy": busy, "desk": desk}.items()
        }
        first = desk.open_alarm("first")  # its acknowledgement starts the threads of the server
        form = {"data": {"by": "Ada"}, "headers": {"sec-fetch-site": "same-origin"}}
        assert httpx.post(f"{addresses['desk']}/alarms/{first.id}/acknowledge", **form).status_code == 303
        yield addresses


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, once for the module that uses it: while open, its event loop occupies the thread."""
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("needs chromium")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield launched
        launched.close()
