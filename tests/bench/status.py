"""`gpumod status --json` with 20 running services against `systemctl --user is-active` of the same 20."""
import json
import statistics
import subprocess

from twenty_services import GPUMOD, NAMES, run, start_all, stop_all, timed

UNITS = [f"gpumod-{name}.service" for name in NAMES]

start_all()
ours, theirs = [], []
for _ in range(30):
    ours.append(timed(lambda: run(GPUMOD, "status", "--json")))
    theirs.append(timed(lambda: run("systemctl", "--user", "is-active", *UNITS)))
answer = json.loads(subprocess.run([GPUMOD, "status", "--json"], check=True, capture_output=True, text=True).stdout)
stop_all()
print(json.dumps({
    "services_running": sum(line["state"] == "running" for line in answer["services"]),
    "status_ms": statistics.median(ours) * 1000,
    "systemctl_is_active_ms": statistics.median(theirs) * 1000,
    "status_ratio": statistics.median(ours) / statistics.median(theirs),
}))
