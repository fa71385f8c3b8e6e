"""What must not happen: half-done switches, orphans, lies. Small servers with bad habits stand in for the big ones."""
import json
import os
import signal
import socket
import sqlite3
import subprocess
import time
import unittest

from harness import GPUMOD, MANAGER, Case, alive, free_port, get, kill, listens, needs_systemd, until


class Refusals(Case):
    """Nothing is touched."""

    def setUp(self):
        super().setUp()
        self.port = free_port()
        self.toy("a", self.port)
        self.mode("code", "a")
        self.mode("blank")

    def refused(self, code, *words):
        run = self.gpumod(*words, "--json")
        self.assertEqual(run.code, code, run)
        error = run.json["error"]
        self.assertTrue(error["message"])
        plain = self.gpumod(*words)
        self.assertEqual(plain.code, code)
        self.assertEqual(plain.out, "", "errors belong on stderr")
        self.assertIn(error["message"].split(":")[0], plain.err)
        return error

    def test_settings_that_cannot_be_read_are_not_guessed(self):
        self.write("gpumod.yaml", "vram_margin: [\n")
        run = self.gpumod("mode", "switch", "code")
        self.assertEqual(run.code, 6, run)
        self.assertIn("gpumod.yaml:", run.err)
        self.assertEqual(self.gpumod("mode", "switch", "code", "--dry-run").code, 6)
        (self.config / "gpumod.yaml").unlink()
        self.ok("mode", "switch", "code")

    def test_a_configuration_folder_that_is_not_there_is_a_slip(self):
        env = dict(self.env, GPUMOD_CONFIG_DIR=str(self.root / "confg"))
        for words in (("status",), ("mode", "list"), ("mode", "switch", "code"), ("config", "check")):
            run = self.gpumod(*words, "--json", env=env)
            self.assertEqual(run.code, 7, run)
            self.assertIn(f"GPUMOD_CONFIG_DIR is {self.root}/confg", run.json["error"]["message"])
        self.assertIn("GPUMOD_CONFIG_DIR is", self.gpumod(env=env).err)
        del env["GPUMOD_CONFIG_DIR"]
        env["XDG_CONFIG_HOME"] = str(self.root / "fresh")  # ours need not be there yet
        self.assertEqual(self.gpumod("status", env=env).code, 0)

    def test_help_is_json_for_programs(self):
        for words in (("--help",), ("help", "mode", "switch"), ("mode", "switch", "--help"), ()):
            run = self.ok(*words, "--json")
            self.assertIn("mode switch", [command["name"] for command in run.json["commands"]])
            self.assertTrue(run.json["exit_codes"])
        self.assertEqual(self.ok("completion", "bash", "--json").json["shell"], "bash")
        self.assertEqual(self.ok("--version", "--json").json["name"], "gpumod")

    def test_an_answer_that_cannot_be_written_is_no_success(self):
        with open("/dev/full", "w") as full:
            run = subprocess.run([GPUMOD, "mode", "list", "--json"], env=self.env, stdout=full, stderr=subprocess.PIPE,
                                 text=True, timeout=30)
        self.assertEqual(run.returncode, 1, run)
        self.assertIn("could not be written", run.stderr)

    def test_an_unknown_mode_names_the_nearest(self):
        error = self.refused(4, "mode", "switch", "cod")
        self.assertEqual(error["code"], "not_found")
        self.assertIn("code", error["hint"])

    def test_an_unknown_service_and_an_unknown_command(self):
        self.assertIn("'a'", self.refused(4, "service", "start", "aa")["hint"])
        self.refused(2, "mode", "swich", "code")
        self.refused(2, "mode", "switch")

    def test_a_mode_with_a_missing_service_is_a_configuration_error(self):
        self.mode("broken", "a", "nobody")
        error = self.refused(6, "mode", "switch", "broken")
        self.assertIn("nobody", error["message"] + error["hint"])
        self.switch("code")

    def test_two_services_of_one_mode_on_one_port(self):
        self.toy("b", self.port)
        self.mode("both", "a", "b")
        error = self.refused(6, "mode", "switch", "both")
        self.assertIn(str(self.port), error["message"])

    def test_a_missing_binary(self):
        self.write("services/gone.yaml", f"engine: command\nport: {free_port()}\ncmd: [/nowhere/server]\nvram: 0\n")
        self.mode("gone", "gone")
        self.switch("code")
        error = self.refused(3, "mode", "switch", "gone")
        self.assertIn("/nowhere/server", error["message"])
        self.assertEqual(self.state_of("a"), "running")

    def test_a_missing_model_file(self):
        self.write("services/model.yaml", f"engine: llamacpp\nbinary: /bin/true\nport: {free_port()}\nmodel: /nowhere/model.gguf\n")
        self.mode("model", "model")
        self.assertIn("/nowhere/model.gguf", self.refused(3, "mode", "switch", "model")["message"])

    def test_a_port_held_by_a_stranger_is_named(self):
        with socket.socket() as stranger:
            stranger.bind(("127.0.0.1", self.port))
            stranger.listen()
            error = self.refused(3, "mode", "switch", "code")
        self.assertIn(str(os.getpid()), error["message"])
        self.switch("code")

    def test_a_claim_without_a_gpu_is_refused_and_stops_still_work(self):
        self.switch("code")
        self.write("services/big.yaml", f"engine: command\nport: {free_port()}\ncmd: [/bin/sleep, inf]\nvram: 20000\n")
        self.mode("big", "big")
        self.assertEqual(self.refused(7, "mode", "switch", "big")["code"], "environment")
        self.assertEqual(self.state_of("a"), "running")
        self.switch("blank")
        self.assertEqual(self.state_of("a"), "stopped")

    def test_a_broken_file_takes_nothing_else_down(self):
        self.write("services/broken.yaml", "id: broken\nengine: nonsense\n  port: [")
        self.switch("code")
        run = self.gpumod("config", "check", "--json")
        self.assertEqual(run.code, 6)
        self.assertIn("services/broken.yaml:", run.json["error"]["message"])

    def test_no_systemd(self):
        env = dict(self.env, GPUMOD_UNIT_MANAGER="systemd", XDG_RUNTIME_DIR=str(self.root / "nothing"))
        env.pop("DBUS_SESSION_BUS_ADDRESS", None)
        run = self.gpumod("status", "--json", env=env)
        self.assertEqual(run.code, 7, run)
        self.assertIn("local", run.json["error"]["hint"])


