#!/usr/bin/env bash
# Measures gpumod: on a private, real systemd user manager, or where no unit manager matters on none. Prints JSON, one
# object a line, and for `learned` a table; figures are medians.
# usage: tests/bench/run.sh [overhead|status|verdict|lag|mcp|inspect|learned|plan|recording …]
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
root=$(readlink -f "$here/../..")
bin="$root/build/release/bin"
[ $# -gt 0 ] || set -- overhead status verdict lag mcp inspect learned plan recording
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# The test user must be able to read the programs and write its directories, wherever the tree lies.
cp "$bin/gpumod" "$bin/gpumod_bench" "$bin/gpumod_bench_server" "$here"/{status,mcp,twenty_services}.py \
  "$here/../e2e/mcp_client.py" "$work/"
cp "$bin/gpumod_bench_server" "$work/llama-server"
chmod 777 "$work"
chmod 755 "$work"/*
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
for what in "$@"; do
  case "$what" in
    inspect) GPUMOD_BINARY="$bin/gpumod" python3 "$here/inspect_model.py"; continue ;;
    learned) GPUMOD_BINARY="$bin/gpumod" python3 "$here/learned.py"; continue ;;
    plan) "$bin/gpumod_bench_plan"; continue ;;
    recording) "$bin/gpumod_bench_recording"; continue ;;
  esac
  mkdir -m 777 "$work/$what"
  # shellcheck disable=SC2016
  GPUMOD_BINARY="$work/gpumod" GPUMOD_BENCH_SERVER="$work/gpumod_bench_server" GPUMOD_BENCH_PORT="$port" \
    GPUMOD_CONFIG_DIR="$work/$what/config" GPUMOD_STATE_DIR="$work/$what/state" GPUMOD_CACHE_DIR="$work/$what/cache" \
    GPUMOD_RUNTIME_DIR="$work/$what/run" GPUMOD_NVML_LIBRARY=/nonexistent GPUMOD_UNIT_MANAGER=systemd \
    "$root/tests/e2e/user-systemd.sh" bash -c '
      case "$2" in
        status | mcp) exec python3 "$1/$2.py" ;;
        *) exec "$1/gpumod_bench" "$2" ;;
      esac' _ "$work" "$what"
done
