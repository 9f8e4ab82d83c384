"""What DVC is told of its remote: where it lies (committed, for whoever clones), and name and secret (never written).

A clone's configuration says where the data is; whoever pulls gives a name and secret of their own in
``.dvc/config.local``, which git ignores, or in the environment. See docs/versions.md.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from forecastle.errors import SettingsError
from forecastle.settings import Settings

NAME = "store"
WEB = ("http", "https", "webdav", "webdavs")
CONNECT_SECONDS, READ_SECONDS = "10", "60"
_PATIENCE = {
    "s3": ("connect_timeout", "read_timeout"),
    "azure": ("connection_timeout", "read_timeout"),
}
_SECRET = ("secret_access_key", "account_key", "connection_string", "password")
LOGIN = frozenset({*_SECRET, "access_key_id", "account_name", "user"})
"""The options that say who one is."""
_LOGIN = {"s3": ("access_key_id", "secret_access_key"), "azure": ("account_name", "account_key")}


@dataclass(frozen=True)
class Remote:
    """A DVC remote: its options that may be read by anyone, those that may not, and its address as it may be shown."""

    public: dict[str, str]
    private: dict[str, str]
    shown: str

    def redact(self, text: str) -> str:
        """Return a text without any of the remote's secrets, whole or the key inside a connection string."""
        for option in _SECRET:
            whole = self.private.get(option, "")
            for secret in (whole, *re.findall(r"(?:AccountKey|SharedAccessSignature)=([^;]+)", whole)):
                text = text.replace(secret, "…") if secret else text
        return re.sub(r"(?<=://)[^/\s@]+@", "", text)


def remote(settings: Settings) -> Remote:
    """Return the remote the settings describe.

    Raises SettingsError where an address holds a secret, which would be committed, or half of a login is missing.
    """
    address = settings.remote
    if "://" not in address:
        place = str(Path(address).resolve())
        return Remote({"url": place}, {}, place)
    _refuse_secrets("FORECASTLE_DVC_REMOTE", address)
    if address.startswith("az://"):  # as the other stores call it; DVC knows the long word only
        address = "azure" + address.removeprefix("az")
    scheme = urlsplit(address).scheme
    public = {"url": address}
    if settings.dvc_endpoint and scheme == "s3":
        _refuse_secrets("FORECASTLE_DVC_ENDPOINT", settings.dvc_endpoint)
        public["endpointurl"] = settings.dvc_endpoint
    if settings.dvc_region and scheme == "s3":
        public["region"] = settings.dvc_region
    private = _login(settings, scheme)
    if private and scheme in ("http", "https"):
        public["auth"] = "basic"
    patience = dict(zip(_PATIENCE.get(scheme, ()), (CONNECT_SECONDS, READ_SECONDS), strict=False))
    return Remote(public, {**patience, **private}, redacted(address))


def redacted(address: str) -> str:
    """Return an address as it may be shown: without what stands before the host, a query and a fragment."""
    scheme, mark, rest = address.partition("://")
    if not mark:
        return address
    host, slash, path = re.split("[?#]", rest, maxsplit=1)[0].partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"


def _login(settings: Settings, scheme: str) -> dict[str, str]:
    name, secret = settings.dvc_login
    if scheme == "azure" and secret and not name:
        return {"connection_string": secret}
    if scheme in _LOGIN or scheme in ("http", "https"):
        if bool(name) != bool(secret):
            raise SettingsError(
                "FORECASTLE_DVC_USER and FORECASTLE_DVC_SECRET together",
                f"no {'name' if secret else 'secret'}",
                "Set both, or neither where the remote's own tools know who you are.",
            )
    given = dict(zip(_LOGIN.get(scheme, ("user", "password")), (name, secret), strict=True))
    return {option: value for option, value in given.items() if value}


def _refuse_secrets(setting: str, address: str) -> None:
    held = _secrets(address)
    if held:
        raise SettingsError(
            f"{setting} without a name, password, key or token in it, since it is committed",
            f"{redacted(address)}, with {held}",
            "Put them into FORECASTLE_DVC_USER and FORECASTLE_DVC_SECRET.",
        )


def _secrets(address: str) -> str:
    """Say what an address holds that is, or may be, a secret. A name alone is none but where it may be a token."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return "a host that cannot be"
    web = parts.scheme in WEB
    held = {"a password": parts.password is not None, "a name": web and "@" in parts.netloc}
    held["a query"] = "?" in address
    return " and ".join(what for what, there in held.items() if there)
