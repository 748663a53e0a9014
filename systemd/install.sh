#!/usr/bin/env bash
# Puts camserver under systemd: venv in /opt/camserver, reference inventory in /etc/camserver if none is there, the unit,
# `camserver` in PATH. Again: an upgrade; a daemon that runs is restarted.
# `--uninstall` takes the program and the unit away; inventory and pictures stay.
set -euo pipefail
cd "$(dirname "$0")/.."
prefix=/opt/camserver sysusers=/usr/lib/sysusers.d/camserver.conf units=/etc/systemd/system link=/usr/local/bin/camserver
inventory=/etc/camserver/cameras.toml
[ "$(id -u)" = 0 ] || { echo "run me as root: sudo make install" >&2; exit 1; }
ours() { [ "$(readlink "$link")" = "$prefix/bin/camserver" ]; }

if [ "${1:-}" = --uninstall ]; then
  systemctl disable --now camserver.socket camserver.service 2>/dev/null || true
  ! ours || rm -f "$link"
  rm -rf "$prefix" "$units"/camserver.{service,socket} "$sysusers"
  systemctl daemon-reload
  echo "camserver is gone; /etc/camserver and /var/lib/camserver stay"
  exit 0
fi

# the distribution's Python: one below /root would be out of the service's reach
/usr/bin/python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "needs /usr/bin/python3 >= 3.11" >&2; exit 1; }
[ -x "$prefix/bin/python" ] || /usr/bin/python3 -m venv "$prefix"
"$prefix/bin/pip" install -q --disable-pip-version-check -c constraints.txt wheel setuptools
"$prefix/bin/pip" install -q --disable-pip-version-check -c constraints.txt --upgrade ".[fleet]"
if ours || [ ! -e "$link" ]; then
  ln -sfn "$prefix/bin/camserver" "$link"
else
  echo "$link is not ours and stays; the command is $prefix/bin/camserver" >&2
fi
install -D -m 644 systemd/camserver.sysusers "$sysusers"
systemd-sysusers "$sysusers"
# the inventory holds passwords: only root writes it, only the service reads it
install -d -m 750 -g camserver /etc/camserver
[ -e "$inventory" ] || install -m 640 -g camserver config/cameras.toml "$inventory"
install -m 644 systemd/camserver.service systemd/camserver.socket "$units"
systemctl daemon-reload

version=$("$prefix/bin/camserver" --version)
if ! systemctl is-active --quiet camserver.service; then
  echo "$version is installed. Edit $inventory, then: systemctl enable --now camserver"
elif "$prefix/bin/camserver" check --without-passwords --config "$inventory" >/dev/null; then
  systemctl restart camserver.service
  echo "$version is installed; the daemon was running and has been restarted"
else
  echo "$version is installed, but it refuses $inventory (see above): the old daemon runs on." >&2
  echo "Mend the inventory, then: systemctl restart camserver" >&2
  exit 1
fi
