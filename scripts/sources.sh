# Sourced by build-static, vendor, test-offline and release: which commit this is, and archives whose bytes depend on it alone.
#
# Sets: version, commit (12 digits, with "-dirty" where files differ from it, empty where nothing tells), SOURCE_DATE_EPOCH.

version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
if [ -e .git ] && git rev-parse --quiet --verify HEAD >/dev/null; then
    commit=$(git describe --always --exclude '*' --abbrev=12 --dirty)
    SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
else
    # An archive that git made has it in a file.
    commit=$(grep -sxE '[0-9a-f]+ [0-9]+' .commit) || commit=' 0'
    SOURCE_DATE_EPOCH=${commit#* } commit=${commit:0:12}
    commit=${commit% 0}
fi
export SOURCE_DATE_EPOCH

# clean: nothing differs from the commit, and nothing is there that git does not know.
clean() { local changes && [ -e .git ] && changes=$(git status --porcelain) && [ -z "$changes" ]; }

# pack FOLDER ARCHIVE.tar.gz [arguments for tar]
pack() {
    tar --sort=name --format=gnu --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX "${@:3}" \
        -C "$(dirname "$1")" -c "$(basename "$1")" | gzip -9n >"$2"
}
