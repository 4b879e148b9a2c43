"""Access to a mailbox by OAuth: a person consents in a browser, and a refresh token comes of it (PKCE)."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

from supabase_chunks._network import environment, is_loopback, options

from .failures import Failure
from .redirect import redirect

if TYPE_CHECKING:
    from collections.abc import Callable

_TIMEOUT = 30.0


@dataclass(frozen=True)
class Provider:
    """Who gives access.

    Attributes:
        name: As `save_email_account` calls it.
        authorize_url: Where a person consents.
        token_url: Where a code becomes tokens.
        scope: What is asked for.
        more: What else the consent's address says.
        redirect_host: This machine, as the provider lets an application call it.
        imap_host: Its mail server.
    """

    name: str
    authorize_url: str
    token_url: str
    scope: str = ""
    more: tuple[tuple[str, str], ...] = ()
    redirect_host: str = "127.0.0.1"
    imap_host: str | None = None

    @property
    def secret_name(self) -> str:
        """The environment variable with the client secret, here as in the functions."""
        return f"EMAIL_OAUTH_{self.name.upper()}_CLIENT_SECRET"


PROVIDERS = {
    "google": Provider(
        "google",
        authorize_url="https://accounts.google.com/o/oauth2/v2/auth",
        token_url="https://oauth2.googleapis.com/token",  # noqa: S106 - an address
        scope="https://mail.google.com/",
        # Google gives a refresh token only for these, and after the first time only for both.
        more=(("access_type", "offline"), ("prompt", "consent")),
        imap_host="imap.gmail.com",
    ),
    "microsoft": Provider(
        "microsoft",
        authorize_url="https://login.microsoftonline.com/common/oauth2/v2.0/authorize",
        token_url="https://login.microsoftonline.com/common/oauth2/v2.0/token",  # noqa: S106 - an address
        scope="https://outlook.office.com/IMAP.AccessAsUser.All offline_access",
        # Of an address registered as http://localhost Microsoft ignores the port, of 127.0.0.1 not.
        redirect_host="localhost",
        imap_host="outlook.office365.com",
    ),
}


def is_safe(url: str) -> bool:
    """Return whether secrets may be sent there: over TLS, or within this machine."""
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and (
            parts.scheme == "https" or (parts.scheme == "http" and is_loopback(url))
        )
    except ValueError:
        return False


def ask_for_access(
    provider: Provider,
    client_id: str,
    *,
    username: str,
    show: Callable[[str], None],
    port: int = 0,
    seconds: float = 300.0,
) -> str:
    """Have a person give access, and return the refresh token.

    Args:
        provider: Who gives it.
        client_id: The application that gets it.
        username: Whose mailbox; the provider's page suggests it.
        show: Gets the address to open in a browser.
        port: Where the browser comes back to; 0: anywhere.
        seconds: How long to wait for the person.

    Raises:
        Failure: Access was not given.
    """
    state, verifier = secrets.token_urlsafe(32), secrets.token_urlsafe(64)
    digest = hashlib.sha256(verifier.encode()).digest()
    with redirect(state, port) as back:
        redirect_uri = f"http://{provider.redirect_host}:{back.port}"
        query = {
            "response_type": "code",
            "client_id": client_id,
            "redirect_uri": redirect_uri,
            "scope": provider.scope,
            "state": state,
            "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
            "code_challenge_method": "S256",
            "login_hint": username,
            **dict(provider.more),
        }
        joint = "&" if urlsplit(provider.authorize_url).query else "?"
        show(f"{provider.authorize_url}{joint}{urlencode({k: v for k, v in query.items() if v})}")
        code = back.wait(seconds)
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": redirect_uri,
        "client_id": client_id,
        "code_verifier": verifier,
    }
    return _exchange(provider, form)


def _exchange(provider: Provider, form: dict[str, str]) -> str:
    import httpx

    if secret := os.environ.get(provider.secret_name):
        form = {**form, "client_secret": secret}
    try:
        with (
            environment(),
            httpx.Client(timeout=_TIMEOUT, follow_redirects=False, **options(provider.token_url)) as client,
        ):
            response = client.post(provider.token_url, data=form, headers={"accept": "application/json"})
    except httpx.HTTPError as error:
        # From None: the request in the chain has the code.
        host = urlsplit(provider.token_url).hostname
        raise Failure(f"{host} could not be asked for tokens: {type(error).__name__}.") from None
    try:
        answer = response.json()
    except ValueError:
        answer = None
    answer = answer if isinstance(answer, dict) else {}
    if not response.is_success:
        raise Failure(_refusal(provider, response.status_code, answer))
    token = answer.get("refresh_token")
    if not isinstance(token, str) or not token:
        raise Failure(
            f"{provider.name} gave no refresh token: does the scope, or the application, allow access while"
            " nobody is there (offline access)?"
        )
    return token


def _refusal(provider: Provider, status: int, answer: dict[str, Any]) -> str:
    """Return what to say, in the names of errors only: texts may have anything in them."""
    error = answer.get("error")
    if not isinstance(error, str) or not re.fullmatch(r"[a-z_]{1,60}", error):
        return f"{provider.name} answered {status} instead of tokens."
    number = re.search(r"AADSTS\d{1,10}", str(answer.get("error_description")))
    reason = f"{error}, {number[0]}" if number else error
    hint = f" Is {provider.secret_name} set, and right?" if error == "invalid_client" else ""
    return f"{provider.name} gave no tokens: {reason}.{hint}"
