#!/usr/bin/env python3
"""How good is the simulator? One-line mutants of switching/, made mechanically, and whether it notices them.

Kinds: a condition negated, `&&` for `||`, a comparison off by one, a command or a statement dropped, two statements in
the other order, a constant changed. A mutant that does not compile is left out; one that the simulator does not
notice, a survivor, is listed with its line.

Out of tree: a mutant is one compile of the changed file and one link against what build/release holds.
"""
import argparse
import hashlib
import json
import os
import random
import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build/release"
FILES = ["src/switching/plan.cpp", "src/switching/plan_room.cpp", "src/switching/plan_order.cpp",
         "src/switching/switch.cpp", "src/switching/switch_step.cpp",
         "src/switching/recovery.cpp", "src/switching/memory_watch.cpp"]


def mutants_of(path):
    lines = path.read_text().split("\n")
    made = []

    def add(kind, number, text, extra=None):
        changed = list(lines)
        changed[number] = text
        if extra is not None:
            changed[number + 1] = extra
        if changed != lines:
            made.append((kind, number + 1, lines[number].strip(), text.strip(), "\n".join(changed)))

    for n, line in enumerate(lines):
        code = line.split("//")[0].rstrip()
        if not code.strip() or code.strip().startswith(("#", "case ", "namespace", "using ", "class ", "struct ", "}")):
            continue
        simple_if = re.match(r"^(\s*(?:\} else )?if \()(.*)(\)(?: \{| return.*;| continue;| .*;)?)$", code)
        if simple_if and simple_if[2].count("(") == simple_if[2].count(")") and " = " not in simple_if[2] and ";" not in simple_if[2]:
            add("negated condition", n, f"{simple_if[1]}!({simple_if[2]}){simple_if[3]}")
        if " && " in code and "if constexpr" not in code:
            add("&& → ||", n, code.replace(" && ", " || ", 1))
        if " || " in code:
            add("|| → &&", n, code.replace(" || ", " && ", 1))
        for old, new in ((" < ", " <= "), (" > ", " >= "), (" >= ", " > "), (" <= ", " < "), (" == ", " != "), (" != ", " == ")):
            if old in code and "template" not in code and "<<" not in code and "for (" not in code:
                add("comparison", n, code.replace(old, new, 1))
        if re.match(r"^\s*out\.push_back\(.*\);$", code):
            add("dropped command", n, re.match(r"^\s*", code)[0] + ";")
        elif re.match(r"^\s*[\w\.\->\[\]()]+ = [^{]*;$", code) and "auto " not in code and "const " not in code:
            add("dropped statement", n, re.match(r"^\s*", code)[0] + ";")
        elif re.match(r"^\s*(?:[\w\.]+\.)?[a-z_]+\(.*\);$", code) and "return" not in code:
            add("dropped call", n, re.match(r"^\s*", code)[0] + ";")
        if n + 1 < len(lines) and code.endswith(";") and lines[n + 1].strip().endswith(";"):
            indent = lambda text: len(text) - len(text.lstrip())
            plain = lambda text: not text.strip().startswith(("return", "const ", "auto ", "case", "std::", "if", "for", "int ", "bool "))
            assigns = lambda text: re.match(r"^\s*[\w\.\->()]+ = ", text)
            if not (assigns(code) and assigns(lines[n + 1])) and indent(code) == indent(lines[n + 1]) and plain(code) and plain(lines[n + 1]):
                add("swapped order", n, lines[n + 1], lines[n])
        number = re.match(r"^(constexpr .* = (?:Bytes::\w+\()?)(\d+)(.*)$", code)
        if number:
            add("constant", n, f"{number[1]}{int(number[2]) + 1}{number[3]}")
            add("constant", n, f"{number[1]}{max(0, int(number[2]) - 1)}{number[3]}")
        if " + " in code and '"' not in code and "round_base_" not in code:
            add("arithmetic", n, code.replace(" + ", " - ", 1))
        elif " - " in code and '"' not in code:
            add("arithmetic", n, code.replace(" - ", " + ", 1))
        if "return true;" in code or "return false;" in code:
            add("answer", n, code.replace("true", "FALSE").replace("false", "true").replace("FALSE", "false"))
    return made


