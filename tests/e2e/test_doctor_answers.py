"""`supabase-chunks doctor`: what it finds when functions, webhooks or the project itself answer with a failure."""

from __future__ import annotations

import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from supabase_chunks import assets
from supabase_chunks.local import LocalStack
from tests.e2e.patient import Patient
from tests.polling import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Front(ThreadingHTTPServer):
    """What stands before a project and answers for it: with the status that it is told."""

    status = 503

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), FrontAnswer)
        self.url = f"http://127.0.0.1:{self.server_port}"


class FrontAnswer(BaseHTTPRequestHandler):
    """One of its answers."""

    server: Front

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers["content-length"] or 0))
        self.send_response(self.server.status)
        self.send_header("location", "https://example.com/")
        self.send_header("content-length", "0")
        self.end_headers()

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def front() -> Iterator[Front]:
    """One that runs."""
    with Front() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(scope="module")
def patient() -> Iterator[Patient]:
    """A whole project, healthy at the start of each test."""
    with LocalStack() as stack:
        yield Patient(stack)


@pytest.mark.parametrize("status", [500, 503, 540])
def test_the_project_is_in_trouble(patient: Patient, front: Front, status: int) -> None:
    front.status = status
    patient.finds("database", "is in trouble", "in a minute", SUPABASE_URL=front.url)


@pytest.mark.parametrize(
    ("status", "words"),
    [(200, "not answer as a project"), (301, "project's own address"), (404, "not answer as a project")],
)
def test_something_else_answers(patient: Patient, front: Front, status: int, words: str) -> None:
    front.status = status
    patient.finds("database", words, "SUPABASE_URL=", SUPABASE_URL=front.url)


@pytest.mark.parametrize(
    ("status", "fix"),
    [
        (403, "with a key that the functions accept"),
        (404, "functions deploy background-sync-processor"),
        (500, "logs of background-sync-processor"),
        (503, "logs of background-sync-processor"),
    ],
)
def test_webhooks_are_answered_with_a_failure(patient: Patient, front: Front, status: int, fix: str) -> None:
    front.status = status
    patient.client.configure(front.url, patient.stack.secret_key)
    job = patient.client.trigger_sync("email", payload={"account": "nobody"})

    def answered() -> object:
        patient.client.cleanup_stuck_chunks()
        return not patient.examine()[1]["webhooks"]["ok"]

    try:
        until(answered)
        patient.finds("webhooks", f"HTTP {status}", fix, also="jobs")
    finally:
        job.cancel()
        patient.client.configure(patient.stack.url, patient.stack.secret_key)
        assert patient.examine()[0] == 0  # what a cancelled job complained of is forgotten


def test_a_webhook_is_lost_with_what_pg_net_had_to_send(patient: Patient) -> None:
    patient.stack.set_webhooks(drop=1.0)
    job = patient.client.trigger_sync("email", payload={"account": "nobody"})
    try:
        # Five minutes later, which is when the watchdog stops expecting an answer.
        for entry in (
            "chunk_private.dispatches set created_at = created_at",
            "vault.secrets set updated_at = updated_at",
        ):
            patient.execute(f"update {entry} - interval '6 minutes'")

        def noticed() -> bool:
            patient.client.cleanup_stuck_chunks()
            return not patient.examine()[1]["webhooks"]["ok"]

        until(noticed)
        webhooks = patient.examine()[1]["webhooks"]
        assert "kept no answer" in webhooks["detail"]
        assert webhooks["fix"] == "select net.worker_restart();"
    finally:
        patient.stack.set_webhooks(drop=0.0)
        job.cancel()
        assert patient.examine()[0] == 0  # what a cancelled job complained of is forgotten


