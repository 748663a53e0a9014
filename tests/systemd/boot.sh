#!/usr/bin/env bash
# Boots the machine's own systemd as PID 1 of new namespaces and runs one command beside it. Nothing
# is left behind.
#
#   boot.sh SITE_PACKAGES_PARENT CHECKOUT COMMAND [ARG...]
#
# Exit status: COMMAND's, or 125 when it did not boot.
#
# The root is an overlay of the host's: all writes go to a tmpfs. /opt/camserver is an overlay of
# the virtual environment (first argument) with the checkout's package in it, as `make install`
# would put it there; the network is a loopback.
set -euo pipefail

if [ "$1" = --pid1 ]; then                      # inside: build the root, then become systemd
  work=$2 venv=$3 checkout=$4
  mount -t tmpfs tmpfs "$work"
  mkdir "$work"/{up,work,root,venv-up,venv-work}
  mount -t overlay overlay -o "lowerdir=/,upperdir=$work/up,workdir=$work/work" "$work/root"
  root=$work/root
  mkdir -p "$root/opt/camserver"
  mount -t overlay overlay \
    -o "lowerdir=$venv,upperdir=$work/venv-up,workdir=$work/venv-work" "$root/opt/camserver"
  packages=$(echo "$root"/opt/camserver/lib/python3*/site-packages)
  rm -f "$packages"/__editable__*camserver* "$packages"/*camserver*.pth
  cp -r "$checkout/camserver" "$packages/camserver"
  sed -i '1s|.*|#!/opt/camserver/bin/python|' "$root/opt/camserver/bin/camserver"
  mkdir -p "$root/checkout"
  mount --bind "$checkout" "$root/checkout"
  cd "$root"
  mount -t proc proc proc
  mount -t sysfs -o ro sysfs sys
  mount -t cgroup2 cgroup2 sys/fs/cgroup
  mount -t tmpfs -o mode=755 tmpfs dev
  mkdir dev/{pts,shm,mqueue}
  # PrivateDevices= wants them all
  mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts dev/pts
  ln -s pts/ptmx dev/ptmx
  while read -r name major minor; do mknod -m 666 "dev/$name" c "$major" "$minor"; done \
    <<< $'null 1 3\nzero 1 5\nfull 1 7\nrandom 1 8\nurandom 1 9\ntty 5 0'
  ln -s /proc/self/fd dev/fd
  ln -s null dev/console
  mount -t tmpfs -o mode=755 tmpfs run
  mount -t tmpfs -o mode=755 tmpfs etc/systemd/system         # the host's own services stay out
  for unit in systemd-udevd.service systemd-logind.service systemd-journald-audit.socket \
    getty.target dev-hugepages.mount systemd-remount-fs.service; do
    ln -s /dev/null "etc/systemd/system/$unit"
  done
  mkdir -p etc/tmpfiles.d
  : > etc/tmpfiles.d/tmp.conf                                 # Debian's empties /tmp at boot
  : > etc/fstab
  rm -rf var/log/journal
  mkdir .old
  pivot_root . .old
  cd /
  umount -l /.old
  mount --make-rshared /                                      # LoadCredential= needs it
  exec env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 \
    /lib/systemd/systemd --unit=multi-user.target --log-target=journal --show-status=no </dev/null
fi

venv=$(realpath "$1") checkout=$(realpath "$2")
shift 2
namespaces=(--mount --uts --ipc --pid --cgroup --net)
work=$(mktemp -d)
cgroup=/sys/fs/cgroup$(sed -n 's/^0:://p' /proc/self/cgroup)/camserver-test.$$
mountpoint -q /sys/fs/cgroup && [ -e /sys/fs/cgroup/cgroup.procs ] ||
  cgroup=$(findmnt -n -o TARGET -t cgroup2 | tail -n 1)$(
    sed -n 's/^0:://p' /proc/self/cgroup)/camserver-test.$$
outer=""
finish() {
  trap - EXIT
  # --kill-child: systemd dies with it, and all with systemd
  [ -z "$outer" ] || kill -KILL "$outer" 2>/dev/null || true
  [ -z "$outer" ] || wait "$outer" 2>/dev/null || true
  for _ in 1 2 3 4 5 6 7 8 9 10; do
    find "$cgroup" -depth -type d -exec rmdir {} + 2>/dev/null || true
    [ -d "$cgroup" ] || break
    sleep 0.1
  done
  rm -f "$work.log"
  rmdir "$work" 2>/dev/null || true
}
trap finish EXIT
trap 'exit 143' TERM INT HUP
mkdir "$cgroup" || exit 125
(
  echo "$BASHPID" > "$cgroup/cgroup.procs"
  exec setpriv --pdeathsig KILL unshare "${namespaces[@]}" --fork --kill-child=KILL \
    "$BASH" "$0" --pid1 "$work" "$venv" "$checkout"
) > "$work.log" 2>&1 </dev/null &
outer=$!
state="" inner=""
for _ in $(seq 600); do
  kill -0 "$outer" 2>/dev/null || break
  inner=$(pgrep -P "$outer" || true)
  [ -z "$inner" ] || state=$(nsenter -t "$inner" --mount --uts --ipc --pid --cgroup --net \
    systemctl is-system-running 2>/dev/null || true)
  case $state in running | degraded) break ;; esac
  sleep 0.05
done
case $state in
  running | degraded) ;;
  *) echo "systemd did not boot ($state)" >&2; cat "$work.log" >&2; exit 125 ;;
esac
# beside PID 1's own groups, in one that dies with the test
mkdir "$cgroup/command"
status=0
nsenter -t "$inner" --mount --uts --ipc --pid --cgroup --net \
  sh -c 'echo $$ > /sys/fs/cgroup/command/cgroup.procs; cd /checkout; exec "$@"' \
    sh "$@" </dev/null || status=$?
[ ! -e "$cgroup/command/cgroup.kill" ] || echo 1 > "$cgroup/command/cgroup.kill"
exit "$status"
