"""Who is calling: the project's URL, its key, and the access token of the moment."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Protocol, TypeAlias
from urllib.parse import urlsplit

from ._secrets import has_key
from .errors import AuthenticationError, ConfigurationError, ConnectionFailed

if TYPE_CHECKING:
    import supabase
    from supabase_auth.types import Session

_NOT_IN_KEYS = re.compile(r"[\s'\"]")
Token: TypeAlias = str | Callable[[], str | None]
AsyncToken: TypeAlias = str | Callable[[], str | None] | Callable[[], Awaitable[str | None]]


class Credentials(Protocol):
    """What a request needs to know; every part is asked for anew at each request."""

    @property
    def url(self) -> str:
        """The project's URL without a slash at its end."""
        ...

    @property
    def key(self) -> str:
        """The API key."""
        ...

    def token(self) -> str | Awaitable[str | None] | None:
        """Return the access token of the signed-in user, or None to act as the key's role."""
        ...


def headers(key: str, token: str | None) -> dict[str, str]:
    """Return the headers of a request.

    The new keys (`sb_secret_…`, `sb_publishable_…`) go into `apikey` alone: they are no JWT, and PostgREST
    refuses them as a bearer token. A legacy key is a JWT and is its own token.
    """
    bearer = token or (None if key.startswith("sb_") else key)
    return {"apikey": key} if bearer is None else {"apikey": key, "Authorization": f"Bearer {bearer}"}


def token_now(credentials: Credentials) -> str | None:
    """Return the token of the moment, for a sync client.

    Raises:
        ConfigurationError: It would have to be awaited, or cannot be one.
    """
    token = credentials.token()
    if token is None or isinstance(token, str):
        return _checked_token(token)
    if inspect.iscoroutine(token):
        token.close()
    raise ConfigurationError("a sync client needs a token as text, or a function that returns one")


async def token_awaited(credentials: Credentials) -> str | None:
    """Return the token of the moment, for an async client.

    Raises:
        ConfigurationError: It cannot be one.
    """
    token = credentials.token()
    return _checked_token(token if token is None or isinstance(token, str) else await token)


def scrub(text: str, *secrets: str | None) -> str:
    """Return `text` without the secrets, should a server repeat them in an error."""
    for secret in secrets:
        if secret:
            text = text.replace(secret, "***")
    return text


class FixedCredentials:
    """A URL and a key that stay; the token may come from a callable."""

    def __init__(self, url: str, key: str, token: AsyncToken | None = None) -> None:
        """Check the URL and the key.

        Raises:
            ConfigurationError: One of them cannot be right.
        """
        self.url = checked_url(url)
        self._key = _checked_header(key, "key")
        self._token = token

    def __repr__(self) -> str:
        """Return the URL, and no secret."""
        return f"<{type(self).__name__} {self.url}>"

    @property
    def key(self) -> str:
        """The API key."""
        return self._key

    def token(self) -> str | Awaitable[str | None] | None:
        """Return the access token of the moment."""
        return self._token() if callable(self._token) else self._token


