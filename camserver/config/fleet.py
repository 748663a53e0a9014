"""The [fleet] table: several hosts that share their cameras through etcd."""

from __future__ import annotations

import socket
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from camserver.config.table import Table
from camserver.config.urls import HttpUrl

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"
PASSWORDS = ("password", "password_file", "password_credential")
"""The keys for a password. Only one of them may be given."""

TLS_FILES = ("ca_file", "cert_file", "key_file")


class FleetTable(Table):
    """Several hosts share their cameras through etcd. Without this table a host is on its own."""

    name: str = Field(pattern=NAME, description="Name of the fleet: the same on all of its hosts.")
    host: str | None = Field(
        None, pattern=NAME, description="Name of this host; default: the machine's name."
    )
    etcd: list[HttpUrl] = Field(
        min_length=1,
        description="URLs of the etcd nodes; the next one is asked when one does not answer.",
        examples=[["https://10.0.0.1:2379", "https://10.0.0.2:2379", "https://10.0.0.3:2379"]],
    )
    username: str | None = Field(None, description="User of etcd.")
    password: str | None = Field(None, repr=False)
    password_file: Path | None = Field(None, description="A file whose first line is the password.")
    password_credential: str | None = Field(
        None, description="Name of a systemd credential (LoadCredential=)."
    )
    etcd_ca_file: Path | None = Field(
        None,
        description="PEM file of the authority that signed etcd's certificates; default: the"
        " system's authorities.",
    )
    listen: str = Field(
        "",
        description='host:port for the other hosts of the fleet, e.g. "0.0.0.0:3443"; "" turns it'
        " off: then they cannot show this host's pictures.",
    )
    url: HttpUrl | None = Field(
        None,
        description="Where the other hosts reach `listen`; default: https://, the name of this"
        " host, and the port.",
    )
    ca_file: Path | None = Field(
        None, description="PEM file of the fleet's authority, which signed the hosts' certificates."
    )
    cert_file: Path | None = Field(
        None, description="PEM file of this host's certificate; it is for the host's name."
    )
    key_file: Path | None = Field(None, description="PEM file of the certificate's key.")
    vouch: bool = Field(
        False,
        description="Hosts that cannot reach etcd go on when all other hosts agree; needs listen,"
        " and the same value on all hosts.",
    )
    labels: list[str] = Field(
        [],
        description="More names of this host, for the `hosts` of cameras.",
        examples=[["site-a"]],
    )
    weight: float = Field(
        1.0, gt=0, le=100, description="A host with weight 2 gets twice as many cameras."
    )

    @property
    def host_name(self) -> str:
        """The name of this host in the fleet."""
        return self.host or socket.gethostname()

    @model_validator(mode="after")
    def _check(self) -> FleetTable:
        for url in self.etcd:
            if "@" in urlsplit(url).netloc:
                raise ValueError("etcd: give the login as username and password, not in a URL")
        given = [key for key in PASSWORDS if getattr(self, key) is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} exclude each other")
        if bool(given) != (self.username is not None):
            raise ValueError("username and a password belong together")
        is_https = all(url.startswith("https:") for url in self.etcd)
        if self.etcd_ca_file is not None and not is_https:
            raise ValueError("etcd_ca_file: is for https:// URLs only")
        self._check_listen()
        return self

    def _check_listen(self) -> None:
        files = [getattr(self, key) is not None for key in TLS_FILES]
        host, _, port = self.listen.rpartition(":")
        if self.listen and not (host and port.isascii() and port.isdigit() and int(port) < 65536):
            raise ValueError('listen: expected host:port, e.g. "0.0.0.0:3443", or ""')
        if bool(self.listen) != all(files) or any(files) != all(files):
            raise ValueError(f"listen, {', '.join(TLS_FILES)} belong together")
        if self.url is not None and not self.url.startswith("https:"):
            raise ValueError("url: expected https://")
        if self.vouch and not self.listen:
            raise ValueError("vouch: needs listen, so that the other hosts can ask")

    @property
    def address(self) -> tuple[str, int] | None:
        """(host, port) of `listen`. None when it is turned off."""
        host, _, port = self.listen.rpartition(":")
        return (host.strip("[]"), int(port)) if self.listen else None

    @property
    def own_url(self) -> str:
        """Where the other hosts reach this one. Empty when they cannot."""
        if self.address is None:
            return ""
        return (self.url or f"https://{self.host_name}:{self.address[1]}").rstrip("/")
