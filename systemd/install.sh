#!/usr/bin/env bash
# Puts camserver under systemd: venv in /opt/camserver, reference inventory in /etc/camserver if none is there, the unit.
# `--uninstall` takes the program and the unit away; inventory and pictures stay.
set -euo pipefail
cd "$(dirname "$0")/.."
prefix=/opt/camserver sysusers=/usr/lib/sysusers.d/camserver.conf units=/etc/systemd/system
[ "$(id -u)" = 0 ] || { echo "run me as root: sudo make install" >&2; exit 1; }

if [ "${1:-}" = --uninstall ]; then
  systemctl disable --now camserver.socket camserver.service 2>/dev/null || true
  rm -rf "$prefix" "$units"/camserver.{service,socket} "$sysusers"
  systemctl daemon-reload
  echo "camserver is gone; /etc/camserver and /var/lib/camserver stay"
  exit 0
fi

# the distribution's Python: one below /root would be out of the service's reach
/usr/bin/python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "needs /usr/bin/python3 >= 3.11" >&2; exit 1; }
[ -x "$prefix/bin/python" ] || /usr/bin/python3 -m venv "$prefix"
"$prefix/bin/pip" install -q --disable-pip-version-check -c constraints.txt wheel setuptools
"$prefix/bin/pip" install -q --disable-pip-version-check -c constraints.txt --upgrade .
install -D -m 644 systemd/camserver.sysusers "$sysusers"
systemd-sysusers "$sysusers"
# the inventory holds passwords: only root writes it, only the service reads it
install -d -m 750 -g camserver /etc/camserver
[ -e /etc/camserver/cameras.toml ] || install -m 640 -g camserver config/cameras.toml /etc/camserver/cameras.toml
install -m 644 systemd/camserver.service systemd/camserver.socket "$units"
systemctl daemon-reload
echo "installed. Edit /etc/camserver/cameras.toml, then: systemctl enable --now camserver"
