#!/bin/bash
# get-llama.sh DEST: a real llama-server for the tests, from Debian's development suite, on an older Debian.
#
# Nothing of the system changes: apt works on a state of its own below DEST, with the mirror, proxy and keys that this
# machine's apt is configured with, and the packages are unpacked, never installed. The program brings its own C library
# and loader. It is started directly and not through the loader, because a router starts its children by running
# /proc/self/exe; so the loader's path is written into it, and DEST cannot be moved afterwards.
#
# DEST/bin/llama-server   the program
# DEST/version            what was got; its presence also marks DEST as complete, and a second run ends there at once.
#                         To get a newer one, delete DEST.
# Exit status: 0 got it · 2 wrong use · 77 it cannot be had here, which automake and ctest call "skipped".
set -euo pipefail

if [ $# -ne 1 ] || [ -z "$1" ]; then
  echo "usage: $0 DEST" >&2
  exit 2
fi
dest=$(realpath -m -- "$1")
package=llama.cpp-tools
suite=sid

unavailable() {
  {
    echo "=================================================================="
    echo "NO REAL llama-server: $*"
    echo "The tests that need one are SKIPPED: they prove nothing here."
    echo "=================================================================="
  } >&2
  exit 77
}

mkdir -p -- "$dest" 2>/dev/null || unavailable "the folder $dest cannot be made"
exec 9>"$dest/.lock"
flock 9

if [ -s "$dest/version" ] && "$dest/bin/llama-server" --version >/dev/null 2>&1; then
  cat "$dest/version"
  exit 0
fi

for tool in apt-get apt-cache dpkg dpkg-deb; do
  command -v "$tool" >/dev/null || unavailable "this is no Debian: there is no $tool"
done

work=$dest/.work
rm -rf -- "$work" "$dest/root" "$dest/bin" "$dest/version"
mkdir -p -- "$work"/{lists/partial,cache/archives/partial,parts,preferences}
: >"$work/status"
trap 'rm -rf -- "$work"' EXIT

# Mirrors of Debian in this machine's apt configuration, whichever kind of file names them: by the label of the lists
# that were fetched, and, where none were yet, every address with a suite that could be Debian's.
mirrors() {
  {
    apt-get indextargets --format '$(LABEL)|$(REPO_URI)' 'Created-By: Packages' 2>/dev/null | sed -n 's/^Debian|//p'
    apt-get update --print-uris 2>/dev/null | sed -n "s|^'\([^']*/\)dists/[^']*'.*|\1|p" | grep -v security
  } | awk '!seen[$0]++'
}

# The options stand on the command line because configuration files cannot override it. Dates are not checked: the
# signature is, and machines under test have odd clocks.
private_apt() {
  local tool=$1
  shift
  "$tool" -q \
    -o Dir::State="$work" -o Dir::State::lists="$work/lists" -o Dir::State::status="$work/status" \
    -o Dir::State::extended_states="$work/extended" \
    -o Dir::Cache="$work/cache" -o Dir::Cache::archives="$work/cache/archives" \
    -o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts="$work/parts" \
    -o Dir::Etc::preferences="$work/none" -o Dir::Etc::preferencesparts="$work/preferences" \
    -o APT::Sandbox::User="$(id -un)" -o Debug::NoLocking=true -o Acquire::Languages=none \
    -o Acquire::Check-Valid-Until=false -o Acquire::Check-Date=false -o Acquire::Retries=2 \
    -o APT::Install-Recommends=false -o APT::Update::Error-Mode=any "$@"
}

keyring=/usr/share/keyrings/debian-archive-keyring.gpg
[ -r "$keyring" ] || unavailable "the package debian-archive-keyring is missing"
found=
for mirror in $(mirrors); do
  echo "deb [signed-by=$keyring] $mirror $suite main" >"$work/sources.list"
  if private_apt apt-get update >"$work/log" 2>&1 && private_apt apt-cache show "$package" >/dev/null 2>&1; then
    found=$mirror
    break
  fi
done
[ -n "$found" ] || unavailable "no mirror of apt's configuration offers $package in $suite$(
  [ ! -s "$work/log" ] || { echo ":"; tail -n 3 "$work/log"; }
)"

# apt resolves what the program needs, against a machine on which nothing is installed; patchelf comes along.
echo "fetching $package from $suite" >&2
private_apt apt-get -y --download-only install "$package" patchelf >"$work/log" 2>&1 ||
  unavailable "downloading failed:"$'\n'"$(tail -n 3 "$work/log")"
for archive in "$work"/cache/archives/*.deb; do
  dpkg-deb -x "$archive" "$dest/root"
done

server=$dest/root/usr/bin/llama-server
[ -x "$server" ] || unavailable "$package holds no llama-server any more"
libraries=$(dirname -- "$(find "$dest/root/usr/lib" -name libc.so.6 -print -quit)")
loader=$(find "$libraries" "$dest/root/usr/lib64" -maxdepth 1 -name 'ld-linux*.so*' 2>/dev/null | head -n 1)
[ -n "$loader" ] || unavailable "the C library brought no loader"
# patchelf is as new as the rest: it, too, runs with the C library that came along.
patchelf=("$loader" --library-path "$libraries" "$dest/root/usr/bin/patchelf")

# An RPATH, unlike a RUNPATH, also serves the needs of libraries, except of those that have a RUNPATH of their own.
search=$libraries
for folder in "$libraries"/llama "$libraries"/ggml; do
  [ ! -d "$folder" ] || search=$search:$folder
done
mkdir -p -- "$dest/bin"
cp -- "$server" "$dest/bin/llama-server"
"${patchelf[@]}" --set-interpreter "$loader" --force-rpath --set-rpath "$search" "$dest/bin/llama-server" ||
  unavailable "the program cannot be given its own loader"
while IFS= read -r library; do
  own=$("${patchelf[@]}" --print-rpath "$library" 2>/dev/null) || continue
  [ -z "$own" ] || "${patchelf[@]}" --force-rpath --set-rpath "$search" "$library"
done < <(find "$libraries" -type f -name '*.so*' ! -name 'ld-linux*' ! -name 'libc.so*')
# Compute backends are looked for beside the program.
find "$libraries" -name 'libggml-cpu*.so' -exec ln -sf -t "$dest/bin" -- {} +

build=$("$dest/bin/llama-server" --version 2>&1) || unavailable "it does not run here:"$'\n'"$build"
version=$(dpkg-deb -f "$work"/cache/archives/"${package}"_*.deb Version)
rm -rf -- "$dest"/root/usr/share "$dest"/root/usr/bin "$libraries"/gconv "$libraries"/perl*
# Written last: a run that is cut off leaves no version, and the next begins afresh.
printf '%s %s (%s)\n%s\n' "$package" "$version" "$suite" "$build" >"$dest/version.part"
mv -- "$dest/version.part" "$dest/version"
cat "$dest/version"
