"""Twenty services that are ready at once, all in one mode: what more than one bench looks at."""
import os
import pathlib
import socket
import subprocess
import time

GPUMOD = os.environ["GPUMOD_BINARY"]
NAMES = [f"bench{i}" for i in range(20)]
config = pathlib.Path(os.environ["GPUMOD_CONFIG_DIR"])


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def timed(work):
    """Seconds."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def run(*command):
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def start_all():
    server = os.environ["GPUMOD_BENCH_SERVER"]
    for sub in ("services", "modes"):
        (config / sub).mkdir(parents=True, exist_ok=True)
    for name in NAMES:
        (config / f"services/{name}.yaml").write_text(
            f'engine: command\nport: {free_port()}\ncmd: ["{server}", "${{PORT}}", "0", "/dev/null"]\n'
            "check: /health\nvram: 0\n")
    (config / "modes/all.yaml").write_text(f"services: [{', '.join(NAMES)}]\n")
    (config / "modes/none.yaml").write_text("services: []\n")
    run(GPUMOD, "mode", "switch", "all")


def stop_all():
    run(GPUMOD, "mode", "switch", "none")
