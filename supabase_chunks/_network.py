"""What the environment says about the network: proxies and certificates, and when they do not matter."""

from __future__ import annotations

import os
from contextlib import contextmanager
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ._secrets import has_key, shown
from .errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator


def is_loopback(url: str) -> bool:
    """Return whether a URL is one of this very machine, as `http://127.0.0.1:54321` is."""
    return is_this_machine((urlsplit(url).hostname or "").rstrip("."))


def is_this_machine(host: str) -> bool:
    """Return whether a name or an address, without brackets, is that of this very machine."""
    try:
        address = ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
    mapped = getattr(address, "ipv4_mapped", None) or address
    return bool(mapped.is_loopback or mapped.is_unspecified)


def options(url: str) -> dict[str, Any]:
    """Return what an httpx client for this URL is made with, within `environment()`.

    Nothing on this machine is asked for through a proxy: from there it could not be reached.
    """
    from ssl import PROTOCOL_TLS_CLIENT, SSLContext

    import httpx

    if not is_loopback(url):
        return {"verify": httpx.create_ssl_context()}
    # Without trust in the environment httpx forgets the certificates, too. Without TLS none need be read,
    # which takes as long as some requests.
    tls = httpx.create_ssl_context() if url.startswith("https:") else SSLContext(PROTOCOL_TLS_CLIENT)
    return {"trust_env": False, "verify": tls}


@contextmanager
def environment() -> Iterator[None]:
    """Have httpx's complaint about an environment variable name it.

    Raises:
        ConfigurationError: A variable for proxies or certificates has a value that cannot be used.
    """
    import httpx

    try:
        folder = os.environ.get("SSL_CERT_DIR")
        if folder and not os.environ.get("SSL_CERT_FILE") and not os.path.isdir(folder):
            raise NotADirectoryError("no such folder")
        _refuse_keys()
        yield
    except OSError as error:
        name = next((name for name in ("SSL_CERT_FILE", "SSL_CERT_DIR") if os.environ.get(name)), None)
        if name is None:
            raise
        raise ConfigurationError(_certificates(name, error)) from None
    except (ValueError, ImportError, httpx.InvalidURL):
        # From None: the text of httpx may have the proxy's password.
        raise ConfigurationError(_proxies() or _exceptions()) from None


def _certificates(name: str, error: OSError) -> str:
    reason = error.strerror or str(error)
    return (
        f"{name} is {shown(os.environ.get(name))}, and no certificates can be read there ({reason}):"
        " correct the variable, or unset it"
    )


def _variable(scheme: str) -> str:
    names = [name for name in (f"{scheme}_proxy", f"{scheme.upper()}_PROXY") if os.environ.get(name)]
    return names[0] if names else f"the system's {scheme} proxy"


def _refuse_keys() -> None:
    """Refuse a key for a proxy's name: httpcore logs where it connects to."""
    from urllib.request import getproxies

    for scheme, value in getproxies().items():
        if scheme != "no" and has_key(value):
            raise ConfigurationError(f"{_variable(scheme)} has a key in it; is it at the wrong place?")


def _proxies() -> str:
    from urllib.request import getproxies

    import httpx

    found = getproxies()
    for scheme in ("all", "http", "https"):
        value = found.get(scheme)
        if not value:
            continue
        name = _variable(scheme)
        url = value if "://" in value else f"http://{value}"
        try:
            httpx.Client(proxy=url, trust_env=False, verify=False).close()  # noqa: S501 - nothing is sent
        except ImportError:
            return f"{name} names a SOCKS proxy, for which a package is missing: pip install 'httpx[socks]'"
        except (ValueError, httpx.InvalidURL):
            return (
                f"{name} cannot be used, its scheme is {shown(url.partition('://')[0])}:"
                " it must be a URL, such as http://proxy.example:3128 or socks5://proxy.example:1080"
            )
    return ""


def _exceptions() -> str:
    from urllib.request import getproxies

    name = "no_proxy" if os.environ.get("no_proxy") else "NO_PROXY"
    entries = [entry.strip() for entry in (getproxies().get("no") or "").split(",")]
    wrong = [shown(entry).strip("'") for entry in entries if not _readable(entry)]
    return (
        f"{name} has what httpx cannot read ({', '.join(wrong)}): write names and addresses,"
        " without brackets, ports and networks"
    )


def _readable(entry: str) -> bool:
    import httpx

    try:
        httpx.URL(entry if "://" in entry else f"all://*{entry}")
    except httpx.InvalidURL:
        try:
            ip_address(entry)
        except ValueError:
            return False
    return True
