"""`gpumod status --json` with 20 running services against `systemctl --user is-active` of the same 20."""
import json
import os
import pathlib
import socket
import statistics
import subprocess
import time

GPUMOD = os.environ["GPUMOD_BINARY"]
SERVER = os.environ["GPUMOD_BENCH_SERVER"]
config = pathlib.Path(os.environ["GPUMOD_CONFIG_DIR"])
for sub in ("services", "modes"):
    (config / sub).mkdir(parents=True, exist_ok=True)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


names = [f"bench{i}" for i in range(20)]
for name in names:
    (config / f"services/{name}.yaml").write_text(
        f'engine: command\nport: {free_port()}\ncmd: ["{SERVER}", "${{PORT}}", "0", "/dev/null"]\ncheck: /health\nvram: 0\n')
(config / "modes/all.yaml").write_text(f"services: [{', '.join(names)}]\n")
(config / "modes/none.yaml").write_text("services: []\n")
subprocess.run([GPUMOD, "mode", "switch", "all"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def timed(command):
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


ours, theirs = [], []
for _ in range(30):
    ours.append(timed([GPUMOD, "status", "--json"]))
    theirs.append(timed(["systemctl", "--user", "is-active", *(f"gpumod-{name}.service" for name in names)]))
answer = json.loads(subprocess.run([GPUMOD, "status", "--json"], check=True, capture_output=True, text=True).stdout)
running = sum(line["state"] == "running" for line in answer["services"])
subprocess.run([GPUMOD, "mode", "switch", "none"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
print(json.dumps({
    "services_running": running,
    "status_ms": statistics.median(ours) * 1000,
    "systemctl_is_active_ms": statistics.median(theirs) * 1000,
    "status_ratio": statistics.median(ours) / statistics.median(theirs),
}))