class SupabaseCredentials:
    """Those of a supabase-py client: its session's token at each call, refreshed when it has expired."""

    def __init__(self, client: supabase.Client | supabase.AsyncClient, *, asynchronous: bool) -> None:
        """Take a client of supabase-py, sync or async as asked for.

        Raises:
            TypeError: It is the other one, or not a supabase-py client.
        """
        import supabase  # only now: whoever has such a client has it imported

        if not isinstance(client, supabase.Client | supabase.AsyncClient):
            raise TypeError(f"not a client of supabase-py: {type(client).__name__}")
        if isinstance(client, supabase.AsyncClient) is not asynchronous:
            raise TypeError(
                "this is a sync client of supabase-py; make one with supabase.acreate_client()"
                if asynchronous
                else "this is an async client of supabase-py; use AsyncChunksClient.from_supabase()"
            )
        self._client = client

    def __copy__(self) -> SupabaseCredentials:
        """Return itself: there is one session."""
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> SupabaseCredentials:
        """Return itself: there is one session."""
        return self

    def __reduce__(self) -> tuple[object, ...]:
        """Refuse to go to another process."""
        raise TypeError("a client made by from_supabase() cannot be sent to another process: make one there")

    def __repr__(self) -> str:
        """Return the URL, and no secret."""
        return f"<{type(self).__name__} {self.url}>"

    @property
    def url(self) -> str:
        """The project's URL."""
        return checked_url(str(self._client.supabase_url))

    @property
    def key(self) -> str:
        """The API key."""
        return _checked_header(self._client.supabase_key, "key")

    def token(self) -> str | Awaitable[str | None] | None:
        """Return the session's token, or the one that the client was made with, or None."""
        import supabase

        if isinstance(self._client, supabase.AsyncClient):
            return self._token_async(self._client)
        try:
            session = self._client.auth.get_session()
        except Exception as error:
            raise _session_error(error) from None
        return self._choose(session)

    async def _token_async(self, client: supabase.AsyncClient) -> str | None:
        try:
            session = await client.auth.get_session()
        except Exception as error:
            raise _session_error(error) from None
        return self._choose(session)

    def _choose(self, session: Session | None) -> str | None:
        if session is not None:
            return session.access_token
        # A server often makes a client with its user's token as a header and never signs in.
        header = str(self._client.options.headers.get("Authorization") or "")
        token = header.removeprefix("Bearer ").strip()
        return token if token and token != self._client.supabase_key else None


def environment() -> tuple[str, str]:
    """Return URL and key from SUPABASE_URL and SUPABASE_SECRET_KEY (or SUPABASE_SERVICE_ROLE_KEY).

    Raises:
        ConfigurationError: One of them is not set; the message names it.
    """
    url = os.environ.get("SUPABASE_URL")
    key = os.environ.get("SUPABASE_SECRET_KEY") or os.environ.get("SUPABASE_SERVICE_ROLE_KEY")
    missing = [
        name
        for name, value in (
            ("SUPABASE_URL", url),
            ("SUPABASE_SECRET_KEY (or SUPABASE_SERVICE_ROLE_KEY)", key),
        )
        if not value
    ]
    if missing or url is None or key is None:
        raise ConfigurationError(f"not set in the environment: {' and '.join(missing)}")
    return url, key


def checked_url(url: str) -> str:
    """Return the project's URL without a path and a slash at its end.

    Raises:
        ConfigurationError: It cannot be one. The message has nothing of it, for it may be a secret.
    """
    text = url.strip()
    _refuse_quotes(text, "project's URL")
    parts = None
    try:
        parts = urlsplit(text)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        good = good and not parts.query and not parts.fragment and not has_key(text)
    except ValueError:
        good = False
    if parts is None or not good:
        reason = ""
        if has_key(text):
            reason = ", and this has a key in it; are the two swapped?"
        elif text.startswith(("postgres:", "postgresql:")):
            reason = ", and this is the database's"
        raise ConfigurationError(f"the project's URL must look like https://abc.supabase.co{reason}")
    if parts.username or parts.password:
        raise ConfigurationError("the project's URL has a user's name or password in it: leave them out")
    return text.rstrip("/").removesuffix("/rest/v1")


def _checked_header(value: str, what: str) -> str:
    text = value.strip() if isinstance(value, str) else ""
    if not text:
        raise ConfigurationError(f"the {what} is empty")
    _refuse_quotes(text, what)
    if "://" in text:
        raise ConfigurationError(f"the {what} is a URL; are the two swapped?")
    if not text.isascii() or not text.isprintable() or _NOT_IN_KEYS.search(text):
        raise ConfigurationError(f"the {what} has characters that no {what} has; was it copied whole?")
    return text


def _checked_token(token: str | None) -> str | None:
    # httpx would quote it in its own error.
    return _checked_header(token, "access token") if token else token


def _refuse_quotes(text: str, what: str) -> None:
    if text.startswith(("'", '"')) or text.endswith(("'", '"')):
        raise ConfigurationError(
            f"the {what} is in quotes: take them away (docker run --env-file takes them for a part of it)"
        )


def _session_error(error: Exception) -> AuthenticationError | ConnectionFailed:
    import httpx

    text = f"the session's token could not be read: {type(error).__name__}"
    if isinstance(error, httpx.TransportError) or type(error).__name__ == "AuthRetryableError":
        return ConnectionFailed(text)
    return AuthenticationError(f"{text}: {error}")
