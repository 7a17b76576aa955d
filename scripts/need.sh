# Sourced by the other scripts: makes sure that a program is installed. Installs its Debian package as root, or says what to do.

# need PROGRAM PACKAGE
need() {
    command -v "$1" >/dev/null && return
    if ! command -v apt-get >/dev/null || [ "$(id -u)" != 0 ]; then
        echo "$(basename "$0"): $1 is missing. On Debian or Ubuntu: sudo apt-get install $2" >&2
        exit 1
    fi
    echo "== installing $2"
    [ -n "${apt_lists_are_fresh:-}" ] || apt-get update -qq
    apt_lists_are_fresh=yes
    # The package of a server would start the server, on all of this machine's addresses.
    local policy=/usr/sbin/policy-rc.d status=0
    [ ! -e $policy ] || policy=
    [ -z "$policy" ] || { printf '#!/bin/sh\nexit 101\n' >$policy && chmod 755 $policy; }
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$2" >/dev/null || status=$?
    [ -z "$policy" ] || rm $policy
    return $status
}

# need_rust: cargo, whose version in distributions is too old, and the C compiler that one crate's assembly requires.
need_rust() {
    command -v cargo >/dev/null || PATH=$PATH:$HOME/.cargo/bin
    if ! command -v cargo >/dev/null; then
        echo "$(basename "$0"): cargo is missing. Install Rust 1.91 or newer: https://rustup.rs" >&2
        exit 1
    fi
    need cc gcc
    [ -e /usr/include/stdlib.h ] || [ "$(uname)" != Linux ] || need /usr/include/stdlib.h libc6-dev
}

# need_postgres: PostgreSQL's server programs, which Debian keeps out of the PATH. Prevents Debian's package from making a database.
need_postgres() {
    ! compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null && ! command -v initdb >/dev/null || return 0
    if [ "$(id -u)" = 0 ] && [ ! -e /etc/postgresql-common ]; then
        mkdir -p /etc/postgresql-common/createcluster.d
        echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.d/postiz-tests.conf
    fi
    need initdb postgresql
}
