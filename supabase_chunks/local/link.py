"""The owner's end of the line to the supervisor's process."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from typing import IO, TYPE_CHECKING, Any

from supabase_chunks.errors import LocalStackError

if TYPE_CHECKING:
    from collections.abc import Callable

    from supabase_chunks.local.settings import Settings

_STOP_SECONDS = 15.0
# It imports from where its owner does, and nothing from the folder that the owner happens to be in.
_PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]);"
    " from supabase_chunks.local.daemon import main; main()"
)


class Link:
    """A running supervisor. The pipe to it keeps it alive: it ends when we close that, or when we die."""

    def __init__(self, settings: Settings, *, held: int | None, on_note: Callable[[str], None]) -> None:
        """Start the supervisor's process.

        Args:
            settings: What it is to run.
            held: The descriptor that holds the stack's folder, for the supervisor to hold too.
            on_note: Called with a line that the supervisor wants read, when it is heard.
        """
        options: dict[str, Any] = {}
        if sys.platform == "win32":
            options["creationflags"] = subprocess.CREATE_NEW_PROCESS_GROUP
        else:
            # Ctrl-C in the terminal is the owner's to handle: it decides in which order things end.
            options["start_new_session"] = True
            options["pass_fds"] = () if held is None else (held,)
        self._on_note = on_note
        self._log_path = settings.root / "logs" / "supervisor.log"
        self._lock = threading.Lock()
        self._calls = 0
        with self._log_path.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own module
                [sys.executable, "-P", "-Wignore", "-c", _PROGRAM, json.dumps(sys.path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                **options,
            )
        self._write(settings.to_json())

    def wait_ready(self) -> dict[str, Any]:
        """Wait until everything runs; returns the supervisor's description of it.

        Raises:
            LocalStackError: A part could not start.
        """
        while True:
            event = self._read()
            match event.get("event"):
                case "ready":
                    return event
                case "failed":
                    raise LocalStackError(event["message"])

    def call(self, op: str, **arguments: Any) -> Any:
        """Ask for something and wait for the answer.

        Raises:
            LocalStackError: It was refused, or the supervisor is gone.
        """
        with self._lock:
            self._calls += 1
            self._write(json.dumps({"id": self._calls, "op": op, **arguments}))
            # An interrupted call leaves its answer behind.
            while (reply := self._read()).get("id") != self._calls:
                continue
        if "error" in reply:
            raise LocalStackError(reply["error"])
        return reply["result"]

    @property
    def alive(self) -> bool:
        """Whether the supervisor runs."""
        return self._process.poll() is None

    def close(self) -> None:
        """End the supervisor and all it runs."""
        pipe_in, pipe_out = self._pipes
        pipe_in.close()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        pipe_out.close()

    @property
    def _pipes(self) -> tuple[IO[bytes], IO[bytes]]:
        pipe_in, pipe_out = self._process.stdin, self._process.stdout
        if pipe_in is None or pipe_out is None:
            raise LocalStackError("The supervisor was started without pipes.")
        return pipe_in, pipe_out

    def _write(self, line: str) -> None:
        pipe_in, _ = self._pipes
        try:
            pipe_in.write(line.encode() + b"\n")
            pipe_in.flush()
        except OSError as error:
            raise LocalStackError(f"The local stack's supervisor is gone: {self._last_words()}") from error

    def _read(self) -> dict[str, Any]:
        _, pipe_out = self._pipes
        line = pipe_out.readline()
        if not line:
            raise LocalStackError(f"The local stack's supervisor ended: {self._last_words()}")
        message: dict[str, Any] = json.loads(line)
        if message.get("event") == "note":
            self._on_note(message["text"])
        return message

    def _last_words(self) -> str:
        try:
            text = self._log_path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return "it left no log"
        return " ".join(text[-600:].split())
