"""The keys of a local project, and the tokens signed with them."""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import jwt

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_ISSUER = "supabase-local"
# Legacy keys are tokens that outlive the project.
_LEGACY_SECONDS = 10 * 365 * 24 * 3600
_ROLE_TOKEN_SECONDS = 120


def _api_key(kind: str) -> str:
    """A key of the platform's form: its kind, 22 random characters and 8 that check them."""
    text = secrets.token_urlsafe(17)[:22]
    check = hashlib.sha256(text.encode()).hexdigest()[:8]
    return f"sb_{kind}_{text}_{check}"


@dataclass(frozen=True, repr=False)
class Keys:
    """The project's API keys, and the secret that its tokens are signed with."""

    publishable: str = field(default_factory=lambda: _api_key("publishable"))
    secret: str = field(default_factory=lambda: _api_key("secret"))
    jwt_secret: str = field(default_factory=lambda: secrets.token_urlsafe(48))
    database_password: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    authenticator_password: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    issued_at: int = field(default_factory=lambda: int(time.time()))

    @classmethod
    def kept_in(cls, path: Path) -> Keys:
        """The keys in this file, made there at first use, so that they stay the same from run to run."""
        if path.exists():
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        keys = cls()
        path.touch(mode=0o600)
        path.write_text(json.dumps(asdict(keys), indent=2), encoding="utf-8")
        return keys

    def sign(self, claims: dict[str, Any], *, expires_in: float) -> str:
        """A token with these claims that ends after so many seconds."""
        now = int(time.time())
        return jwt.encode(
            {"iss": _ISSUER, "iat": now, "exp": int(now + expires_in)} | claims,
            self.jwt_secret,
            algorithm="HS256",
        )

    def role_token(self, role: str) -> str:
        """A short-lived token of a role, as the platform's gateway makes for a request with an API key."""
        return self.sign({"role": role}, expires_in=_ROLE_TOKEN_SECONDS)

    def user_token(
        self, user_id: str, *, expires_in: float = 3600, claims: Mapping[str, Any] | None = None
    ) -> str:
        """The access token that a signed-in user's requests carry."""
        return self.sign(
            {
                "sub": user_id,
                "role": "authenticated",
                "aud": "authenticated",
                "session_id": secrets.token_hex(16),
                **(claims or {}),
            },
            expires_in=expires_in,
        )

    def accepts(self, token: str) -> bool:
        """Whether a token is one of this project's and still good."""
        try:
            jwt.decode(token, self.jwt_secret, algorithms=["HS256"], options={"verify_aud": False})
        except jwt.InvalidTokenError:
            return False
        return True

    def legacy_key(self, role: str) -> str:
        """A key of the older kind, which is itself a token of the role; the same at each call."""
        claims = {
            "iss": _ISSUER,
            "role": role,
            "iat": self.issued_at,
            "exp": self.issued_at + _LEGACY_SECONDS,
        }
        return jwt.encode(claims, self.jwt_secret, algorithm="HS256")

    def role_of(self, api_key: str) -> str | None:
        """The role that an API key stands for; None when it is none of ours."""
        known = {
            self.publishable: "anon",
            self.secret: "service_role",
            self.legacy_key("anon"): "anon",
            self.legacy_key("service_role"): "service_role",
        }
        return known.get(api_key)
