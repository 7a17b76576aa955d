#!/bin/sh
# Runs one private PostgreSQL for a test process, and removes it when that process ends, even by SIGKILL: then this script's
# standard input is closed. The commands on it are start, stop, reload, kill, sigkill, freeze, thaw and folder; each is
# answered with a line.
#
# usage: postgres_guard.sh PORT PASSWORD [TEMPLATE [tls]]   TEMPLATE: the folder of a guard whose initial data are copied, or ""
set -eu
# PIPE is ignored because writing an answer to a test process that has ended must not prevent the cleanup.
trap '' INT TERM HUP PIPE
port=$1 password=$2 template=${3:-}
. "$(dirname "$0")/certificates.sh"

# PostgreSQL refuses to run as root.
user=$(id -un)
[ "$user" != root ] || { id postgres >/dev/null 2>&1 && user=postgres || user=nobody; }
as_user() {
    if [ "$user" = "$(id -un)" ]; then "$@"; else runuser -u "$user" -- "$@"; fi
}

# Debian keeps the server's programs out of the PATH, in a folder for each version.
bin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1)
[ -n "$bin" ] || bin=$(dirname "$(command -v initdb)") || { echo "PostgreSQL's server is not installed"; exit 1; }

dir=$(mktemp -d "${TMPDIR:-/tmp}/postiz-test-postgres.XXXXXX")
# Root may have made the folder, and the user must be able to enter it.
chown "$user" "$dir"
cd "$dir"
# signal NAME: sends a signal to the server and all its processes, if it runs.
signal() {
    server=$(head -n 1 "$dir/data/postmaster.pid" 2>/dev/null) || return 0
    kill "-$1" "$server" $(cat "/proc/$server/task/$server/children" 2>/dev/null || pgrep -P "$server") 2>/dev/null || true
}
# A trap, since `set -e` may end this script anywhere.
trap 'signal CONT; as_user "$bin/pg_ctl" -D data -m immediate stop >/dev/null 2>&1 || true; cd /; rm -rf "$dir"' EXIT

# With "tls" it also accepts encrypted connections. Its certificate is for localhost and signed by ca.crt; other.crt has signed
# nothing. server.crt and server.key are read at each start. Authentication is SCRAM, except that carol needs a certificate
# signed by ca.crt, and dave is rejected over TLS. Its folder has a socket with peer authentication.
tls=
if [ "${4:-}" = tls ]; then
    self_signed ca ca $key
    self_signed other other $key
    signed server localhost ca DNS:localhost $key
    # Some tests use weak keys, which Debian's openssl refuses by default.
    printf '%s\n' 'openssl_conf = a' '[a]' 'ssl_conf = b' '[b]' 'system_default = c' '[c]' 'CipherString = DEFAULT:@SECLEVEL=0' >weak.cnf
    export OPENSSL_CONF="$dir/weak.cnf"
    tls="-c ssl=on -c ssl_cert_file=$dir/server.crt -c ssl_key_file=$dir/server.key -c ssl_ca_file=$dir/ca.crt \
        -c unix_socket_directories=$dir"
fi

pg() { as_user "$bin/pg_ctl" -D data -s -w -l log "$@" </dev/null >/dev/null 2>&1; }
protect_key() { [ -z "$tls" ] || { chown "$user" server.key && chmod 600 server.key; }; }
start() {
    protect_key
    # TCP and fsync as in production; many connections, since many servers are tested at the same time.
    pg start -o "-p $port -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c max_connections=400 $tls"
}

echo "$password" >password
chown "$user" password
if [ -n "$template" ]; then
    cp -a "$template/new" data
else
    as_user "$bin/initdb" -D data -U postgres -A password --pwfile=password --no-locale -E UTF8 --no-sync \
        --wal-segsize=1 >initdb.log 2>&1 ||
        { tr '\n' ' ' <initdb.log; exit 1; }
    cp -a data new
fi
[ -z "$tls" ] || cat >data/pg_hba.conf <<END
local all all peer
hostssl all carol all cert
hostssl all dave all reject
host all all all scram-sha-256
END
start || { tr '\n' ' ' <log; exit 1; }
echo ready

while read -r command; do
    case $command in
    start) start ;;
    stop) pg stop -m fast ;;
    reload) protect_key && pg reload ;;
    kill) pg stop -m immediate ;;
    # All processes are killed, so the lock file can go: a new server could mistake a zombie for a running server.
    sigkill) signal KILL && rm -f data/postmaster.pid ;;
    freeze) signal STOP ;;
    thaw) signal CONT ;;
    folder) echo "$dir" && continue ;;
    esac && echo done || echo failed
done
