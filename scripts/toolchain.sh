# Sourced by what builds static programs: finds what builds them for $target. What cannot be built for says so before anything
# is installed; with offline=yes nothing is fetched or installed.
#
# read_targets sets targets: those that --target named, or this machine's own. static_folder says where build-static puts a
# target's programs. can_build stops a script that builds for several targets before it installs anything for one of them.
#
# toolchain sets: rustc, cargo, compiler_is (in words), sources (of the standard library; rustup may not have them), musl (the
# folder of its libc.a), compiler (for C) and linker, and with Debian's Rust unwinder (the folder of libunwind.a).

read_targets() {
    targets=()
    while [ $# != 0 ]; do
        [ "$1" = --target ] && [ $# -gt 1 ] || { echo "usage: scripts/$(basename "$0") [--target TRIPLE]..." >&2; exit 2; }
        targets+=("$2")
        shift 2
    done
    [ ${#targets[@]} != 0 ] || targets=("$(uname -m)-unknown-linux-musl")
}

static_folder() { [ "${1%%-*}" = "$(uname -m)" ] && echo target/static || echo "target/static/$1"; }

can_build() {
    local target installs=no
    for target; do toolchain; done
}

toolchain() {
    machine=$(uname -m) arch=${target%%-*} offline=${offline:-no} unwinder=
    case $target in
    x86_64-unknown-linux-musl) debian_arch=amd64 cross=x86-64-linux-gnu ;;
    aarch64-unknown-linux-musl) debian_arch=arm64 cross=aarch64-linux-gnu ;;
    *) cannot_build "the targets are x86_64-unknown-linux-musl and aarch64-unknown-linux-musl" ;;
    esac
    missing=()
    if [ "$arch" = "$machine" ]; then
        compiler=musl-gcc linker=cc
        command -v musl-gcc >/dev/null || missing+=(musl-tools)
        command -v cc >/dev/null || missing+=(gcc)
    else
        # Nothing of a C library is called, so that a compiler for glibc and its headers will do.
        compiler=$(command -v "$arch-linux-musl-gcc" || echo "$arch-linux-gnu-gcc")
        linker=$compiler
        command -v "$compiler" >/dev/null || missing+=("gcc-$cross")
        [[ $compiler == *musl* || -e /usr/$arch-linux-gnu/include/stdint.h ]] || missing+=("libc6-dev-$debian_arch-cross")
    fi
    check_missing
    command -v cargo >/dev/null || PATH=$PATH:$HOME/.cargo/bin
    if command -v rustc >/dev/null && { has_std || { rustup_fetch target add "$target" && has_std; }; }; then
        rustc=rustc cargo=cargo
        compiler_is="$(rustc --version), musl of rustup's"
        sources=$(rustc --print sysroot)/lib/rustlib/src/rust/library
        [ -e "$sources" ] || rustup_fetch component add rust-src || true
        musl=$(rustc --print target-libdir --target "$target")/self-contained
        install_missing
    else
        debians_toolchain
    fi
}

# Debian's Rust has no standard library for musl: that is built from its sources, with LLVM's unwinder, since GCC's wants glibc.
debians_toolchain() {
    rustc=/usr/bin/rustc cargo=/usr/bin/cargo
    [ -x $rustc ] || missing+=(rustc-web)
    [ -x $cargo ] || missing+=(cargo-web)
    compgen -G '/usr/src/rustc-*/library/Cargo.toml' >/dev/null || missing+=(rust-web-src)
    local root=
    if [ "$arch" = "$machine" ]; then
        compgen -G '/usr/lib/llvm-*/lib/libunwind.a' >/dev/null || missing+=(libunwind-14-dev)
    else
        root=$PWD/target/debian-$debian_arch
    fi
    check_missing
    [ "${installs:-yes}" = yes ] || return 0
    [ -z "$root" ] || unpack_foreign "$root" musl-dev libunwind-14-dev
    install_missing
    compiler_is="Debian's $($rustc --version | cut -d'(' -f1) and musl, since no rustup has them here"
    sources=$($rustc --print sysroot)/lib/rustlib/src/rust/library
    [ -e "$sources" ] || cannot_build "rust-web-src is not of rustc-web's version"
    musl=$root/usr/lib/$arch-linux-musl
    unwinder=$(compgen -G "$root/usr/lib/llvm-*/lib/libunwind.a" | sort -V | tail -n 1)
    unwinder=${unwinder%/*}
}

# unpack_foreign FOLDER PACKAGE...: Debian's packages of the target's architecture. This machine's own architectures stay as
# they are, and it takes no root.
unpack_foreign() {
    local root=$1 package
    shift
    [ ! -e "$root/complete" ] || return 0
    [ "$offline" = no ] || cannot_build "$root is missing; build once without --offline"
    echo "== fetching $* for $debian_arch"
    rm -rf "$root" && mkdir -p "$root"/apt/{lists,cache/archives}/partial
    local apt=(apt-get -qq -o "APT::Architectures::=$(dpkg --print-architecture)" -o "APT::Architectures::=$debian_arch"
        -o "Dir::State::Lists=$root/apt/lists" -o "Dir::Cache=$root/apt/cache" -o APT::Sandbox::User=root)
    if ! "${apt[@]}" update || ! (cd "$root/apt" && "${apt[@]}" download "${@/%/:$debian_arch}"); then
        cannot_build "apt has no $* for $debian_arch"
    fi
    for package in "$root"/apt/*.deb; do dpkg-deb -x "$package" "$root"; done
    rm -r "$root/apt" && touch "$root/complete"
}

musl_version() { strings -a "$musl/libc.a" | grep -xE '1\.[0-9]+\.[0-9]+' | sort -u; }
has_std() { compgen -G "$(rustc --print target-libdir --target "$target" 2>/dev/null)/self-contained/libc.a" >/dev/null; }
rustup_fetch() { [ "$offline" = no ] && command -v rustup >/dev/null && timeout 120 rustup -q "$@" 2>/dev/null; }
cannot_build() { echo "$(basename "$0"): cannot build for $target: $1" >&2; exit 1; }

# Stops unless what is missing can be installed here.
check_missing() {
    [ ${#missing[@]} != 0 ] || return 0
    if [ "$offline" = yes ] || [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        cannot_build "not installed: ${missing[*]} (packages of Debian and Ubuntu)"
    fi
    [ -n "${apt_lists_are_fresh:-}" ] || apt-get update -qq
    apt_lists_are_fresh=yes
    apt-get install --simulate -qq --no-install-recommends "${missing[@]}" >/dev/null 2>&1 ||
        cannot_build "apt cannot install ${missing[*]}"
}

install_missing() {
    local package
    [ "${installs:-yes}" = yes ] || return 0
    for package in "${missing[@]}"; do need "$package" "$package"; done
}
