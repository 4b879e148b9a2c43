"""The page of the FastAPI example, in a real browser and by its API: two users see only their own syncs."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.e2e.browser import CHROMIUM, chromium

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.browser import Browser

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="Debian's package chromium is not installed")

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "fastapi_app" / "run.py"
SECONDS = 60.0


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    """The example as its README starts it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PORT": str(port)}
    with subprocess.Popen([sys.executable, str(EXAMPLE)], env=environment, stdout=subprocess.PIPE) as server:
        try:
            url = f"http://127.0.0.1:{port}"
            deadline = time.monotonic() + SECONDS
            while True:
                try:
                    httpx.get(url).raise_for_status()
                    break
                except httpx.HTTPError:
                    assert server.poll() is None
                    assert time.monotonic() < deadline
                    time.sleep(0.05)
            yield url
        finally:
            server.terminate()
            server.wait(SECONDS)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One Chromium for all tests."""
    with chromium() as running:
        yield running


@pytest.fixture
def signed_in(site: str) -> Iterator[dict[str, httpx.Client]]:
    """Two users, each with the cookies of a browser of their own."""
    with ExitStack() as open_clients:
        users = {}
        for name in ("Zoe", "Max"):
            users[name] = open_clients.enter_context(httpx.Client(base_url=site, follow_redirects=True))
            users[name].get(f"/sign-in/{name}").raise_for_status()
        yield users


def test_without_signing_in_there_is_nothing(site: str) -> None:
    assert httpx.get(f"{site}/jobs").status_code == 401
    assert httpx.post(f"{site}/jobs?source=photos").status_code == 401


def test_a_token_that_is_none_is_refused(site: str) -> None:
    answer = httpx.get(f"{site}/jobs", cookies={"access_token": "eyJhbGciOiJIUzI1NiJ9.e30.AAAA"})
    assert answer.status_code == 401


def test_what_one_user_started_does_not_exist_for_the_other(signed_in: dict[str, httpx.Client]) -> None:
    zoe, max_ = signed_in["Zoe"], signed_in["Max"]
    job = zoe.post("/jobs?source=calendar").json()
    assert job["id"] in [seen["id"] for seen in zoe.get("/jobs").json()]
    assert job["id"] not in [seen["id"] for seen in max_.get("/jobs").json()]
    for method, path in (("GET", "events"), ("POST", "cancel"), ("POST", "retry")):
        assert max_.request(method, f"/jobs/{job['id']}/{path}").status_code == 404
    assert zoe.post("/jobs?source=calendar").json()["id"] == job["id"]  # pressed twice: one sync
    assert max_.post("/jobs?source=calendar").json()["id"] != job["id"]
    assert zoe.post(f"/jobs/{job['id']}/cancel").json()["status"] == "cancelled"


def test_the_events_end_with_the_sync(signed_in: dict[str, httpx.Client]) -> None:
    zoe = signed_in["Zoe"]
    job = zoe.post("/jobs?source=contacts").json()
    with zoe.stream("GET", f"/jobs/{job['id']}/events", timeout=SECONDS) as stream:
        events = [json.loads(line.removeprefix("data: ")) for line in stream.iter_lines() if line]
    assert [event["status"] for event in events][-1] == "completed"
    done = [event["completed_chunks"] for event in events]
    assert done == sorted(done)
    assert done[-1] == 24


@needs_chromium
def test_a_user_starts_syncs_and_sees_them_end(site: str, browser: Browser, tmp_path: Path) -> None:
    pictures = Path(os.environ.get("PICTURES", tmp_path))
    with browser.tab() as ada, browser.tab() as grace:
        ada.open(site)
        ada.until("document.body.innerText.includes('Sign in to see your syncs')")
        seen = "[...document.querySelectorAll('button')].filter(button => button.checkVisibility()).length"
        assert ada.evaluate(seen) == 0
        ada.picture(pictures / "page-signed-out.png")
        ada.open(f"{site}/sign-in/Ada")
        ada.until(f"{seen} == 3")
        ada.click("[data-source=photos]")
        ada.click("[data-source=contacts]")
        ada.until("document.querySelectorAll('article.running').length == 2")
        ada.until("[...document.querySelectorAll('progress')].every(bar => bar.value > 10)")
        ada.picture(pictures / "page-running.png")

        grace.open(f"{site}/sign-in/Grace")
        grace.until("document.body.innerText.includes('Signed in as Grace')")
        grace.until("!document.getElementById('sources').hidden")
        assert "photos" not in grace.text().lower().replace("sync photos", "")

        ada.until("document.querySelector('article.completed')?.innerText.includes('24 of 24 chunks')")
        ada.until("document.querySelector('article.failed')?.innerText.includes('photo 33 is no picture')")
        ada.picture(pictures / "page-ended.png")
        lost = "getComputedStyle(document.querySelector('article.{} progress')).getPropertyValue('--lost')"
        assert float(ada.evaluate(lost.format("failed")).rstrip("%")) > 0  # red, and not green
        assert ada.evaluate(lost.format("completed")) == "0%"
        labels = "[...document.querySelectorAll('progress')].map(bar => bar.ariaLabel).sort()"
        assert ada.evaluate(labels)[0] == "contacts: completed, 0 failed"
        ada.click("article.failed .act")
        ada.until("performance.getEntriesByType('resource').some(({ name }) => name.endsWith('/retry'))")
        ada.until("document.querySelector('article.failed')")  # that photo is still no picture
        ada.click("[data-source=calendar]")
        ada.click("article.running .act, article.pending .act")
        ada.until("document.querySelector('article.cancelled')")
        assert not ada.errors
        assert not grace.errors
