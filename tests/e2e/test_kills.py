"""gpumod dies by SIGKILL at every moment of a switch that its journal knows, one after the other; nothing is lost.

A command is carried out only after its row in the journal is durable, so the syncs of the state database are these
moments. tests/e2e/support/kill_at_sync.cpp counts them in the worker and kills it at the N-th, in three ways: what was
written is lost with it (as a power cut may leave it), was written but not yet synced, or was synced. N grows until a
run is no longer killed, so no moment is left out.
"""
import contextlib
import itertools
import json
import os
import pathlib
import shutil
import sqlite3
import subprocess
import tempfile
import unittest

from harness import LLAMA, MANAGER, MODELS, Case, chat, free_port, get, until

LIBRARY = os.environ["GPUMOD_KILL_AT_SYNC"]
WAYS_TO_DIE = ("lost", "written", "synced")
MOST_SYNCS = 40  # far more than any switch here needs: an enumeration that goes on and on has gone wrong


def open_files(folder):
    """What a process has open, of which something may be closed meanwhile."""
    files = []
    for file in (folder / "fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            files.append(os.readlink(file))
    return files


class Processes:
    """What runs on this machine for one test: processes of its services by their service, and gpumod's own."""

    def __init__(self, root, services):
        self.services = set()  # (service, pid)
        self.helpers = set()  # gpumod itself: shims and workers have a file of the test's directories open
        self.loaded_into = set()
        for folder in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                entries = (folder / "environ").read_text(errors="replace").split("\0")
                environment = dict(entry.split("=", 1) for entry in entries if "=" in entry)
                files = open_files(folder)
                loaded = LIBRARY in (folder / "maps").read_text(errors="replace")
            except OSError:
                continue  # it has ended, or is somebody else's
            pid = int(folder.name)
            ours = MANAGER != "local" or environment.get("GPUMOD_LOCAL") == str(root / "run")
            if ours and environment.get("GPUMOD_SERVICE") in services:
                self.services.add((environment["GPUMOD_SERVICE"], pid))
                if loaded:
                    self.loaded_into.add(pid)
            elif any(file.startswith(f"{root}/") for file in files):
                self.helpers.add(pid)

    def __eq__(self, other):
        return (self.services, self.helpers) == (other.services, other.helpers)

    def __repr__(self):
        return f"services {sorted(self.services)}, gpumod's own {sorted(self.helpers)}"


class Journal:
    """What the state database holds, read from a copy: looking at it with SQLite could already mend it."""

    def __init__(self, state):
        with tempfile.TemporaryDirectory() as folder:
            for name in ("state.db", "state.db-wal", "state.db-journal"):
                if (state / name).exists():
                    shutil.copy(state / name, folder)
            database = sqlite3.connect(f"{folder}/state.db")
            try:
                self.integrity = database.execute("PRAGMA integrity_check").fetchall()
                known = {table for table, in database.execute("SELECT name FROM sqlite_master")}

                def rows_of(table, query):
                    return database.execute(query).fetchall() if table in known else []

                self.switches = rows_of("switches", "SELECT id, goal, failure, result, ended FROM switches ORDER BY id")
                rows = rows_of("commands", "SELECT switch, command, step, service, unit FROM commands")
                goal = rows_of("goal", "SELECT goal FROM goal")
            finally:
                database.close()
        self.mode = json.loads(goal[0][0])["mode"] if goal else None
        self.rows = {switch: [row[1:] for row in rows if row[0] == switch] for switch in {row[0] for row in rows}}

    @property
    def open(self):
        """(id, mode it was to reach, failure) of the newest switch that never ended, if there is one."""
        left = [(number, json.loads(goal)["mode"], failure)
                for number, goal, failure, _, ended in self.switches if ended is None]
        return left[-1] if left else None

    @property
    def newest(self):
        """(id, result) of the newest switch."""
        return (self.switches[-1][0], self.switches[-1][3]) if self.switches else (0, None)

    def commands_of(self, switch):
        """What was journaled, whatever step of whatever round it was: rounds may group them otherwise next time."""
        return {(command, service or unit) for command, _, service, unit in self.rows.get(switch, [])}

    def result_of(self, switch):
        """"" while it has not ended."""
        return next((result for number, _, _, result, _ in self.switches if number == switch), None)

    def steps_of(self, switch):
        return {step for _, step, _, _ in self.rows.get(switch, [])}


class KilledCase(Case):
    TAGS = set()

    def setUp(self):
        super().setUp()
        self.root = self.root.resolve()
        self.database = self.root / "state"
        self.recoveries = itertools.cycle(("repair", "mode switch", "service start"))

    def processes(self):
        return Processes(self.root, self.TAGS)

    def journal(self):
        journal = Journal(self.database)
        self.assertEqual(journal.integrity, [("ok",)], "the state database is damaged")
        return journal

    def begin_anew(self):
        """The same syncs every time: a write-ahead log that begins anew, with none of it still to be copied."""
        database = sqlite3.connect(self.database / "state.db")
        self.assertEqual(database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0], 0)
        database.close()

    def killed(self, sync, how, *words):
        """Runs gpumod with a worker that dies at that sync. False: it got to its end before."""
        env = dict(self.env, LD_PRELOAD=LIBRARY, GPUMOD_TEST_KILL_AT_SYNC=str(sync), GPUMOD_TEST_KILL_HOW=how)
        run = self.gpumod(*words, env=env)
        self.last_run = run
        if run.code != 1 or "died before it was done" not in run.err:
            return False
        switch = self.status()["switch"]
        self.assertFalse(switch and switch["under_way"], "who is told of the death finds nobody at work any more")
        return True

    def at(self, where, check, *arguments):
        """Runs a check; what fails says where."""
        try:
            return check(*arguments)
        except AssertionError as failure:
            raise AssertionError(f"{where}: {failure}") from failure

    def quiet_processes(self):
        """Once nothing that was ordered before the death still comes or goes by itself."""
        seen = []

        def unchanged():
            seen.append(self.processes())
            return len(seen) > 6 and all(earlier == seen[-1] for earlier in seen[-7:-1])

        until(unchanged, what="an end to what was ordered before")
        return seen[-1]


