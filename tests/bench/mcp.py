"""`gpumod mcp`: from its start to its first answer, and the round trip of gpu_status with 20 running services, beside
`gpumod status --json` in a process of its own."""
import json
import os
import pathlib
import socket
import statistics
import subprocess
import time

from mcp_client import McpClient

GPUMOD = os.environ["GPUMOD_BINARY"]
SERVER = os.environ["GPUMOD_BENCH_SERVER"]
config = pathlib.Path(os.environ["GPUMOD_CONFIG_DIR"])
for sub in ("services", "modes"):
    (config / sub).mkdir(parents=True, exist_ok=True)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def timed(work):
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1000


def client():
    return McpClient([GPUMOD, "mcp"], dict(os.environ), "/")


names = [f"bench{i}" for i in range(20)]
for name in names:
    (config / f"services/{name}.yaml").write_text(
        f'engine: command\nport: {free_port()}\ncmd: ["{SERVER}", "${{PORT}}", "0", "/dev/null"]\ncheck: /health\nvram: 0\n')
(config / "modes/all.yaml").write_text(f"services: [{', '.join(names)}]\n")
(config / "modes/none.yaml").write_text("services: []\n")
# More looks than a person would need.
with open(config / "gpumod.yaml", "a") as file:
    file.write("mcp:\n  calls_per_minute: 6000\n")
subprocess.run([GPUMOD, "mode", "switch", "all"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def start():
    started = client()
    started.ask("server/discover")
    running.append(started)


running = []
starts = [timed(start) for _ in range(20)]
for each in running[1:]:
    each.close()
chosen = running[0]
trips = [timed(lambda: chosen.tool("gpu_status")) for _ in range(50)]
pings = [timed(lambda: chosen.ask("server/discover")) for _ in range(200)]
alone = [timed(lambda: subprocess.run([GPUMOD, "status", "--json"], check=True, stdout=subprocess.DEVNULL)) for _ in range(30)]
services = chosen.tool("gpu_status")["structuredContent"]["services"]
chosen.close()
subprocess.run([GPUMOD, "mode", "switch", "none"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
print(json.dumps({
    "services_running": sum(line["state"] == "running" for line in services),
    "start_to_first_answer_ms": statistics.median(starts),
    "round_trip_of_discover_ms": statistics.median(pings),
    "round_trip_of_gpu_status_ms": statistics.median(trips),
    "gpumod_status_ms": statistics.median(alone),
}))
