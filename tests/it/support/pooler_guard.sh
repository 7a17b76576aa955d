#!/bin/sh
# Runs one private PgBouncer in transaction mode for a test process, and ends it when that process ends, even by SIGKILL: then
# this script's standard input is closed.
#
# usage: pooler_guard.sh PORT POSTGRES_PORT PASSWORD SETTINGS
set -eu
trap '' INT TERM HUP PIPE
program=$(command -v pgbouncer || ls /usr/sbin/pgbouncer)

# PgBouncer refuses to run as root.
user=$(id -un)
[ "$user" != root ] || { id postgres >/dev/null 2>&1 && user=postgres || user=nobody; }
dir=$(mktemp -d "${TMPDIR:-/tmp}/postiz-test-pgbouncer.XXXXXX")
cat >"$dir/users" <<END
"postgres" "$3"
END
cat >"$dir/pgbouncer.ini" <<END
[databases]
* = host=127.0.0.1 port=$2
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = $1
unix_socket_dir =
auth_type = plain
auth_file = $dir/users
pool_mode = transaction
default_pool_size = 3
max_client_conn = 300
logfile = $dir/log
$4
END
chown -R "$user" "$dir"
if [ "$user" = "$(id -un)" ]; then set -- "$program"; else set -- setpriv --reuid "$user" --regid "$user" --clear-groups "$program"; fi
"$@" -q "$dir/pgbouncer.ini" >/dev/null 2>&1 &
pooler=$!
trap 'kill -KILL $pooler 2>/dev/null || true; rm -rf "$dir"' EXIT
read -r _ || true
