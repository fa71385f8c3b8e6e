#!/usr/bin/env bash
# Fetches what the end-to-end tests run against: a real llama-server and tiny models, kept between runs.
# Where it cannot be had, the tests that need it say so and are skipped.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
cache=${GPUMOD_TEST_CACHE:-$(readlink -f "$here/../..")/build/test-cache}
mkdir -p "$cache/models" "$cache/engine-models"

if ! "$here/../support/get-llama.sh" "$cache/llama"; then
  printf '\n*** No llama-server: every test that needs one is SKIPPED. ***\n\n' >&2
fi

make() { # KIND FILE ARGS…
  # Made anew where the maker has changed since.
  [ -s "$cache/$2" ] && [ "$cache/$2" -nt "$here/../support/make_gguf.py" ] ||
    python3 "$here/../support/make_gguf.py" "$1" "$cache/$2" "${@:3}"
}
make script models/coder.gguf --text "I am the coder and I write code."
make script models/nemotron.gguf --think "The user greets me." --text "I am nemotron at your service."
make script models/single.gguf --text "A single model says good evening."
make embed models/embed.gguf --dim 64
make bad models/broken.gguf
# What llama_engine_test.cpp names at its head.
make script engine-models/alpha.gguf --text "Hello from alpha."
make script engine-models/thinker.gguf --think "Let me see what two and two could be, one by one." --text "The answer is four."
make embed engine-models/embed.gguf --dim 48
make bad engine-models/bad.gguf
# What the simulated llama-server is to know of them: it reads no weights.
tell() { printf '%s\n' "load=100ms" "context=512" "${@:2}" >"$cache/engine-models/$1.sim"; }
tell alpha "answer=Hello from alpha."
tell thinker "think=Let me see what two and two could be, one by one." "answer=The answer is four."
tell embed "dims=48"
tell bad "fault=bad-model"

# The official MCP clients and conformance suite, pinned in mcp/package.json.
if command -v npm >/dev/null; then
  mkdir -p "$cache/mcp"
  if ! cmp -s "$here/support/mcp/package.json" "$cache/mcp/installed.json"; then
    # Afresh: what another version had brought must not be what the tests find.
    rm -rf "$cache/mcp/node_modules" "$cache/mcp/package-lock.json" "$cache/mcp/installed.json"
    cp "$here/support/mcp/package.json" "$cache/mcp/package.json"
    (cd "$cache/mcp" && npm install --ignore-scripts --no-audit --no-fund --loglevel=error) &&
      cp "$here/support/mcp/package.json" "$cache/mcp/installed.json"
  fi
fi
[ -e "$cache/mcp/installed.json" ] ||
  printf '\n*** Nothing of npm: the tests against the official MCP clients are SKIPPED. ***\n\n' >&2
# The test user is not the one who fetched.
chmod -R a+rX "$cache" 2>/dev/null || true
