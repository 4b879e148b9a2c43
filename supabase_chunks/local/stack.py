"""LocalStack: a Supabase project on this machine, for as long as a `with` block."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from supabase_chunks.local.failure import LocalStackError
from supabase_chunks.local.keys import Keys
from supabase_chunks.local.process import WINDOWS
from supabase_chunks.local.scratch import hold, let_go, make_temporary
from supabase_chunks.local.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

_STOP_SECONDS = 15.0
Bundled = Literal["bundled"]


class LocalStack:
    """PostgreSQL, PostgREST, Deno and a gateway: a new Supabase project with our migrations and functions.

    All of it listens on 127.0.0.1 only. It ends with the `with` block, and with this process, even a killed
    one.

    Example:
        with LocalStack() as stack:
            client = ChunksClient(stack.url, stack.secret_key)
    """

    def __init__(
        self,
        data_dir: Path | str | None = None,
        *,
        port: int = 0,
        db_port: int = 0,
        keep: bool | None = None,
        migrations: Path | str | Bundled | None = "bundled",
        functions: Path | str | Bundled | None = "bundled",
        functions_env: Mapping[str, str] | None = None,
        webhook_pace: float = 0.0,
        watch: bool = False,
        on_note: Callable[[str], None] | None = None,
    ) -> None:
        """Describe a stack; entering the block starts it.

        Args:
            data_dir: Where database, keys and logs are; None: a temporary folder, in memory where possible.
            port: The gateway's port; 0 takes a free one.
            db_port: PostgreSQL's port; 0 takes a free one.
            keep: Whether the folder stays at the end; by default a named one stays, a temporary one goes.
            migrations: The folder of migrations; by default this package's own, None for none.
            functions: The folder of Edge Functions; by default this package's own, None for none.
            functions_env: Further environment for the functions.
            webhook_pace: Seconds that the sender of webhooks sleeps after a batch; the original sleeps one.
            watch: Start a function again when its files change.
            on_note: Called with a line when something takes long, such as a first download.
        """
        self._data_dir = Path(data_dir).resolve() if data_dir is not None else None
        self._keep = data_dir is not None if keep is None else keep
        self._port = port
        self._db_port = db_port
        self._migrations = _folder(migrations, "migrations")
        self._functions = _folder(functions, "functions")
        self._functions_env = dict(functions_env or {})
        self._webhook_pace = webhook_pace
        self._watch = watch
        self._on_note = on_note
        self._process: subprocess.Popen[str] | None = None
        self._description: dict[str, Any] = {}
        self._keys: Keys | None = None
        self._root: Path | None = None
        self._lock = threading.Lock()
        self._calls = 0
        self._held: int | None = None

    def __repr__(self) -> str:
        """Where it is; never a key."""
        return f"<LocalStack {self._description.get('url', 'not started')}>"

    @property
    def url(self) -> str:
        """The project's URL, for SUPABASE_URL."""
        return str(self._described("url"))

    @property
    def db_url(self) -> str:
        """The database as the superuser `supabase_admin`, for tests that must see everything."""
        return str(self._described("db_url"))

    @property
    def postgres_url(self) -> str:
        """The database as `postgres`, the owner of a project, as a hosted one gives it out."""
        return str(self._described("postgres_url"))

    @property
    def secret_key(self) -> str:
        """The `sb_secret_` key: acts as service_role."""
        return self._known_keys.secret

    @property
    def publishable_key(self) -> str:
        """The `sb_publishable_` key: acts as anon, or as the user whose token comes along."""
        return self._known_keys.publishable

    @property
    def service_role_key(self) -> str:
        """The legacy form of the secret key, itself a token."""
        return self._known_keys.legacy_key("service_role")

    @property
    def anon_key(self) -> str:
        """The legacy form of the publishable key, itself a token."""
        return self._known_keys.legacy_key("anon")

    @property
    def jwt_secret(self) -> str:
        """What the project's tokens are signed with (HS256)."""
        return self._known_keys.jwt_secret

    @property
    def data_dir(self) -> Path:
        """The stack's folder."""
        if self._root is None:
            raise LocalStackError("This stack is not running.")
        return self._root

    @property
    def logs(self) -> Path:
        """The folder with a log for each part."""
        return self.data_dir / "logs"

    @property
    def functions(self) -> list[str]:
        """The names of the functions that are served."""
        return list(self._described("functions"))

    def user_token(self, user_id: str, *, expires_in: float = 3600) -> str:
        """An access token of a signed-in user, for `Authorization: Bearer …`.

        Args:
            user_id: The user's UUID.
            expires_in: Seconds until it expires; negative for one that has.
        """
        return self._known_keys.user_token(user_id, expires_in=expires_in)

    def restart(self, part: str) -> None:
        """Kill a part and wait until it is back: "postgrest", "postgres", "functions" or one of these."""
        self._call("restart", part=part)

    def kill(self, part: str) -> None:
        """Kill a part as a crash would (PostgreSQL with its backends); it comes back after a short pause."""
        self._call("kill", part=part)

    def wait_until_ready(self) -> None:
        """Wait until every part answers."""
        self._call("wait")

    def set_webhooks(self, *, pace: float | None = None, drop: float | None = None) -> None:
        """Change how webhooks are sent.

        Args:
            pace: Seconds to sleep after each batch; 0 sends at once, 1 is what the real pg_net does.
            drop: The fraction of webhooks to lose silently before they are sent.
        """
        wanted = {"pace": pace, "drop": drop}
        self._call("webhooks", **{name: value for name, value in wanted.items() if value is not None})

    def pids(self) -> dict[str, int | None]:
        """The process id of each part."""
        return dict(self._call("pids"))

    def start(self) -> None:
        """Start everything; returns when all parts answer.

        Raises:
            LocalStackError: Something could not start; nothing is left running then.
        """
        if self._process is not None:
            return
        self._root = self._make_root()
        settings = Settings(
            root=self._root,
            owner_pid=os.getpid(),
            keep=self._keep,
            port=self._port,
            db_port=self._db_port,
            migrations=self._migrations,
            functions=self._functions,
            functions_env=self._functions_env,
            webhook_pace=self._webhook_pace,
            watch=self._watch,
        )
        try:
            self._start_supervisor(settings)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End everything."""
        if self._process is not None:
            assert self._process.stdin is not None  # noqa: S101 - we made the pipe
            assert self._process.stdout is not None  # noqa: S101 - we made the pipe
            self._process.stdin.close()
            try:
                self._process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process.stdout.close()
            self._process = None
        if self._root is not None and not self._keep:
            shutil.rmtree(self._root, ignore_errors=True)
        let_go(self._held)
        self._held = None
        self._description = {}

    def __enter__(self) -> Self:
        """Start everything."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End everything."""
        self.stop()

    @property
    def _known_keys(self) -> Keys:
        if self._keys is None:
            raise LocalStackError("This stack was never started, so it has no keys yet.")
        return self._keys

    def _described(self, name: str) -> Any:
        if name not in self._description:
            raise LocalStackError("This stack is not running.")
        return self._description[name]

    def _make_root(self) -> Path:
        if self._data_dir is None:
            root = make_temporary()
        else:
            root = self._data_dir
            root.mkdir(parents=True, exist_ok=True)
        if not WINDOWS:
            # PostgreSQL's user must get through, and nobody may look around.
            root.chmod(0o711)
        self._held = hold(root)
        (root / "logs").mkdir(exist_ok=True, mode=0o700)
        return root

    def _start_supervisor(self, settings: Settings) -> None:
        options: dict[str, Any] = {}
        if WINDOWS:
            options["creationflags"] = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)
        else:
            # Ctrl-C in the terminal is the owner's to handle: it decides in which order things end.
            options["start_new_session"] = True
            # The folder stays held while either of us lives.
            options["pass_fds"] = () if self._held is None else (self._held,)
        with (settings.root / "logs" / "supervisor.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "supabase_chunks.local.supervisor"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                encoding="utf-8",
                env={**os.environ, "PYTHONPATH": _import_path()},
                **options,
            )
        self._write(settings.to_json())
        while True:
            event = self._read()
            match event.get("event"):
                case "ready":
                    self._description = event
                    self._keys = Keys.kept_in(settings.root / "keys.json")
                    return
                case "note" if self._on_note is not None:
                    self._on_note(event["text"])
                case "failed":
                    raise LocalStackError(event["message"])

    def _call(self, op: str, **arguments: Any) -> Any:
        with self._lock:
            self._calls += 1
            self._write(json.dumps({"id": self._calls, "op": op, **arguments}))
            while (reply := self._read()).get("id") != self._calls:
                continue
        if "error" in reply:
            raise LocalStackError(reply["error"])
        return reply["result"]

    def _write(self, line: str) -> None:
        if self._process is None or self._process.stdin is None:
            raise LocalStackError("This stack is not running.")
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except OSError as error:
            raise LocalStackError(f"The local stack's supervisor is gone: {self._last_words()}") from error

    def _read(self) -> dict[str, Any]:
        assert self._process is not None  # noqa: S101 - written to before
        assert self._process.stdout is not None  # noqa: S101 - we made the pipe
        line = self._process.stdout.readline()
        if not line:
            raise LocalStackError(f"The local stack's supervisor ended: {self._last_words()}")
        message: dict[str, Any] = json.loads(line)
        return message

    def _last_words(self) -> str:
        try:
            text = (self.logs / "supervisor.log").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return "it left no log"
        return " ".join(text[-600:].split())


def _folder(wanted: Path | str | None, name: str) -> Path | None:
    if wanted is None:
        return None
    if wanted != "bundled":
        return Path(wanted).resolve()
    # A checkout has them at its top.
    return Path(__file__).resolve().parents[2] / "supabase" / name


def _import_path() -> str:
    """Where this package was imported from, before the rest of PYTHONPATH: so the supervisor finds it too."""
    here = str(Path(__file__).resolve().parents[2])
    given = os.environ.get("PYTHONPATH")
    return os.pathsep.join([here, given]) if given else here