class Kills(KilledCase):
    """code and rag share one service; two take turns on one port, and two are models of one router.

    Where there is no llama-server, small servers on one port stand in for the router's models.
    """

    TAGS = {"llama", "coder", "nemotron", "broken", "editor", "search", "shared"}
    SAYS = {"coder": "I am the coder and I write code.", "nemotron": "I am nemotron at your service."}

    def setUp(self):
        super().setUp()
        self.router, self.front, self.beside = free_port(), free_port(), free_port()
        self.models() if LLAMA.exists() else self.stand_ins()
        self.toy("editor", self.front, "--model", "editor")
        self.toy("search", self.front, "--model", "search")
        self.toy("shared", self.beside, "--model", "shared")
        self.modes = {"code": ("coder", "editor", "shared"), "rag": ("nemotron", "search", "shared")}
        for mode, services in self.modes.items():
            self.mode(mode, *services)
        self.mode("bad", "broken", "search", "shared")
        self.switch("code")
        self.shared_pid = self.services()["shared"]["pid"]

    def models(self):
        # One thread: several that wait for each other on a busy machine take a second for a few tokens.
        self.write("gpumod.yaml", f"""
            engines:
              llamacpp:
                binary: {LLAMA}
                env: {{GGML_NO_BACKTRACE: "1", LLAMA_ARG_THREADS: "1"}}
            """)
        for model in ("coder", "nemotron", "broken"):
            self.write(f"services/{model}.yaml", f"""
                engine: llamacpp
                router: llama
                port: {self.router}
                models_dir: {MODELS}
                model: {model}
                """)

    def stand_ins(self):
        for model, words in self.SAYS.items():
            self.toy(model, self.router, "--model", model, "--says", words)
        self.toy("broken", self.router, "--complain", "error: the model file is incomplete", "--exit-at-once", 1)

    def tags_of(self, mode):
        """As which its services' processes are marked: the models of a router are one."""
        return {"llama" if service in self.SAYS and LLAMA.exists() else service for service in self.modes[mode]}

    # ---- what must be true ----

    def assert_runs(self, mode):
        """Exactly this mode: it answers, gpumod says so and nothing else, and nothing else is there."""
        services, tags = self.modes[mode], self.tags_of(mode)
        status = self.status()
        self.assertEqual((status["mode"], status["switch"], status["differences"], status["orphans"]), (mode, None, [], []))
        running = sorted(line["id"] for line in status["services"] if line["state"] == "running")
        self.assertEqual(running, sorted(services))
        for service in services:
            if service in self.SAYS:
                self.assertEqual(chat(self.router, service)["content"].strip(), self.SAYS[service])
            else:
                port = self.beside if service == "shared" else self.front
                self.assertEqual(json.loads(get(port, "/v1/models"))["data"][0]["id"], service)
        self.assertEqual({line["id"]: line["pid"] for line in status["services"]}["shared"], self.shared_pid,
                         "who is in both modes must never have been touched")
        found = self.processes()
        self.assertEqual({service for service, _ in found.services}, tags, found)
        self.assertEqual(found.loaded_into, set(), "what kills gpumod must not be in its services")
        self.assertEqual(len(found.helpers), len(tags) if MANAGER == "local" else 0, found)
        if MANAGER == "systemd":
            names = {tag: f"gpumod-{'router-' if tag == 'llama' else ''}{tag}.service" for tag in self.TAGS}
            listed = subprocess.run(["systemctl", "--user", "list-units", "--all", "--plain", "--no-legend", *names.values()],
                                    text=True, capture_output=True, check=True).stdout
            states = {line.split()[0]: line.split()[2] for line in listed.splitlines()}
            # A unit that failed has nothing left but its name, which systemd keeps until the next start.
            self.assertEqual({unit: state for unit, state in states.items() if state != "failed"},
                             {names[tag]: "active" for tag in tags})

    def assert_reported(self, journal):
        """A look, with nothing changed by looking."""
        before = self.quiet_processes()
        files = {name: (self.database / name).read_bytes() for name in ("state.db", "state.db-wal")}
        status = self.status()
        self.assertEqual(self.processes(), before)
        self.assertEqual({name: (self.database / name).read_bytes() for name in files}, files)
        self.assertEqual(status["mode"], journal.mode)
        if not journal.open:
            self.assertIsNone(status["switch"])
            return ""
        number, _, failure = journal.open
        self.assertEqual((status["switch"]["id"], status["switch"]["under_way"]), (number, False))
        meaning = "what ran before is to be restored" if failure else "was interrupted half-way: it is to be finished"
        self.assertIn(meaning, status["switch"]["text"])
        return status["switch"]["text"]

    # ---- one death, and all of them ----

    def recover(self, journal, sentence):
        """Puts in order what the death left, in one way or another, and returns the mode that must run then."""
        number, to, failure = journal.open or (None, journal.mode, "")
        wanted = "code" if failure else to
        way = next(self.recoveries)
        arguments = {"repair": (), "mode switch": (wanted,), "service start": ("shared",)}
        run = self.gpumod(*way.split(), *arguments[way])
        reachable = wanted in self.modes
        self.assertEqual(run.code == 0, reachable, f"{way} ({wanted}): {run}")
        if number is not None:
            told = sentence if way == "service start" else f"switch {number} was interrupted; this one takes over"
            self.assertIn(told, run.err)
        if not reachable:
            self.assertIn("what ran before", run.err)
            self.assertNotIn("could not be restored", run.err)
        return wanted if reachable else "code"

    def put_in_order(self, journal):
        """Looks at what the death left, recovers, and holds the outcome against what the journal says."""
        mode = self.recover(journal, self.assert_reported(journal))
        after = self.journal()
        self.assertEqual((after.open, after.mode), (None, mode))
        self.assert_runs(mode)

    def start_over(self):
        self.switch("code")
        self.assert_runs("code")
        self.begin_anew()

    # ---- all of them ----

    def die_and_recover(self, sync, how, to):
        """The killed switch and the journal it left; no number if it had journaled nothing. Nothing if it lived on."""
        self.start_over()
        last, _ = self.journal().newest
        pids = {line["pid"] for line in self.services().values()}
        if not self.killed(sync, how, "mode", "switch", to):
            return None
        journal = self.journal()
        number = journal.newest[0] if journal.newest[0] > last else None
        if number is None:  # then nothing may change, neither by the death nor by the recovery
            self.assertIsNone(journal.open)
            self.assertEqual({line["pid"] for line in self.services().values()}, pids)
        self.put_in_order(journal)
        if number is None:
            self.assertEqual({line["pid"] for line in self.services().values()}, pids)
        return number, journal

    def enumerate_deaths(self, to):
        for how in WAYS_TO_DIE:
            self.enumerate_deaths_of_one_way(how, to)

    def enumerate_deaths_of_one_way(self, how, to):
        """Kills a switch at every sync, and compares with the journal of one that nobody disturbed."""
        result = "committed" if to in self.modes else "rolled_back"
        deaths, whole, lived = [], set(), 0
        # What is done side by side may take one sync or two: it is complete when the last death was at the very end.
        while lived == 0 or (not self.at_the_end(how, result, deaths, whole) and lived < 5):
            sync = len(deaths) + 1
            self.assertLess(sync, MOST_SYNCS)
            death = self.at(f"{to}, {how} at sync {sync}", self.die_and_recover, sync, how, to)
            if death:
                deaths.append(death)
                continue
            lived += 1
            undisturbed = self.journal()
            number, ended = undisturbed.newest
            self.assertEqual(ended, result, self.last_run)
            self.assert_runs(to if to in self.modes else "code")
            whole = undisturbed.commands_of(number)
        self.assertTrue(self.at_the_end(how, result, deaths, whole), f"{how}: no death at the very end of the switch")
        self.assertGreaterEqual(len(deaths), len(undisturbed.steps_of(number)), "fewer deaths than journaled steps")
        journaled = set().union(*(journal.commands_of(number) for number, journal in deaths))
        self.assertEqual(whole - journaled, set(), "every journaled command was behind some death")
        self.assertIn(None, [number for number, _ in deaths], "some die before anything was journaled")
        self.assertIn("", [journal.result_of(number) for number, journal in deaths], "some die half-way")

    @staticmethod
    def at_the_end(how, result, deaths, whole):
        """The newest death was where the end of the switch was to be written down."""
        number, journal = deaths[-1] if deaths else (None, None)
        if number is None:
            return False
        return journal.commands_of(number) >= whole if how == "lost" else journal.result_of(number) == result

    def test_a_switch_killed_at_every_journaled_moment_ends_where_its_journal_says(self):
        self.enumerate_deaths("rag")

    def test_a_switch_that_fails_killed_at_every_journaled_moment_brings_back_what_ran(self):
        self.enumerate_deaths("bad")

    def half_way(self, to, is_there):
        """Leaves a switch cut off at the first moment whose journal is such."""
        for sync in range(1, MOST_SYNCS):
            self.start_over()
            self.assertTrue(self.killed(sync, "synced", "mode", "switch", to), "no such moment")
            journal = self.journal()
            if journal.open and is_there(journal):
                return
            self.put_in_order(journal)
        self.fail("no such moment")

    def test_a_recovery_killed_at_every_journaled_moment_is_recovered_from(self):
        def stopped(journal):
            return ("stop_unit", "editor") in journal.commands_of(journal.open[0])

        def given_up(journal):
            return journal.open[2] != ""

        # Half-way there, half-way to where it cannot get, and on its way back.
        for to, is_there in (("rag", stopped), ("bad", stopped), ("bad", given_up)):
            deaths = 0
            while True:
                self.half_way(to, is_there)
                if not self.killed(deaths + 1, "synced", "repair"):
                    break
                deaths += 1
                self.assertLess(deaths, MOST_SYNCS)
                self.at(f"{to}, its recovery synced at sync {deaths}", self.put_in_order, self.journal())
            self.assertGreaterEqual(deaths, 2, "what it orders, and its end")
            self.assert_runs(to if to in self.modes else "code")


