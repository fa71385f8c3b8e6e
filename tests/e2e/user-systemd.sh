#!/bin/bash
# Runs a command under a real systemd user manager with its own D-Bus and journal, and returns the command's exit code.
#
#   tests/e2e/user-systemd.sh CMD [ARG…]
#
# Where `systemctl --user` already answers for the caller, that manager is used and CMD simply runs. Otherwise, as root,
# a private one is made, because build machines and containers have no login, no lingering and often no systemd as
# process 1. Each namespace is there for one reason:
#   cgroup  the manager must own a subtree that looks like /user.slice/user-UID.slice/user@UID.service: journald reads
#           unit names from exactly that path, and the manager kills units through it;
#   mount   a private /run (manager, bus and journald sockets), /var/log (journal files), /sys/fs/cgroup and user
#           database, so that nothing of the machine's own systemd is seen or changed;
#   pid     everything dies with the namespace's first process, however CMD ends.
# The network, /tmp and the source tree are the machine's own: tests take free ports and work below $TMPDIR.
#
#   UM_UID   the user to run as. Default: a throwaway user (54321) if it can read the current directory and CMD, else 0.
#   UM_PASS  names of further variables to hand through, separated by spaces. Always handed through: PATH, LANG, LC_*,
#            TERM, NO_COLOR, GPUMOD_*, LLAMA_*, GTEST_*, CTEST_*, and the sanitizers' *SAN_OPTIONS.
#   UM_JOURNAL=all  run as a member of systemd-journal.
#
# Exit code 77: such a manager cannot be made here; the reason is on standard error. 99: it was made and did not come up.
set -euo pipefail

cannot() { echo "user-systemd: $*" >&2; exit 77; }

# --- outside: the cgroup and the namespaces ---------------------------------------------------------------------------

outside() {
  [ $# -gt 0 ] || { sed -n '2,4s/^# \{0,1\}//p' "$0" >&2; exit 2; }
  case $(systemctl --user is-system-running 2>/dev/null) in running | degraded) exec "$@" ;; esac

  [ "$(id -u)" = 0 ] || cannot "no user manager answers here, and only root can make a private one"
  [ -x /lib/systemd/systemd ] || cannot "systemd is not installed (Debian package: systemd)"
  [ -e /usr/lib/systemd/user/dbus.socket ] || cannot "no D-Bus for user sessions (Debian package: dbus-user-session)"

  local uid=${UM_UID:-54321}
  if [ -z "${UM_UID:-}" ] && ! readable_by "$uid" "$@"; then uid=0; fi

  local mounted own
  mounted=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/mounts)
  [ -n "$mounted" ] || cannot "no cgroup2 hierarchy is mounted"
  own=$(awk -F: '$1 == "0" { print $3 }' /proc/self/cgroup)
  subtree=${mounted}${own%/}/gpumod-e2e-$$
  mkdir "$subtree" 2>/dev/null || cannot "cannot create a control group below ${mounted}${own}"
  trap remove_subtree EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM HUP

  local rc=0
  ( echo "$BASHPID" >"$subtree/cgroup.procs"
    exec setpriv --pdeathsig KILL \
      unshare --cgroup --mount --propagation private --pid --fork --kill-child --mount-proc \
      "$self" --inside "$uid" "$@" ) || rc=$?
  exit "$rc"
}

