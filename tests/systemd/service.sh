#!/usr/bin/env bash
# Runs inside boot.sh: installs the unit as install.sh does, and prints what systemd says as
# key=value lines.
set -u
say() { echo "$1=$2"; }
show() { systemctl show -p "$1" --value camserver; }
wait_for() {
  for _ in $(seq 600); do if eval "$1"; then return; fi; sleep 0.05; done
  echo "timeout=$1"
}
pictures=/var/lib/camserver/snapshots/cam1
ip link set lo up

install -D -m 644 systemd/camserver.sysusers /usr/lib/sysusers.d/camserver.conf
systemd-sysusers /usr/lib/sysusers.d/camserver.conf
install -d -m 750 -g camserver /etc/camserver
install -m 644 systemd/camserver.service systemd/camserver.socket /etc/systemd/system
systemctl daemon-reload
say exposure "$(systemd-analyze security --no-pager camserver 2>/dev/null |
  sed -n 's/.*exposure level for camserver.service: \([0-9.]*\).*/\1/p')"
say verify "$(systemd-analyze verify --man=no camserver.service camserver.socket 2>&1 |
  grep -c camserver)"

/opt/camserver/bin/camserver simulate --cameras 1 --base-port 8554 --codec h264 \
  --inventory /etc/camserver/cameras.toml \
  --interval 500ms --record /run/record.json >/dev/null 2>&1 &
wait_for '[ -s /etc/camserver/cameras.toml ]'
chgrp camserver /etc/camserver/cameras.toml; chmod 640 /etc/camserver/cameras.toml

systemctl start camserver; say start "$?"
say user "$(ps -o user= -p "$(show MainPID)" | tr -d ' ')"
wait_for "[ -e $pictures/latest.jpg ]"
say picture "$(head -c 2 $pictures/latest.jpg | od -An -tx1 | tr -d ' ')"
journal() { journalctl -u camserver -o cat --no-pager "$@" | wc -l; }
wait_for '[ "$(journal EVENT=snapshot.published CAMERA=cam1)" -gt 0 ] &&
  [ "$(journal EVENT=lease.released CAMERA=cam1)" -gt 0 ]'
say journal "$(journal EVENT=snapshot.published CAMERA=cam1 SOURCE=rtsp)"
filters() { sed -n 's/^Seccomp_filters:[^0-9]*//p' "/proc/$1/status"; }
say socket "$(stat -c '%a %U %G' /run/camserver/camserver.sock)"
say leases "$(/opt/camserver/bin/camserver leases | grep -c '127.0.0.1:8554')"
most_filters=$(for p in $(pgrep -f camserver.capture.worker); do filters "$p"; done |
  sort -n | tail -1)
say sealed "$((most_filters - $(filters "$(show MainPID)")))"
say unsealed "$(journalctl -u camserver -o cat --no-pager | grep -c 'not sealed')"
say lease "$(journalctl -u camserver -o cat --no-pager |
  grep -c 'RTSP access released camera_id=cam1')"
wait_for 'systemctl status camserver --no-pager | grep -q "Status: .1 cameras: 1 fresh"'
say status "$(show StatusText)"

good=$(cat /etc/camserver/cameras.toml)
pid=$(show MainPID)
echo 'intervall = "1s"' >> /etc/camserver/cameras.toml
systemctl reload camserver 2>/dev/null; say reload_refused "$?"
wait_for 'journalctl -u camserver -o cat --no-pager | grep -q "did you mean .interval"'
say refused "$(show ActiveState) $([ "$pid" = "$(show MainPID)" ] && echo same)"
echo "$good" > /etc/camserver/cameras.toml
systemctl reload camserver; say reload "$?"
wait_for 'journalctl -u camserver -o cat --no-pager | grep -q "1 cameras$"'

# a wrapped command of another user: a restart neither ends it nor opens a session beside it, and
# clients only wait
useradd -G camserver go2rtc
record() { sed -n "s/.*\"$1\": \([0-9]*\).*/\1/p" /run/record.json; }
leases() { /opt/camserver/bin/camserver leases; }
setpriv --reuid go2rtc --regid go2rtc --init-groups \
  /opt/camserver/bin/camserver lease --label film --wait 20 cam1 -- sleep 1000 &
wait_for 'leases | grep -q "live film"'
say holder "$(leases | grep -c "live film  *[0-9]*  *camserver ")"
say holder_uid "$(/opt/camserver/bin/camserver leases --json |
  sed -n 's/.*"uid": \([0-9]*\).*/\1/p' | grep -cx "$(id -u go2rtc)")"
wait_for '[ "$(record sessions_now)" = 0 ]'; sleep 1
opens=$(record opens)
refused=0
(for _ in 1 2 3; do systemctl restart camserver; done; touch /run/restarted) &
until [ -e /run/restarted ]; do leases >/dev/null || refused=$((refused + 1)); done
say refused_meanwhile "$refused"
wait_for 'leases | grep -q "live film"'
# a poll has tried, and was told to wait
wait_for '[ "$(leases | tail -1 | awk "{print \$NF}")" -gt 0 ]'
say lease_kept "$(pgrep -x sleep -u go2rtc | wc -l) $(($(record opens) - opens))"
pkill -x sleep -u go2rtc
wait_for "[ \"\$(record opens)\" -gt $opens ]"

pid=$(show MainPID)
kill -KILL "$pid"
# right after the kill it still is
wait_for '[ "$(show NRestarts)" = 1 ] && [ "$(show ActiveState)" = active ]'
say restarted "$(show NRestarts)"
before=$(stat -c %Y.%i $pictures/latest.jpg)
wait_for "[ \"\$(stat -c %Y.%i $pictures/latest.jpg)\" != '$before' ]"
say fresh_again 1

systemctl stop camserver
say stop "$(show Result) $(show ExecMainStatus)"
sleep 1
say sessions_left "$(sed -n 's/.*"sessions_now": \([0-9]*\).*/\1/p' /run/record.json)"
say sessions_max "$(sed -n 's/.*"sessions_max": \([0-9]*\).*/\1/p' /run/record.json)"
say temporary "$(find /var/lib/camserver -name '*.tmp' | wc -l)"

echo 'nonsense = 1' > /etc/camserver/cameras.toml
systemctl start camserver
say bad_start "$(show ExecMainStatus) $(show NRestarts)"
