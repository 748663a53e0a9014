#!/usr/bin/env bash
# Runs inside boot.sh: a daemon that hangs, one that dies again and again, a credential, and what
# the sandbox must refuse. Prints what systemd says as key=value lines.
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
useradd -m go2rtc
install -d -m 750 -g camserver /etc/camserver
install -m 644 systemd/camserver.service systemd/camserver.socket /etc/systemd/system
install -D -m 600 /dev/stdin /etc/credentials/gate <<< 'p@ss/w?rd'
install -m 644 tests/systemd/probe.py /run/probe.py
mkdir /etc/systemd/system/camserver.service.d
cat > /etc/systemd/system/camserver.service.d/test.conf <<'END'
[Unit]
StartLimitBurst=5
[Service]
WatchdogSec=2
RestartSec=100ms
LoadCredential=gate:/etc/credentials/gate
ExecStartPre=/opt/camserver/bin/python /run/probe.py
END
# SIGUSR2 makes the event loop hang
packages=$(echo /opt/camserver/lib/python3*/site-packages)
echo 'import hang' > "$packages/hang.pth"
cat > "$packages/hang.py" <<'END'
import signal
import time
signal.signal(signal.SIGUSR2, lambda *_: time.sleep(1000))
END
systemctl daemon-reload

/opt/camserver/bin/camserver simulate --cameras 1 --base-port 8554 --codec h264 \
  --username viewer --password-file /etc/credentials/gate --inventory /run/cameras.toml \
  --interval 500ms >/dev/null 2>&1 &
wait_for '[ -s /run/cameras.toml ]'
sed 's/^password = .*/password_credential = "gate"/' /run/cameras.toml |
  install -m 640 -g camserver /dev/stdin /etc/camserver/cameras.toml
say credential "$(grep -c password_credential /etc/camserver/cameras.toml)"

journal() { journalctl -u camserver -o cat --no-pager; }
systemctl start camserver; say start "$?"
wait_for '[ "$(journalctl -u camserver -o cat --no-pager EVENT=daemon.ready | wc -l)" -gt 0 ]'
say ready "$(journalctl -u camserver -o cat --no-pager EVENT=daemon.ready | wc -l)"
wait_for "[ -e $pictures/latest.jpg ]"
say picture "$(head -c 2 $pictures/latest.jpg | od -An -tx1 | tr -d ' ')"
say probe "$(cat /run/camserver/probe)"
say secret "$(journal | grep -c -e 'p@ss/w' -e 'p%40ss')"

kill -STOP "$(show MainPID)"
wait_for '[ "$(show NRestarts)" = 1 ] && [ "$(show ActiveState)" = active ]'
say after_stop "$(show NRestarts)"
fresh() {
  before=$(stat -c %Y.%i $pictures/latest.jpg)
  wait_for "[ \"\$(stat -c %Y.%i $pictures/latest.jpg)\" != '$before' ]"
}
fresh
kill -USR2 "$(show MainPID)"
wait_for '[ "$(show NRestarts)" = 2 ] && [ "$(show ActiveState)" = active ]'
say after_hang "$(show NRestarts)"
say watchdog "$(journal | grep -c 'Watchdog timeout')"
fresh

for _ in 1 2 3 4 5; do
  pid=$(show MainPID)
  [ "$pid" = 0 ] || kill -KILL "$pid"
  wait_for "[ \"\$(show MainPID)\" != $pid ] &&
    { [ \"\$(show ActiveState)\" = active ] || [ \"\$(show ActiveState)\" = failed ]; }"
  [ "$(show ActiveState)" = failed ] && break
done
say limit "$(show ActiveState)"
say whole "$(tail -c 2 $pictures/latest.jpg | od -An -tx1 | tr -d ' ')"
