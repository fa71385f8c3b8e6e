"""`gpumod mcp`: from its start to its first answer, and the round trip of gpu_status with 20 running services, beside
`gpumod status --json` in a process of its own. GPUMOD_BENCH_OTHER, a command, names another MCP server with a gpu_status
of the same services (their ports are in $GPUMOD_CONFIG_DIR/services): both are then asked in turn."""
import json
import os
import shlex
import statistics

from mcp_client import McpClient
from twenty_services import GPUMOD, config, run, start_all, stop_all, timed

running = []


def start():
    started = McpClient([GPUMOD, "mcp"], dict(os.environ), "/")
    started.ask("server/discover")
    running.append(started)


def until_status(command):
    """A client whose server has said what runs, in the older way to begin, which every server knows."""
    client = McpClient(command, dict(os.environ), "/", "2025-06-18")
    client.tool("gpu_status")
    return client


def beside(other):
    ours, theirs = {"begin": [], "trip": []}, {"begin": [], "trip": []}
    both = ((ours, [GPUMOD, "mcp"]), (theirs, shlex.split(other)))
    for _, command in both:  # once for what is done the first time
        until_status(command).drop()
    for _ in range(10):
        for times, command in both:
            clients = []
            times["begin"].append(timed(lambda: clients.append(until_status(command))))
            times["trip"] += [timed(lambda: clients[0].tool("gpu_status")) for _ in range(5)]
            clients[0].drop()
    middle = {name: [statistics.median(times[name]) * 1000 for times in (ours, theirs)] for name in ours}
    return {"start_to_first_status_ms, ours and the other's": middle["begin"],
            "round_trip_ms, ours and the other's": middle["trip"],
            "ratios": [middle[name][0] / middle[name][1] for name in ("begin", "trip")]}


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
other = os.environ.get("GPUMOD_BENCH_OTHER")
compared = beside(other) if other else {}
stop_all()
print(json.dumps({
    "services_running": sum(line["state"] == "running" for line in services),
    "start_to_first_answer_ms": statistics.median(starts) * 1000,
    "round_trip_of_discover_ms": statistics.median(pings) * 1000,
    "round_trip_of_gpu_status_ms": statistics.median(trips) * 1000,
    "gpumod_status_ms": statistics.median(alone) * 1000,
    **compared,
}))