def compile_command(file):
    for entry in json.loads((BUILD / "compile_commands.json").read_text()):
        if entry["file"] == str(ROOT / file):
            return shlex.split(entry["command"]), entry["directory"]
    sys.exit(f"{file} is not in compile_commands.json: ./dev build first")


def run(command, **more):
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **more)


def main():
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--count", type=int, default=100, help="how many mutants (0: all there are)")
    options.add_argument("--seed", type=int, default=1, help="which of them")
    options.add_argument("--runs", type=int, default=60000, help="runs of the simulator against each")
    options.add_argument("--lock", help="a file to flock around each compile and run, on a machine that others build on")
    options.add_argument("--survivors", metavar="LOG", help="only those that survived according to an earlier run's output")
    options.add_argument("--list", action="store_true", help="only say what would be tried")
    chosen = options.parse_args()

    everything = [(file, *mutant) for file in FILES for mutant in mutants_of(ROOT / file)]
    random.Random(chosen.seed).shuffle(everything)
    if chosen.survivors:
        wanted = set(re.findall(r"^SURVIVED  (.*)$", Path(chosen.survivors).read_text(), re.M))
        everything = [m for m in everything if f"{m[0]}:{m[2]}: {m[1]}: {m[3]}  →  {m[4]}" in wanted]
    print(f"{len(everything)} mutants there are", flush=True)
    if chosen.list:
        for file, kind, line, old, new, _ in everything:
            print(f"{file}:{line}: {kind}: {old}  →  {new}")
        return
    work = BUILD / "mutants"
    work.mkdir(exist_ok=True)
    link = run(["ninja", "-C", str(BUILD), "-t", "commands", "gpumod-simulate"]).stdout.strip().split("\n")[-1]
    link = link.split("&&")[1].strip() if "&&" in link else link
    archive = "src/libgpumod_switching.a"
    objects = {f: f"src/CMakeFiles/gpumod_switching.dir/switching/{Path(f).name}.o" for f in FILES}

    killed, survivors, broken, seen = 0, [], 0, set()
    for file, kind, line, old, new, text in everything:
        if chosen.count and killed + len(survivors) >= chosen.count:
            break
        source = work / Path(file).name
        source.write_text(text)
        command, folder = compile_command(file)
        obj = work / "mutant.o"
        command = [str(source) if w == str(ROOT / file) else w for w in command]
        command[command.index("-o") + 1] = str(obj)
        if command[0].endswith("cmake"):
            command = command[next(i for i, w in enumerate(command) if w.endswith(("c++", "g++", "clang++"))):]
        command += ["-Wno-error", "-I", str(ROOT / "src")]
        before = ["flock", chosen.lock] if chosen.lock else []
        if run(before + ["nice"] + command, cwd=folder).returncode != 0:
            broken += 1
            continue
        rest = " ".join(objects[f] for f in FILES if f != file)
        program = work / "mutant"
        words = link.replace(archive, f"{obj} {rest}").replace("-o bin/gpumod-simulate", f"-o {program}")
        linked = run(before + ["bash", "-c", words], cwd=BUILD)
        if linked.returncode != 0:
            sys.exit(linked.stdout)
        digest = hashlib.sha256(obj.read_bytes()).hexdigest()
        if digest in seen:
            continue
        seen.add(digest)
        try:
            outcome = run(["nice", str(program), "--until-found", "--runs", str(chosen.runs)], timeout=600)
            noticed, said = outcome.returncode != 0, outcome.stdout.strip().split("\n")[0]
        except subprocess.TimeoutExpired:
            noticed, said = True, "it never ended"
        if noticed:
            killed += 1
            print(f"killed    {file}:{line}: {kind}: {new}   [{said[:110]}]", flush=True)
        else:
            survivors.append((file, line, kind, old, new))
            print(f"SURVIVED  {file}:{line}: {kind}: {old}  →  {new}", flush=True)
    tried = killed + len(survivors)
    print(f"\n{killed} of {tried} mutants were noticed ({100 * killed / max(1, tried):.0f} %); {broken} did not compile")


if __name__ == "__main__":
    main()