class FirstKills(KilledCase):
    """There is no state yet: the database itself is being made."""

    TAGS = {"only"}

    def test_the_first_switch_of_all_killed_at_every_sync(self):
        self.toy("only", free_port())
        self.mode("one", "only")
        self.mode("blank")
        for how in WAYS_TO_DIE:
            for sync in itertools.count(1):
                self.assertLess(sync, MOST_SYNCS)
                self.database = self.root / f"state-{how}-{sync}"
                self.env["GPUMOD_STATE_DIR"] = str(self.database)
                if not self.killed(sync, how, "mode", "switch", "one"):
                    break
                self.at(f"{how} at sync {sync}", self.mend_and_switch)
            self.assertGreater(sync, 3, "making the database and the switch take some syncs")
            self.assertEqual((self.status()["mode"], self.state_of("only")), ("one", "running"))
            self.switch("blank")

    def mend_and_switch(self):
        journal = self.journal()
        switch = self.status()["switch"]
        self.assertEqual(switch and switch["id"], journal.open and journal.open[0])
        repaired = self.gpumod("repair")
        if journal.open:
            self.assertEqual((repaired.code, self.status()["mode"], self.state_of("only")), (0, "one", "running"), repaired)
        elif repaired.code != 0:
            self.assertIn("there is no goal yet", repaired.err)
        for mode, state in (("one", "running"), ("blank", "stopped")):
            self.switch(mode)
            status = self.status()
            self.assertEqual((status["mode"], status["switch"], status["differences"], status["orphans"]), (mode, None, [], []))
            self.assertEqual(self.state_of("only"), state)
        self.assertEqual(self.processes().services, set())
        self.journal()


if __name__ == "__main__":
    unittest.main(verbosity=2)
