#!/usr/bin/env bash
# On a machine with an NVIDIA GPU: does gpumod see what nvidia-smi sees? Changes nothing.
set -euo pipefail
root=$(readlink -f "$(dirname "$(readlink -f "$0")")/..")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export GPUMOD_CONFIG_DIR=$work/config GPUMOD_STATE_DIR=$work/state GPUMOD_CACHE_DIR=$work/cache \
  GPUMOD_RUNTIME_DIR=$work/run GPUMOD_UNIT_MANAGER=local
status=$("$root/build/release/bin/gpumod" status --json)
echo "$status" | python3 -m json.tool
STATUS="$status" python3 - <<'PY'
import json, os, subprocess, sys
status = json.loads(os.environ["STATUS"])
if status["gpu_problem"]:
    sys.exit(f"gpu-check: no GPU can be read: {status['gpu_problem']['message']}")
query = "index,uuid,memory.total,memory.free"
lines = subprocess.run(["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader,nounits"], check=True, text=True,
                       capture_output=True).stdout.strip().splitlines()
ours = {gpu["uuid"]: gpu for gpu in status["gpus"]}
for line in lines:
    index, uuid, total, free = [part.strip() for part in line.split(",")]
    gpu = ours.pop(uuid, None)
    if gpu is None:
        sys.exit(f"gpu-check: nvidia-smi shows {uuid}, gpumod does not")
    if abs(gpu["total"] / 2**20 - int(total)) > 1 or abs(gpu["free"] / 2**20 - int(free)) > 256:
        sys.exit(f"gpu-check: {uuid}: gpumod says {gpu['total']} and {gpu['free']} bytes, nvidia-smi {total} and {free} MiB")
if ours:
    sys.exit(f"gpu-check: gpumod shows GPUs that nvidia-smi does not: {list(ours)}")
print(f"gpu-check: {len(lines)} GPU(s) as nvidia-smi sees them")
PY
