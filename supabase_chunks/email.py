"""E-mail accounts to sync: `client.email`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from . import operations, reads

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

    from ._driver import AsyncDriver, Driver
    from .models import EmailAccount, EmailFolder

Tls = Literal["implicit", "starttls", "none"]


class Email:
    """The mailboxes that jobs of kind `email` read.

    Example:
        >>> account = client.email.save_account("work", host="imap.example.com", username="me", password="…")
        >>> client.trigger_sync("email", payload={"account": "work"}).wait(progress=True).status
        <JobStatus.COMPLETED: 'completed'>
    """

    def __init__(self, driver: Driver) -> None:
        """Take what sends the calls."""
        self._driver = driver

    def save_account(
        self,
        name: str,
        *,
        host: str,
        username: str,
        password: str | None = None,
        port: int | None = None,
        tls: Tls | None = None,
        owner_id: UUID | None = None,
        oauth: Mapping[str, str] | None = None,
    ) -> UUID:
        """Add an account, or change the one of that name. Secrets go to Vault and are never returned.

        Args:
            name: What to call it in a sync's payload.
            host: The IMAP server.
            username: The login name.
            password: The password. None keeps what is stored, as long as host, port, tls and username stay.
            port: 993 unless told otherwise.
            tls: implicit (the default), starttls or none.
            owner_id: Whose it is; a signed-in user's is always their own.
            oauth: Instead of a password: `provider` (google, microsoft, or for the service custom),
                `client_id`, `refresh_token`, and where need be `scope`; with custom also `token_url`.

        Returns:
            The account's id.

        Raises:
            InvalidArgument: An argument makes no sense; the message names it.

        Example:
            >>> account = client.email.save_account("work", host="imap.x.com", username="me", password="pw")
            >>> account == client.email.accounts()[0].id
            True
        """
        return self._driver.run(
            operations.save_email_account(
                name=name,
                host=host,
                username=username,
                password=password,
                port=port,
                tls=tls,
                owner_id=owner_id,
                oauth=oauth,
            )
        )

    def remove_account(self, name: str, *, owner_id: UUID | None = None) -> bool:
        """Remove an account and its password; return whether there was one.

        Example:
            >>> client.email.remove_account("work")
            False
        """
        return self._driver.run(operations.remove_email_account(name=name, owner_id=owner_id))

    def accounts(self) -> list[EmailAccount]:
        """Read the accounts, without passwords.

        Example:
            >>> [account.name for account in client.email.accounts()]
            []
        """
        return self._driver.run(reads.list_email_accounts())

    def folders(self, account: str, *, owner_id: UUID | None = None) -> list[EmailFolder]:
        """Read the folders that syncs have found in an account; none before its first sync.

        A sync with `"folders": "all"` finds all of them, any other those that it opened.

        Args:
            account: The account's name.
            owner_id: Whose it is; None: the service's own, or a signed-in user's.

        Returns:
            The folders by name, those that are gone too (`gone_at`).

        Raises:
            InvalidArgument: There is no such account.

        Example:
            >>> made = client.email.save_account("work", host="imap.example.com", username="me", password="…")
            >>> [folder.folder for folder in client.email.folders("work")]
            []
        """
        return self._driver.run(reads.list_email_folders(account=account, owner_id=owner_id))


class AsyncEmail:
    """The mailboxes that jobs of kind `email` read; see `Email`."""

    def __init__(self, driver: AsyncDriver) -> None:
        """Take what sends the calls."""
        self._driver = driver

    async def save_account(
        self,
        name: str,
        *,
        host: str,
        username: str,
        password: str | None = None,
        port: int | None = None,
        tls: Tls | None = None,
        owner_id: UUID | None = None,
        oauth: Mapping[str, str] | None = None,
    ) -> UUID:
        """Add an account, or change the one of that name."""
        return await self._driver.run(
            operations.save_email_account(
                name=name,
                host=host,
                username=username,
                password=password,
                port=port,
                tls=tls,
                owner_id=owner_id,
                oauth=oauth,
            )
        )

    async def remove_account(self, name: str, *, owner_id: UUID | None = None) -> bool:
        """Remove an account and its password; return whether there was one."""
        return await self._driver.run(operations.remove_email_account(name=name, owner_id=owner_id))

    async def accounts(self) -> list[EmailAccount]:
        """Read the accounts, without passwords."""
        return await self._driver.run(reads.list_email_accounts())

    async def folders(self, account: str, *, owner_id: UUID | None = None) -> list[EmailFolder]:
        """Read the folders that syncs have found in an account."""
        return await self._driver.run(reads.list_email_folders(account=account, owner_id=owner_id))