class Failures(Case):
    """It is tried, it does not work, and what ran before runs again."""

    def setUp(self):
        super().setUp()
        self.good = free_port()
        self.toy("good", self.good)
        self.mode("good", "good")
        self.mode("blank")

    def test_where_nothing_ran_before_nothing_is_said_to_run_again(self):
        self.toy("bad", free_port(), "--exit-at-once", 3)
        self.mode("bad", "bad")
        self.switch("blank")
        run = self.gpumod("mode", "switch", "bad", "--json")
        self.assertEqual(run.code, 1, run)
        self.assertIn("; nothing ran before, and what was begun is stopped again", run.json["error"]["message"])
        self.assertNotIn("runs again", run.json["error"]["message"])
        run = self.gpumod("bench", "switch", "--modes", "bad,good", "--rounds", 1, "--warm-up", 0, "--json")
        self.assertEqual(run.code, 1, run)
        self.assertEqual(run.json["error"]["message"].count("nothing ran before"), 1, run)

    def fails(self, mode, timeout=60):
        self.switch("good")
        run = self.gpumod("mode", "switch", mode, "--json", timeout=timeout)
        self.assertEqual(run.code, 1, run)
        self.assertEqual(run.json["switch"]["result"], "rolled_back", run)
        self.assertEqual(self.state_of("good"), "running")
        self.assertEqual(get(self.good, "/health"), '{"status": "ok"}')
        status = self.status()
        self.assertEqual((status["mode"], status["differences"], status["orphans"]), ("good", [], []))
        return run.json["error"], run.out

    def test_a_service_that_exits_at_once(self):
        self.toy("exits", free_port(), "--exit-at-once", 3, "--complain", "I have no model")
        self.mode("exits", "exits")
        error, out = self.fails("exits")
        self.assertIn("exit code 3", error["message"])
        self.assertIn("I have no model", out, "the last log line belongs to the report")

    def test_a_service_that_never_gets_ready(self):
        port = free_port()
        self.toy("never", port, "--ready-after", 3600, extra="")
        text = (self.config / "services/never.yaml").read_text().replace("startup_timeout: 15s", "startup_timeout: 1s")
        self.write("services/never.yaml", text)
        self.mode("never", "never")
        error, _ = self.fails("never")
        self.assertIn("did not get ready", error["message"])
        self.assertFalse(listens(port), "what did not get ready must not stay")

    def test_a_service_that_answers_with_the_wrong_words(self):
        port = free_port()
        self.toy("wrong", port, "--says", "I am another model", probe="{kind: chat, expect: 'the right model'}")
        self.mode("wrong", "wrong")
        error, _ = self.fails("wrong")
        self.assertIn("probe", error["message"])
        self.assertFalse(listens(port))

    def test_a_service_that_ignores_sigterm_is_killed(self):
        port = free_port()
        self.toy("stubborn", port, "--ignore-sigterm")
        self.mode("stubborn", "stubborn")
        self.switch("stubborn")
        pid = self.services()["stubborn"]["pid"]
        self.switch("good")
        self.assertFalse(alive(pid))
        self.assertFalse(listens(port))

    def test_a_child_that_escapes_into_its_own_session_dies_too(self):
        self.toy("forks", free_port(), "--fork-survivor")
        self.mode("forks", "forks")
        self.switch("forks")
        pids = self.ok("service", "status", "forks", "--json").json["service"]["pids"]
        self.assertGreaterEqual(len(pids), 2)
        self.switch("good")
        self.assertEqual([pid for pid in pids if alive(pid)], [])

    def test_a_dead_service_is_seen(self):
        self.switch("good")
        kill(self.services()["good"]["pid"])
        until(lambda: self.state_of("good") in ("stopped", "failed"), what="its death being seen")
        self.assertEqual(self.status()["differences"][0]["service"], "good")
        self.ok("repair")
        self.assertEqual(self.status()["differences"], [])

    def test_one_wedged_service_does_not_hold_up_the_others(self):
        port = free_port()
        self.toy("wedged", port)
        self.mode("both", "good", "wedged")
        self.switch("both")
        kill(self.services()["wedged"]["pid"], signal.SIGSTOP)
        began = time.monotonic()
        services = self.services()
        self.assertLess(time.monotonic() - began, 10)
        self.assertEqual(services["good"]["state"], "running")
        self.assertNotEqual(services["wedged"]["state"], "running")
        # A mode switch to the same mode mends it.
        self.assertEqual(self.switch("both", timeout=90)["result"], "committed")
        self.assertEqual(self.state_of("wedged"), "running")


