"""LocalStack: a Supabase project on this machine, for as long as a `with` block."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from supabase_chunks import assets
from supabase_chunks.errors import LocalStackError
from supabase_chunks.local.cluster import require_entry
from supabase_chunks.local.keys import Keys
from supabase_chunks.local.link import Link
from supabase_chunks.local.process import WINDOWS, unprivileged_user
from supabase_chunks.local.project import project_folder
from supabase_chunks.local.scratch import clear, hold, let_go, make_temporary
from supabase_chunks.local.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

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
        project: Path | str | None = None,
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
            project: The folder of a project, or its folder `supabase`: runs its migrations, seeds and
                functions as its config.toml says, instead of those of the two folders below.
            migrations: The folder of migrations; by default this package's own, None for none.
            functions: The folder of Edge Functions; by default this package's own, None for none. One that
                cannot start is noted and left out, unless it is this package's.
            functions_env: Further environment for the functions.
            webhook_pace: Seconds that the sender of webhooks sleeps after a batch; the original sleeps one.
            watch: Start a function again when its files change.
            on_note: Called with a line when something takes long, such as a first download, and for what of
                the project cannot be done here. Later ones come with the next call of the stack.

        Raises:
            LocalStackError: There is no project in that folder.
        """
        self._notes: list[str] = []
        self._project = project_folder(project) if project is not None else None
        self._strict_functions = project is None and functions == "bundled"
        self._data_dir = Path(data_dir).resolve() if data_dir is not None else None
        self._keep = data_dir is not None if keep is None else keep
        self._port = port
        self._db_port = db_port
        self._migrations = _folder(migrations, assets.migrations_dir)
        self._functions = _folder(functions, assets.functions_dir)
        self._functions_env = dict(functions_env or {})
        self._webhook_pace = webhook_pace
        self._watch = watch
        self._on_note = on_note
        self._link: Link | None = None
        self._description: dict[str, Any] = {}
        self._keys: Keys | None = None
        self._root: Path | None = None
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

    @property
    def notes(self) -> list[str]:
        """What `on_note` has been told since the start."""
        return list(self._notes)

    @property
    def running(self) -> bool:
        """Whether its supervisor is alive."""
        return self._link is not None and self._link.alive

    def environment(self) -> dict[str, str]:
        """The environment variables that clients of this project read."""
        return {
            "SUPABASE_URL": self.url,
            "SUPABASE_SECRET_KEY": self.secret_key,
            "SUPABASE_PUBLISHABLE_KEY": self.publishable_key,
            "SUPABASE_DB_URL": self.postgres_url,
        }

    def user_token(
        self, user_id: str, *, expires_in: float = 3600, claims: Mapping[str, Any] | None = None
    ) -> str:
        """An access token of a signed-in user, for `Authorization: Bearer …`.

        Args:
            user_id: The user's UUID.
            expires_in: Seconds until it expires; negative for one that has.
            claims: Further claims, such as `email` or `app_metadata`.
        """
        return self._known_keys.user_token(user_id, expires_in=expires_in, claims=claims)

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
        if self._link is not None:
            return
        try:
            root = self._make_root()
            self._held = hold(root)
            # From here on the folder is ours, to fill and to clear.
            self._root = root
            (root / "logs").mkdir(exist_ok=True, mode=0o700)
            self._notes.clear()
            self._link = Link(self._settings(root), held=self._held, on_note=self._note)
            self._description = self._link.wait_ready()
            self._keys = Keys.kept_in(self._root / "keys.json")
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End everything."""
        if self._link is not None:
            # An interrupted pipe cannot be flushed any more, and need not be.
            with contextlib.suppress(OSError):
                self._link.close()
            self._link = None
        if self._root is not None and not self._keep:
            clear(self._root)
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

    def _note(self, text: str) -> None:
        self._notes.append(text)
        if self._on_note is not None:
            self._on_note(text)

    def _call(self, op: str, **arguments: Any) -> Any:
        if self._link is None:
            raise LocalStackError("This stack is not running.")
        return self._link.call(op, **arguments)

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
            # The folder itself is opened below; those above it are not ours to open.
            require_entry(root.parent, unprivileged_user())
            root.mkdir(parents=True, exist_ok=True)
        if not WINDOWS:
            # PostgreSQL's user must get through, and nobody may look around.
            root.chmod(0o711)
        return root

    def _settings(self, root: Path) -> Settings:
        return Settings(
            root=root,
            owner_pid=os.getpid(),
            keep=self._keep,
            port=self._port,
            db_port=self._db_port,
            project=self._project,
            migrations=self._migrations,
            functions=self._functions,
            strict_functions=self._strict_functions,
            functions_env=self._functions_env,
            webhook_pace=self._webhook_pace,
            watch=self._watch,
        )


def _folder(wanted: Path | str | None, bundled: Callable[[], Path]) -> Path | None:
    if wanted is None:
        return None
    return bundled() if wanted == "bundled" else Path(wanted).resolve()
