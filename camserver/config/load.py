"""Load an Inventory from TOML files, or report all faults at once.

The precedence for a camera's key: the camera, then its profile, then [defaults], then built-in
defaults.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import ValidationError

from camserver.config.checks import (
    STAND_INS,
    device_faults,
    did_you_mean,
    fleet_faults,
    rate_warning,
)
from camserver.config.files import InventoryFiles, builtin_profiles
from camserver.config.fleet import PASSWORDS, TLS_FILES, FleetTable
from camserver.config.health import HealthTable, health_of
from camserver.config.inventory import Camera, Inventory
from camserver.config.model import (
    SECTIONS,
    CameraKeys,
    CameraTable,
    Go2rtcTable,
    HttpTable,
    InventoryTable,
    PollingTable,
)
from camserver.config.table import Table
from camserver.config.urls import HTTP_PORTS, RTSP_PORTS, host_of, split_credentials
from camserver.errors import InventoryError, InventoryUnreadable

UNREAD = "?"
"""Stands for a password that is configured but was not read."""
NO_CREDENTIALS = (
    "systemd gave no credentials (LoadCredential= in the unit); outside of the service there are"
    " none"
)
DEFAULT_PATH = Path("/etc/camserver/cameras.toml")


def load_inventory(
    path: Path, environ: Mapping[str, str] = os.environ, *, passwords: bool = True
) -> Inventory:
    """Read, merge and check an inventory and what it includes.

    Without `passwords` no password is read from a file or from systemd's credentials. Not every
    user of the daemon may read those, and they are not needed to find the socket and the pictures.

    Raises InventoryError with all faults that were found. Nothing of a refused inventory is used.
    Raises InventoryUnreadable when the file itself cannot be read.
    """
    loader = _Loader(path, environ, passwords=passwords)
    try:
        return loader.load()
    except (ValueError, TypeError, OverflowError, RecursionError, OSError) as error:
        # An error that no check expected. Its text is not used, because it may contain values.
        raise InventoryError(
            (f"{path}: cannot be understood ({type(error).__name__})",), loader.files.sources
        ) from None


def camera_from(keys: Mapping[str, Any]) -> Camera:
    """One camera from its keys alone, with the built-in defaults.

    Raises InventoryError with all faults.
    """
    return _Loader(Path(), {}).camera(keys)


class _Loader:
    def __init__(self, path: Path, environ: Mapping[str, str], *, passwords: bool = True) -> None:
        self.path = path
        self.passwords = passwords
        self.environ = environ
        self.warnings: list[str] = []
        self.files = InventoryFiles(path)
        self.faults = self.files.faults
        self._health = HealthTable()
        self._seen: dict[str, Path] = {}

    def load(self) -> Inventory:
        try:
            data = self.files.content(self.path)
        except OSError as error:
            help_ = ""
            if isinstance(error, PermissionError) and self.path == DEFAULT_PATH:
                help_ = (
                    "; root and the group camserver may read it: join it (sudo usermod -aG"
                    " camserver USER, then log in again)"
                )
            raise InventoryUnreadable(
                (f"{self.path}: cannot be read: {error.strerror}{help_}",), self.files.sources
            ) from None
        raw = self.files.parse(self.path, data)
        if raw is None:
            raise InventoryError(tuple(self.faults), self.files.sources)
        self._unknown(raw, InventoryTable, f"{self.path}")
        tables = {
            name: self._table(model, raw.get(name, {}), f"{self.path}: [{name}]")
            for name, model in SECTIONS.items()
        }
        if isinstance(health := tables["health"], HealthTable):
            self._health = health
        tables["fleet"] = self._fleet(raw["fleet"]) if "fleet" in raw else None
        profiles = self._profiles(raw.get("profiles", {}))
        defaults = self._keys(raw.get("defaults", {}), f"{self.path}: [defaults]")
        entries = self.files.entries(raw, self.path) + self.files.included(raw.get("include", []))
        cameras = [
            c
            for source, entry in entries
            if (c := self._camera(source, entry, defaults, profiles)) is not None
        ]
        disabled = sum(
            entry.get("enabled", defaults.get("enabled", True)) is False for _, entry in entries
        )
        self.faults += device_faults(cameras)
        if isinstance(http := tables["http"], HttpTable):
            password = self._password(http, f"{self.path}: [http]")
            if password == "":
                self.faults.append(
                    f"{self.path}: [http]: the password is empty: everybody would know it"
                )
            tables["http"] = http.model_copy(update={"password": password})
        tables["go2rtc"] = self._go2rtc(tables["go2rtc"], cameras)
        self._check_fleet(tables)
        polling = tables["polling"]
        if isinstance(polling, PollingTable) and (warning := rate_warning(cameras, polling)):
            self.warnings.append(f"{self.path}: {warning}")
        if self.faults:
            raise InventoryError(tuple(self.faults), self.files.sources)
        return Inventory(
            **tables,  # type: ignore[arg-type]  # keys and models are those of SECTIONS
            cameras=tuple(cameras),
            disabled=disabled,
            sources=self.files.sources,
            warnings=tuple(self.warnings),
        )

    def camera(self, keys: Mapping[str, Any]) -> Camera:
        """One camera without a file. Raises InventoryError."""
        camera = self._camera(Path(), dict(keys), {}, self._profiles({}))
        if camera is None or self.faults:
            where = f"{Path()}: camera {keys.get('id')!r}: "
            raise InventoryError(tuple(fault.removeprefix(where) for fault in self.faults))
        return camera

    # ---- tables

    def _table(self, model: type[Table], raw: object, where: str) -> Table | None:
        if not isinstance(raw, dict):
            self.faults.append(f"{where}: expected a table")
            return None
        try:
            return model.model_validate(raw)
        except ValidationError as error:
            self._report(error, model, where)
            self._check_the_rest(error, model, raw, where)
            return None

    def _check_the_rest(
        self, error: ValidationError, model: type[Table], raw: dict[str, Any], where: str
    ) -> None:
        """Report faults between keys that are each valid.

        Pydantic does this check only when all keys are valid. So the wrong keys are left out or
        replaced, and the table is checked again.
        """
        wrong = {fault["loc"][0] for fault in error.errors() if fault["loc"]}
        sound = {key: value for key, value in raw.items() if key not in wrong}
        if wrong:
            stand_ins = {key: value for key, value in STAND_INS.items() if key in wrong}
            try:
                model.model_validate(sound | stand_ins)
            except ValidationError as rest:
                self._report(rest, model, where)

    def _keys(self, raw: object, where: str) -> dict[str, Any]:
        """The keys of [defaults] or of a profile.

        They are checked, but returned raw, so that only keys that are in the file override others.
        """
        return (
            raw if self._table(CameraKeys, raw, where) is not None and isinstance(raw, dict) else {}
        )

    def _profiles(self, raw: object) -> dict[str, dict[str, Any]]:
        profiles = builtin_profiles()
        if not isinstance(raw, dict):
            self.faults.append(f"{self.path}: [profiles]: expected tables [profiles.NAME]")
            return profiles
        for name, keys in raw.items():
            profiles[name] = profiles.get(name, {}) | self._keys(
                keys, f"{self.path}: [profiles.{name}]"
            )
        return profiles

    # ---- cameras

    def _camera(
        self,
        source: Path,
        entry: dict[str, Any],
        defaults: dict[str, Any],
        profiles: dict[str, dict[str, Any]],
    ) -> Camera | None:
        camera_id = entry.get("id")
        where = (
            f"{source}: camera {camera_id!r}"
            if camera_id is not None
            else f"{source}: a camera without id"
        )
        if isinstance(camera_id, str):
            if camera_id in self._seen:
                self.faults.append(f"{where}: id: used twice (first in {self._seen[camera_id]})")
            self._seen.setdefault(camera_id, source)
        profile_name = entry.get("profile", defaults.get("profile"))
        profile: dict[str, Any] = {}
        if isinstance(profile_name, str):
            if profile_name in profiles:
                profile = profiles[profile_name]
            else:
                self.faults.append(
                    f"{where}: profile: {profile_name!r} is not"
                    f" known{did_you_mean(profile_name, profiles)}"
                )
        merged = defaults | profile | entry
        # A camera's own password replaces another kind of password from [defaults] or a profile
        if any(k in entry for k in PASSWORDS):
            merged = {k: v for k, v in merged.items() if k not in PASSWORDS or k in entry}
        table = self._table(CameraTable, merged, where)
        if not isinstance(table, CameraTable):
            return None
        return self._resolve(table, where) if table.enabled else None

    def _resolve(self, table: CameraTable, where: str) -> Camera | None:
        before = len(self.faults)
        password = self._password(table, where)
        url, user, secret = split_credentials(table.url)
        sub_url, sub_user, sub_secret = split_credentials(table.sub_url)
        snapshot_url, http_user, http_secret = split_credentials(table.snapshot_url)
        users = {u for u in (table.username, user, sub_user, http_user) if u}
        secrets = {s for s in (password, secret, sub_secret, http_secret) if s}
        if len(users) > 1 or len(secrets) > 1:
            self.faults.append(
                f"{where}: username/password: the fields and the URLs give different credentials"
            )
        if secrets and not users:
            self.faults.append(f"{where}: password: given without a username")
        if not all(user.isprintable() for user in users):  # it could not be sent as it is
            self.faults.append(f"{where}: username: has characters that cannot be shown")
        if len(self.faults) > before:
            return None
        parts = urlsplit(url or snapshot_url or "")
        port = parts.port or (RTSP_PORTS | HTTP_PORTS)[parts.scheme]
        return Camera(
            id=table.id,
            name=table.name or table.id,
            url=url,
            sub_url=sub_url,
            snapshot_url=snapshot_url,
            username=next(iter(users), ""),
            password=next(iter(secrets), ""),
            device=table.device or f"{parts.hostname}:{port}",
            interval_s=table.interval,
            min_interval_s=table.min_interval,
            max_http=table.max_http,
            http_cooldown_s=table.http_cooldown,
            sources=tuple(table.sources),
            timeout_s=table.timeout,
            lease_wait_s=table.lease_wait,
            max_sessions=table.max_sessions,
            cooldown_s=table.cooldown,
            unclean_cooldown_s=table.unclean_cooldown,
            transport=table.transport,
            engine=table.engine,
            width=table.width,
            align=table.align,
            go2rtc=(table.id if table.go2rtc is True else table.go2rtc or None),
            tls_verify=table.tls_verify,
            retention=table.retention,
            lost_cooldown_s=table.lost_cooldown,
            hosts=tuple(table.hosts),
            health=health_of(self._health, table.health),
        )

    def _password(
        self, table: CameraTable | FleetTable | Go2rtcTable | HttpTable, where: str
    ) -> str | None:
        if not self.passwords and (table.password_file or table.password_credential):
            return UNREAD
        if table.password_file is not None:
            key, path = "password_file", self.path.absolute().parent / table.password_file
        elif table.password_credential is not None:
            key, directory = "password_credential", self.environ.get("CREDENTIALS_DIRECTORY")
            if directory is None:
                self.faults.append(f"{where}: {key}: {NO_CREDENTIALS}")
                return None
            if "/" in table.password_credential:
                self.faults.append(f"{where}: {key}: is a name, not a path")
                return None
            path = Path(directory) / table.password_credential
        else:
            return table.password
        try:
            return self.files.password(path)
        except (OSError, ValueError) as error:  # ValueError: not UTF-8, or a NUL in the name
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
            self.faults.append(f"{where}: {key}: {path} cannot be read: {reason}")
            return None

    def _fleet(self, raw: object) -> Table | None:
        """The [fleet] table with its password, and with the whole path of its file."""
        where = f"{self.path}: [fleet]"
        table = self._table(FleetTable, raw, where)
        if not isinstance(table, FleetTable):
            return table
        files: dict[str, Path | None] = {
            key: path and self.path.absolute().parent / path
            for key in ("etcd_ca_file", *TLS_FILES)
            for path in (getattr(table, key),)
        }
        for key in ("etcd_ca_file", "ca_file"):
            if (path := files[key]) is not None:
                self._check_authority(f"{where}: {key}", path)
        if self.passwords and (certificate := files["cert_file"]) is not None:
            self._check_certificate(where, certificate, files["key_file"])
        password = self._password(table, where)
        return table.model_copy(update={"password": password, **files})

    def _check_certificate(self, where: str, certificate: Path, key: Path | None) -> None:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(certificate, key)
        except OSError as error:
            reason = error.reason if isinstance(error, ssl.SSLError) else error.strerror
            self.faults.append(
                f"{where}: cert_file, key_file: {certificate} and {key} cannot be used: {reason}"
            )

    def _check_authority(self, where: str, path: Path) -> None:
        try:
            ssl.create_default_context(cafile=path)
        except OSError as error:  # ssl.SSLError is one
            reason = "it holds no certificate" if isinstance(error, ssl.SSLError) else None
            self.faults.append(f"{where}: {path} cannot be used: {reason or error.strerror}")

    def _check_fleet(self, tables: Mapping[str, Table | None]) -> None:
        fleet, go2rtc = tables["fleet"], tables["go2rtc"]
        if isinstance(fleet, FleetTable) and isinstance(go2rtc, Go2rtcTable):
            self.faults += [f"{self.path}: {fault}" for fault in fleet_faults(fleet, go2rtc)]

    def _go2rtc(self, table: Table | None, cameras: list[Camera]) -> Table | None:
        """The [go2rtc] table with its password and the URL of its RTSP server."""
        if not isinstance(table, Go2rtcTable):
            return table
        streams = [camera.id for camera in cameras if camera.go2rtc is not None]
        if table.api is None:
            if streams:
                self.faults.append(
                    f"camera {streams[0]!r}: go2rtc: there is no [go2rtc] api to ask"
                    + (f" (and {len(streams) - 1} more cameras)" if streams[1:] else "")
                )
            return table
        password = self._password(table, f"{self.path}: [go2rtc]")
        return table.model_copy(
            update={"password": password, "rtsp": table.rtsp or f"rtsp://{host_of(table.api)}:8554"}
        )

    # ---- faults

    def _unknown(self, raw: dict[str, Any], model: type[Table], where: str) -> None:
        self.faults += [
            f"{where}: {key}: unknown key{did_you_mean(key, model.model_fields)}"
            for key in raw
            if key not in model.model_fields
        ]

    def _report(self, error: ValidationError, model: type[Table], where: str) -> None:
        for fault in error.errors(include_input=False, include_url=False, include_context=False):
            key = ".".join(str(part) for part in fault["loc"])
            if fault["type"] == "extra_forbidden":
                known = model.model_fields if len(fault["loc"]) == 1 else {}
                text = f"unknown key{did_you_mean(key, known)}"
            elif fault["type"] == "string_pattern_mismatch" and key == "id":
                text = (
                    "must be lower-case letters, digits, - and _, 64 at most, beginning with a"
                    " letter or digit"
                )
            else:
                text = fault["msg"].removeprefix("Value error, ")
            self.faults.append(f"{where}: {key}: {text}" if key else f"{where}: {text}")
