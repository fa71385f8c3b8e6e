// The official clients switch a mode: switch.mjs sdk|client GPUMOD MODE. Prints what they saw as JSON.
// MCP_MODULES: a folder with node_modules.
import { createRequire } from "node:module";

const [which, gpumod, mode] = process.argv.slice(2);
const load = createRequire(process.env.MCP_MODULES + "/package.json");
const modern = which === "client";
const { Client } = load(modern ? "@modelcontextprotocol/client" : "@modelcontextprotocol/sdk/client/index.js");
const { StdioClientTransport } = load(
  modern ? "@modelcontextprotocol/client/stdio" : "@modelcontextprotocol/sdk/client/stdio.js");

const client = new Client({ name: `official ${which}`, version: "1" },
                          modern ? { versionNegotiation: { mode: "auto" } } : {});
// They give a server HOME, PATH and the like, and what its configuration names: nothing of a login's XDG_RUNTIME_DIR.
const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => name.startsWith("GPUMOD_")));
await client.connect(new StdioClientTransport({ command: gpumod, args: ["mcp"], env }));
const tools = (await client.listTools()).tools;
const progress = [];
const call = { name: "switch_mode", arguments: { mode } };
const options = { onprogress: (step) => progress.push(step), timeout: 60000, resetTimeoutOnProgress: true };
const result = modern ? await client.callTool(call, options) : await client.callTool(call, undefined, options);
// Their schemas are checked by the clients themselves.
const status = await client.callTool({ name: "gpu_status", arguments: {} });
const listed = await client.callTool({ name: "list_services", arguments: {} });
const modes = await client.readResource({ uri: "gpumod://modes" });
console.log(JSON.stringify({
  version: modern ? client.getNegotiatedProtocolVersion?.() : undefined,
  server: client.getServerVersion(), tools: tools.map((tool) => tool.name), progress, result, status, listed, modes,
}));
await client.close();