readable_by() {
  local uid=$1 command=$2
  local as=(setpriv --reuid "$uid" --regid "$uid" --clear-groups)
  "${as[@]}" test -r . -a -x . 2>/dev/null || return 1
  case $command in */*) "${as[@]}" test -x "$command" 2>/dev/null || return 1 ;; esac
}

remove_subtree() {
  { echo 1 >"$subtree/cgroup.kill"; } 2>/dev/null || :
  # The kernel needs a moment to let go of the killed; rmdir says when.
  local left
  for left in $(seq 200); do
    find "$subtree" -depth -type d -exec rmdir {} + 2>/dev/null && return
    sleep 0.02
  done
  echo "user-systemd: could not remove $subtree" >&2
}

# --- inside: first process of the pid namespace -----------------------------------------------------------------------

inside() {
  uid=$1
  shift
  private_machine
  private_user
  start_journald
  start_manager
  local rc=0
  ( join "$session"; exec "${as_user[@]}" "$@" ) || rc=$?
  exit "$rc"
}

private_machine() {
  umount -R /sys/fs/cgroup 2>/dev/null || :
  mount -t cgroup2 none /sys/fs/cgroup
  # A tree that lies below /run would vanish; nobody builds there.
  mount -t tmpfs -o mode=755,exec tmpfs /run
  mount -t tmpfs -o mode=755 tmpfs /var/log
  mkdir -p /run/lock /run/systemd/journal /run/systemd/journald.conf.d /var/log/journal
  mkdir -p /run/systemd/system # sd_booted(): libraries look for this directory to believe that systemd runs
  if [ ! -s /etc/machine-id ]; then
    tr -d - </proc/sys/kernel/random/uuid >/run/machine-id
    [ -e /etc/machine-id ] || : >/etc/machine-id
    mount --bind /run/machine-id /etc/machine-id
  fi
}

private_user() {
  # Without an entry in the user database neither dbus-daemon nor the manager would start for the throwaway user.
  user=$(getent passwd "$uid" | cut -d: -f1) || :
  if [ -z "$user" ]; then
    user=gpumod-e2e
    local file
    for file in passwd group; do cp "/etc/$file" "/run/$file"; done
    echo "$user:x:$uid:$uid::/run/home:/bin/sh" >>/run/passwd
    echo "$user:x:$uid:" >>/run/group
    for file in passwd group; do mount --bind "/run/$file" "/etc/$file"; done
  fi
  install -d -m 700 -o "$uid" -g "$uid" /run/home /run/home/tmp "/run/user/$uid"
  chmod 755 /run/user

  slice=/sys/fs/cgroup/user.slice/user-$uid.slice
  service=$slice/user@$uid.service
  session=$slice/session-1.scope
  mkdir -p "$service" "$session"
  # Delegation: the manager makes cgroups below its own, and may move processes of the session (systemd-run --scope).
  chown "$uid" "$slice/cgroup.procs" "$service" "$service"/cgroup.{procs,threads,subtree_control} "$session/cgroup.procs"

  # Most people may read their own journal alone; UM_JOURNAL=all makes one who may read the system's as well.
  local groups=(--init-groups)
  [ "${UM_JOURNAL:-}" != all ] || groups=(--groups "$(getent group systemd-journal | cut -d: -f3)")
  as_user=(setpriv --reuid "$uid" --regid "$(id -g "$user")" "${groups[@]}"
    env -i HOME=/run/home TMPDIR=/run/home/tmp USER="$user" LOGNAME="$user" SHELL=/bin/sh LANG=C.UTF-8
    XDG_RUNTIME_DIR="/run/user/$uid" DBUS_SESSION_BUS_ADDRESS="unix:path=/run/user/$uid/bus")
  manager=("${as_user[@]}" "PATH=$PATH")
  local name
  for name in $(compgen -e); do
    case $name in
      PATH | LANG | LC_* | TERM | NO_COLOR | GPUMOD_* | LLAMA_* | GTEST_* | CTEST_* | ?SAN_OPTIONS | UBSAN_OPTIONS) ;;
      *) case " ${UM_PASS:-} " in *" $name "*) ;; *) continue ;; esac ;;
    esac
    as_user+=("$name=${!name}")
  done
}

join() { echo "$BASHPID" >"$1/cgroup.procs"; }

start_journald() {
  # Persistent storage, because only then does journald keep a file per user that this user may read. A test may log
  # more than the rate limit allows.
  printf '%s\n' '[Journal]' 'Storage=persistent' 'RateLimitIntervalSec=0' 'ReadKMsg=no' 'Audit=no' 'ForwardToSyslog=no' \
    'ForwardToWall=no' >/run/systemd/journald.conf.d/99-gpumod-e2e.conf
  : >/run/systemd/journal/flushed # else it waits for systemd-journal-flush.service before it writes to /var/log
  install -d -m 2755 -g systemd-journal /var/log/journal # as systemd-tmpfiles makes it
  /lib/systemd/systemd-journald </dev/null &
  wait_until "journald" test -S /run/systemd/journal/stdout
}

start_manager() {
  ( join "$service"; cd /; exec "${manager[@]}" /lib/systemd/systemd --user --log-target=journal ) </dev/null &
  wait_until "systemd --user" manager_is_up
}

manager_is_up() {
  case $("${manager[@]}" systemctl --user is-system-running 2>/dev/null) in running | degraded) return 0 ;; esac
  return 1
}

wait_until() {
  local what=$1 tries
  shift
  for tries in $(seq 1000); do
    "$@" && return
    sleep 0.01
  done
  echo "user-systemd: $what did not come up within 10 s" >&2
  journalctl --quiet --no-pager >&2 || :
  exit 99
}

self=$(readlink -f "$0")
if [ "${1:-}" = --inside ]; then
  shift
  inside "$@"
else
  outside "$@"
fi