class Interruptions(Case):
    """Somebody leaves in the middle."""

    def setUp(self):
        super().setUp()
        self.ports = {name: free_port() for name in ("old", "slow")}
        self.toy("old", self.ports["old"])
        self.toy("slow", self.ports["slow"], "--ready-after", 2)
        # The same port forces the old one to stop first.
        text = (self.config / "services/slow.yaml").read_text().replace(f"port: {self.ports['slow']}", f"port: {self.ports['old']}")
        self.write("services/slow.yaml", text)
        self.mode("old", "old")
        self.mode("slow", "slow")
        self.mode("blank")

    def begin(self, mode="slow"):
        """Starts a switch and returns when the new service is starting."""
        process = self.start_gpumod("mode", "switch", mode, "--json", start_new_session=True)
        until(lambda: self.state_of("old") == "stopped" and self.state_of("slow") == "starting", what="the middle of the switch")
        return process

    def worker_pid(self):
        switch = self.status()["switch"]
        self.assertTrue(switch and switch["under_way"], switch)
        return switch["pid"]

    def idle(self):
        switch = self.status()["switch"]
        return switch is None or not switch["under_way"]

    def test_ctrl_c_takes_the_switch_back(self):
        self.switch("old")
        process = self.begin()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
        self.assertEqual(process.returncode, 130, err)
        report = json.loads(out)["switch"]
        self.assertEqual(report["result"], "cancelled")
        given_up = [step for step in report["steps"] if step["action"] == "start" and not step["undo"]]
        self.assertEqual([step["result"] for step in given_up], ["cancelled"])
        self.assertEqual(given_up[0]["note"], "given up: the switch was taken back")
        self.assertEqual(self.state_of("old"), "running")
        self.assertEqual(self.state_of("slow"), "stopped")

    def test_mode_cancel_takes_back_what_another_terminal_began(self):
        self.switch("old")
        process = self.begin()
        worker = self.worker_pid()
        # Somebody means one that has ended since: what is under way now goes on.
        ended = self.gpumod("mode", "cancel", "--pid", process.pid, "--json")
        self.assertEqual((ended.code, ended.json["error"]["code"]), (3, "refused"), ended)
        self.assertIn(f"now 'mode switch slow' (pid {worker}) is under way", ended.json["error"]["message"])
        self.assertIsNone(process.poll())
        self.assertEqual(self.status()["switch"]["pid"], worker)
        cancelled = self.ok("mode", "cancel", "--pid", worker, "--json").json
        self.assertEqual(cancelled["cancelled"]["verb"], "mode switch slow")
        self.assertEqual(cancelled["switch"]["result"], "cancelled")
        out, err = process.communicate(timeout=30)
        self.assertEqual(process.returncode, 130, err)
        self.assertEqual(json.loads(out)["switch"]["id"], cancelled["switch"]["id"])
        status = self.status()
        self.assertEqual((status["mode"], status["switch"], status["differences"]), ("old", None, []))
        self.assertEqual((self.state_of("old"), self.state_of("slow")), ("running", "stopped"))

    def test_mode_cancel_takes_back_what_nobody_follows_any_more(self):
        self.switch("old")
        process = self.begin()
        process.kill()
        process.communicate(timeout=30)
        run = self.ok("mode", "cancel")
        self.assertIn("cancelled", run.out)
        self.assertEqual(self.state_of("old"), "running")

    def test_mode_cancel_with_nothing_under_way(self):
        self.switch("old")
        run = self.gpumod("mode", "cancel", "--json")
        self.assertEqual(run.code, 4, run)
        self.assertIn("nothing is under way", run.json["error"]["message"])
        # What a killed worker left behind is not under way either, but it is what people mean.
        process = self.begin()
        kill(self.worker_pid())
        process.communicate(timeout=30)
        run = self.gpumod("mode", "cancel")
        self.assertEqual(run.code, 4)
        self.assertIn("(mode switch to slow) was interrupted half-way", run.err)
        self.assertIn("gpumod repair finishes it; gpumod mode switch old takes it back", " ".join(run.err.split()))
        self.switch("old")
        self.assertIsNone(self.status()["switch"])

    def test_what_is_under_way_is_shown(self):
        self.switch("old")
        process = self.begin()
        pid = self.worker_pid()
        for words in (("status",), ("mode", "status")):
            change = self.ok(*words, "--json").json["switch"]
            self.assertEqual((change["under_way"], change["verb"], change["pid"]), (True, "mode switch slow", pid))
            self.assertRegex(change["since"], r"^20\d\d-")
            shown = self.ok(*words).out
            self.assertIn("mode switch slow is under way since 20", shown)
            self.assertIn("gpumod mode cancel takes it back", shown)
            self.assertIn(f"gpumod history show {change['id']} shows how far it is", shown)
        self.assertFalse(self.ok("mode", "status", "--json").json["in_order"])
        process.communicate(timeout=30)
        self.assertIsNone(self.ok("mode", "status", "--json").json["switch"])

    def test_the_second_ctrl_c_lets_go_and_says_how_to_follow(self):
        self.toy("old", self.ports["old"], "--ready-after", 2)  # taking it back takes a while
        self.switch("old")
        process = self.start_gpumod("mode", "switch", "slow", start_new_session=True)
        until(lambda: self.state_of("slow") == "starting", what="the middle of the switch")
        process.send_signal(signal.SIGINT)
        until(lambda: self.state_of("slow") == "stopped", what="the way back")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
        self.assertEqual(process.returncode, 0, err)
        self.assertIn("gpumod status shows how it goes", err)
        self.assertIn("gpumod mode cancel", err)
        until(self.idle, what="the end of the switch")
        self.assertEqual(self.state_of("old"), "running")

    def after_a_reboot(self, policy):
        """A switch to `slow` that a reboot cut off. The machine cannot be rebooted: the journal is of another boot."""
        settings = self.config / "gpumod.yaml"
        kept = [line for line in settings.read_text().splitlines() if not line.startswith("boot:")] if settings.exists() else []
        self.write("gpumod.yaml", "\n".join([*kept, f"boot: {policy}"]) + "\n")
        self.switch("old")
        process = self.begin()
        kill(self.worker_pid())
        process.communicate(timeout=30)
        with sqlite3.connect(self.root / "state/state.db") as database:
            changed = database.execute("UPDATE switches SET boot_id = 'an earlier one' WHERE ended IS NULL").rowcount
        database.close()
        self.assertEqual(changed, 1)
        return self.status()["switch"]["text"]

    def test_after_a_reboot_an_interrupted_switch_is_finished_by_default(self):
        self.assertIn("rebooted since: it is to be finished", self.after_a_reboot("goal"))
        self.ok("repair")
        self.assertEqual((self.status()["mode"], self.state_of("slow")), ("slow", "running"))

    def test_after_a_reboot_nothing_is_to_run_if_people_want_it_so(self):
        self.assertIn("boot: blank", self.after_a_reboot("blank"))
        self.ok("repair")
        status = self.status()
        self.assertEqual((status["mode"], status["switch"], status["differences"]), (None, None, []))
        self.assertEqual((self.state_of("old"), self.state_of("slow")), ("stopped", "stopped"))

    def test_after_a_reboot_an_interrupted_switch_is_forgotten_if_people_want_it_so(self):
        self.assertIn("boot: nothing", self.after_a_reboot("nothing"))
        self.assertEqual(self.status()["mode"], "old")
        self.ok("repair")
        status = self.status()
        self.assertEqual((status["mode"], status["switch"], status["differences"]), ("old", None, []))
        self.assertEqual(self.state_of("old"), "running")

    def test_a_closed_terminal_does_not_stop_it(self):
        self.switch("old")
        process = self.begin()
        process.send_signal(signal.SIGHUP)
        process.communicate(timeout=30)
        until(lambda: self.state_of("slow") == "running" and self.idle(), what="the end of the switch")
        self.assertEqual(self.ok("mode", "status", "--json").json["mode"], "slow")

    def test_a_killed_cli_does_not_stop_it(self):
        self.switch("old")
        process = self.begin()
        process.kill()
        process.communicate(timeout=30)
        until(lambda: self.state_of("slow") == "running" and self.idle(), what="the end of the switch")
        self.assertEqual(self.status()["differences"], [])

    def test_two_switches_at_once(self):
        self.switch("old")
        process = self.begin()
        second = self.gpumod("mode", "switch", "blank", "--json")
        self.assertEqual(second.code, 5, second)
        self.assertIn("mode switch slow", second.json["error"]["message"])
        self.assertEqual(process.wait(timeout=30), 0)
        process.communicate()

    @unittest.skipUnless(MANAGER == "systemd", "needs the user's own runtime directory, as a login makes it")
    def test_two_switches_at_once_and_one_knows_little_of_its_environment(self):
        del self.env["GPUMOD_RUNTIME_DIR"]
        self.switch("old")
        process = self.begin()
        bare = {name: value for name, value in self.env.items() if not name.startswith(("XDG_", "DBUS_"))}
        second = self.gpumod("mode", "switch", "blank", "--json", env=bare)
        self.assertEqual(second.code, 5, second)
        self.assertEqual(process.wait(timeout=30), 0)
        process.communicate()
        self.assertEqual(self.state_of("slow"), "running")

    def test_a_killed_worker_is_reported_and_repaired(self):
        self.switch("old")
        process = self.begin()
        kill(self.worker_pid())
        out, _ = process.communicate(timeout=30)
        self.assertEqual(process.returncode, 1)
        self.assertIn("died", json.loads(out)["error"]["message"])
        status = self.status()
        found = status["switch"]
        self.assertFalse(found["under_way"])
        self.assertIn("interrupted", found["text"])
        texts = {line["service"]: (line["kind"], line["text"]) for line in status["differences"]}
        name = f"the interrupted switch {found['id']} (mode switch to slow)"
        self.assertEqual(texts, {"old": ("interrupted", f"'old' made room for {name}: gpumod repair leaves it so"),
                                 "slow": ("interrupted", f"'slow' belongs to {name}: gpumod repair keeps it")})
        shown = self.ok("mode", "status").out
        self.assertIn("gpumod repair finishes it; gpumod mode switch old takes it back.", shown)
        self.assertIn("it is to be finished, before this", self.ok("service", "stop", "old", "--dry-run").err)
        repaired = self.ok("repair", "--json").json["switch"]
        self.assertIn(repaired["result"], ("committed", "unchanged"))
        self.assertEqual(self.state_of("slow"), "running")
        status = self.status()
        self.assertEqual((status["mode"], status["switch"], status["differences"]), ("slow", None, []))

    def test_the_next_switch_takes_over_what_a_killed_worker_left(self):
        self.switch("old")
        process = self.begin()
        kill(self.worker_pid())
        process.communicate(timeout=30)
        self.switch("blank")
        status = self.status()
        self.assertEqual((status["mode"], status["switch"], status["orphans"], status["differences"]), ("blank", None, [], []))
        self.assertFalse(listens(self.ports["old"]))


