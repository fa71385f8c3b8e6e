#!/usr/bin/env bash
# The main job, seen: modes switch between two models of a real llama-server, in a private directory, under the local
# supervisor. Nothing of yours is touched; everything is stopped and removed at the end.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
root=$(readlink -f "$here/../..")
export GPUMOD_TEST_CACHE=${GPUMOD_TEST_CACHE:-$root/build/test-cache}
"$here/prepare.sh" >/dev/null
gpumod=$root/build/release/bin/gpumod
llama=$GPUMOD_TEST_CACHE/llama/bin/llama-server
work=$(mktemp -d)
export GPUMOD_CONFIG_DIR=$work/config GPUMOD_STATE_DIR=$work/state GPUMOD_CACHE_DIR=$work/cache \
  GPUMOD_RUNTIME_DIR=$work/run GPUMOD_UNIT_MANAGER=local
done_with_it() {
  "$gpumod" mode switch blank >/dev/null 2>&1 || true
  rm -rf "$work"
}
trap done_with_it EXIT
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
mkdir -p "$work/config/services" "$work/config/modes"

if [ -x "$llama" ]; then
  printf 'engines:\n  llamacpp:\n    binary: %s\n' "$llama" >"$work/config/gpumod.yaml"
  for model in coder nemotron; do
    printf 'engine: llamacpp\nrouter: llama\nport: %s\nmodels_dir: %s\nmodel: %s\n' "$port" "$GPUMOD_TEST_CACHE/models" "$model" \
      >"$work/config/services/$model.yaml"
  done
else
  echo "No llama-server could be fetched: small stand-in servers play its part." >&2
  for model in coder nemotron; do
    cat >"$work/config/services/$model.yaml" <<YAML
engine: command
port: $port
cmd: [/usr/bin/python3, "$here/support/toy_server.py", --port, "\${PORT}", --model, $model, --says, "I am $model."]
check: /health
vram: 0
probe: chat
YAML
  done
fi
printf 'services: [coder]\n' >"$work/config/modes/code.yaml"
printf 'services: [nemotron]\n' >"$work/config/modes/nemotron.yaml"
printf 'services: []\n' >"$work/config/modes/blank.yaml"

ask() {
  curl -s "http://127.0.0.1:$port/v1/chat/completions" -H 'Content-Type: application/json' \
    -d "{\"model\":\"$1\",\"max_tokens\":40,\"messages\":[{\"role\":\"user\",\"content\":\"Hello\"}]}" |
    python3 -c 'import json, sys; print("  it answers: " + json.load(sys.stdin)["choices"][0]["message"]["content"].strip())'
}
for mode in code nemotron code; do
  printf '\n$ gpumod mode switch %s\n' "$mode"
  "$gpumod" mode switch "$mode"
  ask "$([ "$mode" = code ] && echo coder || echo nemotron)"
done
printf '\n$ gpumod status\n'
"$gpumod" status
printf '\n$ gpumod mode switch blank\n'
"$gpumod" mode switch blank
printf '\n$ gpumod status\n'
"$gpumod" status