def test_webhooks_go_nowhere_and_a_job_waits(patient: Patient) -> None:
    patient.client.configure("http://127.0.0.1:9", patient.stack.secret_key)
    job = patient.client.trigger_sync("email", payload={"account": "nobody"})

    def answered() -> object:
        patient.client.cleanup_stuck_chunks()
        return not patient.examine()[1]["webhooks"]["ok"]

    try:
        until(answered)
        patient.finds("webhooks", "the last one failed", "configure --project-url", also="jobs")
        until(lambda: not patient.examine("--max-wait", "0s")[1]["claims"]["ok"])
        claims = patient.examine("--max-wait", "0s")[1]["claims"]
        assert "waiting for a worker" in claims["detail"]
        assert "supabase-chunks cleanup" in claims["fix"]
        jobs = patient.examine()[1]["jobs"]
        assert f"{job.id} (email) is stalled" in jobs["detail"]
        assert jobs["fix"] == f"supabase-chunks status {job.id}"
    finally:
        job.cancel()
        patient.client.configure(patient.stack.url, patient.stack.secret_key)
        assert patient.examine()[0] == 0  # what a cancelled job complained of is forgotten


def test_webhooks_carry_a_key_that_is_refused(patient: Patient) -> None:
    patient.client.configure(patient.stack.url, "sb_secret_of_yesterday")
    job = patient.client.trigger_sync("email", payload={"account": "nobody"})

    def answered() -> object:
        patient.client.cleanup_stuck_chunks()
        return not patient.examine()[1]["webhooks"]["ok"]

    try:
        until(answered)
        patient.finds("webhooks", "HTTP 401", "supabase-chunks configure", also="jobs")
    finally:
        job.cancel()
        patient.client.configure(patient.stack.url, patient.stack.secret_key)
        assert patient.examine()[0] == 0  # what a cancelled job complained of is forgotten


class TestFunctions:
    """What can be wrong with deployed functions, each served for real."""

    @staticmethod
    def _deployed(folder: Path) -> Path:
        copy = folder / "functions"
        shutil.copytree(assets.functions_dir(), copy, ignore=shutil.ignore_patterns("node_modules"))
        return copy

    def test_the_processor_is_not_deployed(self, tmp_path: Path) -> None:
        functions = self._deployed(tmp_path)
        shutil.rmtree(functions / "background-sync-processor")
        with LocalStack(functions=functions) as stack:
            name = "function background-sync-processor"
            Patient(stack).finds(name, "not deployed", "functions deploy background-sync-processor")

    def test_a_function_is_of_another_version_and_another_one_fails(self, tmp_path: Path) -> None:
        functions = self._deployed(tmp_path)
        (functions / "_shared" / "version.ts").write_text('export const VERSION = "0.0.9";\n')
        (functions / "sync-emails" / "index.ts").write_text(
            'export default { fetch: () => new Response("no", { status: 500 }) };\n'
        )
        with LocalStack(functions=functions) as stack:
            code, checks = Patient(stack).examine()
            assert code == 1
            processor, handler = checks["function background-sync-processor"], checks["function sync-emails"]
            assert "version 0.0.9" in processor["detail"]
            assert "functions deploy background-sync-processor" in processor["fix"]
            assert "HTTP 500" in handler["detail"]

    def test_something_else_is_deployed_in_its_place_and_a_handler_hangs(self, tmp_path: Path) -> None:
        functions = self._deployed(tmp_path)
        for name, answer in (
            ("background-sync-processor", 'new Response("Hello from Functions!")'),
            ("sync-emails", "new Promise(() => {})"),
            ("sync-orders", 'new Response("no chunk_id", { status: 422 })'),
        ):
            (functions / name).mkdir(exist_ok=True)
            (functions / name / "index.ts").write_text(f"export default {{ fetch: () => {answer} }};\n")
        with LocalStack(functions=functions) as stack:
            patient = Patient(stack)
            patient.client.save_kind("orders", handler="sync-orders")
            code, checks = patient.examine("--max-answer", "0.5s")
            assert code == 1
            processor, handler = checks["function background-sync-processor"], checks["function sync-emails"]
            assert "another function" in processor["detail"]
            assert "functions deploy background-sync-processor" in processor["fix"]
            assert "does not answer" in handler["detail"]
            assert "logs" in handler["fix"]
            # One of the user's own that knows nothing of probes is well.
            assert checks["function sync-orders"]["ok"]

    def test_a_function_refuses_the_key(self, tmp_path: Path) -> None:
        functions = self._deployed(tmp_path)
        (functions / "sync-emails" / "index.ts").write_text(
            'export default { fetch: () => new Response("no", { status: 401 }) };\n'
        )
        with LocalStack(functions=functions) as stack:
            Patient(stack).finds("function sync-emails", "refuses the key", "verify_jwt = false")