class SingleServices(Case):
    def setUp(self):
        super().setUp()
        self.ports = {name: free_port() for name in ("a", "b")}
        for name, port in self.ports.items():
            self.toy(name, port)
        self.mode("one", "a")

    def test_a_service_beside_a_mode_until_the_next_switch(self):
        self.switch("one")
        run = self.ok("service", "start", "b")
        self.assertIn("until the next mode switch", run.err)
        self.assertEqual((self.state_of("a"), self.state_of("b")), ("running", "running"))
        self.assertEqual(self.status()["differences"], [])
        self.ok("service", "stop", "a")
        self.assertEqual((self.state_of("a"), self.state_of("b")), ("stopped", "running"))
        # It is as asked, and it is not the whole mode: both are said.
        status = self.status()
        self.assertEqual(status["differences"], [])
        self.assertEqual({line["service"]: line["text"] for line in status["deviations"]},
                         {"a": "mode one without 'a': stopped by hand; gpumod mode switch one brings it back",
                          "b": "'b' beside mode one: started by hand; gpumod mode switch one stops it"})
        self.assertIn("Mode one without a, with b — all as it should be", self.ok("mode", "status").out)
        self.switch("one")
        self.assertEqual(self.status()["deviations"], [])
        self.assertEqual((self.state_of("a"), self.state_of("b")), ("running", "stopped"))

    def test_restart_gives_a_new_process(self):
        self.switch("one")
        before = self.services()["a"]["pid"]
        self.ok("service", "restart", "a")
        after = self.services()["a"]["pid"]
        self.assertNotEqual(before, after)
        self.assertFalse(alive(before))

    def test_a_start_that_fails_is_named_by_its_service_and_in_plain_words(self):
        self.switch("one")
        self.toy("exits", free_port(), "--exit-at-once", 3)
        run = self.gpumod("service", "start", "exits")
        self.assertEqual(run.code, 1, run)
        self.assertIn("service start exits: rolled back", run.out)
        self.assertNotIn("one: rolled back", run.out)
        self.assertNotIn("exit-code", run.out + run.err + self.ok("status").out)

    def test_a_mode_that_grew_is_not_said_to_be_stopped_by_hand(self):
        self.switch("one")
        self.mode("one", "a", "b")
        self.assertEqual([line["text"] for line in self.status()["deviations"]],
                         ["mode one without 'b': the mode's file names it only since; gpumod mode switch one brings it up"])

    def test_what_was_tried_and_taken_back_was_not_done_by_hand(self):
        self.toy("b", self.ports["b"], "--exit-at-once", 3)
        self.switch("one")
        self.assertEqual(self.gpumod("service", "start", "b").code, 1)
        self.mode("one", "a", "b")
        self.assertEqual([line["text"] for line in self.status()["deviations"]],
                         ["mode one without 'b': the mode's file names it only since; gpumod mode switch one brings it up"])

    def test_logs_of_what_never_ran_and_numbers_that_make_no_sense(self):
        self.toy("never-ran", free_port())  # the journal remembers what other tests ran
        # Where parts of the journal cannot be read, it may also have run: then it is an error.
        run = self.gpumod("service", "logs", "never-ran")
        self.assertIn(run.code, (0, 7) if MANAGER == "systemd" else (0,))
        self.assertEqual(run.out, "")
        self.assertIn("there is no log of 'never-ran': it has not run yet, or ", run.err)
        answer = self.gpumod("service", "logs", "never-ran", "--json").json
        self.assertIn("it has not run yet", answer["note"] if run.code == 0 else answer["error"]["message"])
        for number in ("-4", "100001"):
            run = self.gpumod("service", "logs", "never-ran", "-n", number)
            self.assertEqual(run.code, 2, run)
            self.assertIn("from 0 to 100000", run.err)
        run = self.gpumod("service", "logs", "never-ran", "-n", "9" * 30)
        self.assertEqual(run.code, 2, run)
        self.assertIn("cannot be as large as", run.err)

    def test_logs_show_the_newest_run_only(self):
        self.toy("a", self.ports["a"], "--complain", "first run")
        self.switch("one")
        self.toy("a", self.ports["a"], "--complain", "second run")
        self.ok("service", "restart", "a")
        text = until(lambda: (lambda out: out if "second run" in out else None)(self.ok("service", "logs", "a").out),
                     what="the line in the log")
        self.assertNotIn("first run", text)

    def test_dry_run_changes_nothing(self):
        plan = self.ok("mode", "switch", "one", "--dry-run", "--json").json["plan"]
        self.assertEqual([(step["service"], step["action"]) for step in plan["steps"]], [("a", "start")])
        self.assertEqual(self.state_of("a"), "stopped")

    def test_secrets_reach_the_process_and_nobody_else(self):
        self.write("secret.env", 'TOKEN="hidden-value-42"\n')
        self.toy("a", self.ports["a"], "--print-env", extra="env_file: secret.env")
        self.switch("one")
        self.assertIn("TOKEN=hidden-value-42", until(lambda: (lambda out: out if "TOKEN" in out else None)(
            self.ok("service", "logs", "a", "-n", "500").out), what="the log"))
        for words in (("service", "show", "a"), ("unit", "show", "a"), ("status",), ("service", "show", "a", "--json")):
            run = self.ok(*words)
            self.assertNotIn("hidden-value-42", run.out + run.err, words)
        pid = self.services()["a"]["pid"]
        with open(f"/proc/{pid}/cmdline") as cmdline:
            self.assertNotIn("hidden-value-42", cmdline.read())
        if MANAGER == "systemd":
            shown = subprocess.run(["systemctl", "--user", "show", "gpumod-a.service"], text=True, capture_output=True).stdout
            self.assertNotIn("hidden-value-42", shown)


if __name__ == "__main__":
    unittest.main(verbosity=2)
