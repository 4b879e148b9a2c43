"""The commands for mailboxes: give access by OAuth."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from .arguments import Duration
from .found import connect

if TYPE_CHECKING:
    from datetime import timedelta
    from uuid import UUID

    from supabase_chunks import ChunksClient
    from supabase_chunks.models import EmailAccount

    from .oauth import Provider


@click.group()
def email() -> None:
    """Give access to mailboxes by OAuth.

    \b
    Example:
      supabase-chunks email login google work \\
        --client-id ID --username me@gmail.com
    """


@email.command()
@click.argument("provider", type=click.Choice(["google", "microsoft", "custom"]), metavar="PROVIDER")
@click.argument("account")
@click.option("--client-id", required=True, help="The application's id at the provider.")
@click.option("--username", help="The mailbox's address (as saved).")
@click.option("--host", help="The IMAP server (the provider's; for custom as saved).")
@click.option("--port", type=click.IntRange(1, 65535), help="Its port (993, or as saved).")
@click.option(
    "--tls", type=click.Choice(["implicit", "starttls", "none"]), help="How (implicit, or as saved)."
)
@click.option("--authorize-url", metavar="URL", help="For custom: where a person consents.")
@click.option("--token-url", metavar="URL", help="For custom: where tokens are given and renewed.")
@click.option("--scope", help="For custom: what is asked for.")
@click.option(
    "--owner", "owner_id", type=click.UUID, help="The user whose account it is (the service's own)."
)
@click.option("--no-browser", is_flag=True, help="Only print the address to open.")
@click.option(
    "--redirect-port", type=click.IntRange(0, 65535), default=0, help="Where the browser comes back (any)."
)
@click.option("--timeout", type=Duration(), default="5m", help="How long to wait for consent (5m).")
def login(
    provider: str,
    account: str,
    client_id: str,
    username: str | None,
    host: str | None,
    port: int | None,
    tls: str | None,
    authorize_url: str | None,
    token_url: str | None,
    scope: str | None,
    owner_id: UUID | None,
    no_browser: bool,
    redirect_port: int,
    timeout: timedelta,
) -> None:
    """Give an account access at its provider: google, microsoft or custom.

    Opens the provider's page in a browser, and saves the refresh token that comes of it in the project's
    Vault; it is never shown. The account is made, or changed: of one that is there only what is given. A
    client secret, where the provider wants one, is read from EMAIL_OAUTH_GOOGLE_CLIENT_SECRET (MICROSOFT,
    CUSTOM), here as in the function.

    \b
    Examples:
      supabase-chunks email login google work \\
        --client-id ID --username me@gmail.com
      supabase-chunks email login microsoft work --client-id ID
    """
    from .oauth import ask_for_access

    by = _provider(provider, authorize_url, token_url, scope)
    client = connect()
    saved = _saved(client, account, owner_id)
    username = username or (saved.username if saved else None)
    if username is None:
        raise click.UsageError(f"There is no account {account!r} yet: --username is needed.")
    host = host or by.imap_host or (saved.host if saved else None)
    if host is None:
        raise click.UsageError(f"There is no account {account!r} yet: --host is needed.")
    # Ports are those of a server: they do not go along to another one.
    same = saved if saved and saved.host == host else None
    token = ask_for_access(
        by,
        client_id,
        username=username,
        show=lambda url: _show(url, browser=not no_browser),
        port=redirect_port,
        seconds=timeout.total_seconds(),
    )
    oauth = {"provider": provider, "client_id": client_id, "refresh_token": token}
    if provider == "custom":
        oauth |= {"token_url": by.token_url} | ({"scope": scope} if scope else {})
    client.email.save_account(
        account,
        host=host,
        username=username,
        port=port or (same.port if same else None),
        tls=tls or (same.tls if same else None),  # type: ignore[arg-type]  # click has looked at it
        owner_id=owner_id,
        oauth=oauth,
    )
    click.echo(f"The account {account} has access as {username}.", err=True)
    if os.environ.get(by.secret_name):
        click.echo(f"The function sync-emails needs {by.secret_name}, too.", err=True)


def _provider(name: str, authorize_url: str | None, token_url: str | None, scope: str | None) -> Provider:
    from .oauth import PROVIDERS, Provider, is_safe

    addresses = {"--authorize-url": authorize_url, "--token-url": token_url}
    if name != "custom":
        given = [option for option, value in {**addresses, "--scope": scope}.items() if value is not None]
        if given:
            raise click.UsageError(f"{given[0]} goes with the provider custom only.")
        return PROVIDERS[name]
    for option, url in addresses.items():
        if url is None:
            raise click.UsageError(f"The provider custom needs {option}.")
        if not is_safe(url):
            raise click.UsageError(f"{option} must be an https URL.")
    return Provider("custom", str(authorize_url), str(token_url), scope or "")


def _saved(client: ChunksClient, name: str, owner_id: UUID | None) -> EmailAccount | None:
    """Return the account that is changed, if there is one; asked for before anybody consents."""
    return next(
        (each for each in client.email.accounts() if each.name == name and each.owner_id == owner_id), None
    )


def _show(url: str, *, browser: bool) -> None:
    click.echo(f"Give access on this page, in a browser on this machine:\n{url}", err=True)
    if browser:
        import webbrowser

        webbrowser.open(url)
