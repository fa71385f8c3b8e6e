"""`gpumod mcp`: from its start to its first answer, and the round trip of gpu_status with 20 running services, beside
`gpumod status --json` in a process of its own."""
import json
import os
import statistics

from mcp_client import McpClient
from twenty_services import GPUMOD, config, run, start_all, stop_all, timed

running = []


def start():
    started = McpClient([GPUMOD, "mcp"], dict(os.environ), "/")
    started.ask("server/discover")
    running.append(started)


start_all()
# More looks than a person would need.
with open(config / "gpumod.yaml", "a") as file:
    file.write("mcp:\n  calls_per_minute: 6000\n")
starts = [timed(start) for _ in range(20)]
for each in running[1:]:
    each.close()
chosen = running[0]
trips = [timed(lambda: chosen.tool("gpu_status")) for _ in range(50)]
pings = [timed(lambda: chosen.ask("server/discover")) for _ in range(200)]
alone = [timed(lambda: run(GPUMOD, "status", "--json")) for _ in range(30)]
services = chosen.tool("gpu_status")["structuredContent"]["services"]
chosen.close()
stop_all()
print(json.dumps({
    "services_running": sum(line["state"] == "running" for line in services),
    "start_to_first_answer_ms": statistics.median(starts) * 1000,
    "round_trip_of_discover_ms": statistics.median(pings) * 1000,
    "round_trip_of_gpu_status_ms": statistics.median(trips) * 1000,
    "gpumod_status_ms": statistics.median(alone) * 1000,
}))
