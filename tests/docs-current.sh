#!/usr/bin/env bash
# The generated references must say what the program says. `./dev docs` writes them.
# usage: docs-current.sh GPUMOD
set -euo pipefail
gpumod=$1
root=$(readlink -f "$(dirname "$(readlink -f "$0")")/..")
rc=0
check() { # FILE WORDS…
  local file=$1
  shift
  diff -u "$root/docs/$file" <("$gpumod" __reference "$@") || { echo "docs/$file is not what the program says: run ./dev docs" >&2; rc=1; }
}
check cli.md cli
check configuration.md configuration
for kind in service mode settings; do check "schema/$kind.json" schema "$kind"; done
exit $rc
