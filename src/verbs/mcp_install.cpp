// Tells an assistant's program how to start `gpumod mcp`, in its own configuration. That file belongs to a person:
// everything else in it stays as it is, what was there before is kept beside it, and what cannot be read is not touched.

#include <algorithm>

#include <boost/json.hpp>
#include <fmt/format.h>
#include <sys/stat.h>

#include "base/fd.h"
#include "base/text.h"
#include "verbs/handlers.h"
#include "verbs/json_edit.h"
#include "verbs/toml_edit.h"

namespace gpumod {

namespace json = boost::json;
namespace fs = std::filesystem;

namespace {

enum class Under { home, config };  ///< $HOME, or XDG_CONFIG_HOME

enum class Form {
  plain,      ///< {"command": …, "args": […]}
  typed,      ///< the same with {"type": "stdio"}
  all_tools,  ///< the same with {"tools": ["*"]}
  one_list,   ///< {"type": "local"}, command and arguments in one list
  toml,       ///< plain, in a file that is no JSON
};

struct ClientRow {
  std::string_view id;
  std::string_view name;
  Under under;
  std::string_view file;
  std::string_view project_file;  ///< below the working directory; "" where there is none
  std::string_view key;           ///< the object of servers
  Form form = Form::plain;
  const char* folder = nullptr;  ///< a variable that names another folder for the file
};

constexpr ClientRow clients[] = {
    {"claude-code", "Claude Code", Under::home, ".claude.json", ".mcp.json", "mcpServers", Form::typed},
    {"claude-desktop", "Claude Desktop", Under::config, "Claude/claude_desktop_config.json", "", "mcpServers"},
    {"cursor", "Cursor", Under::home, ".cursor/mcp.json", ".cursor/mcp.json", "mcpServers"},
    {"vscode", "VS Code", Under::config, "Code/User/mcp.json", ".vscode/mcp.json", "servers", Form::typed},
    {"windsurf", "Windsurf", Under::home, ".codeium/windsurf/mcp_config.json", "", "mcpServers"},
    {"gemini", "Gemini CLI", Under::home, ".gemini/settings.json", ".gemini/settings.json", "mcpServers"},
    {"zed", "Zed", Under::config, "zed/settings.json", ".zed/settings.json", "context_servers"},
    {"opencode", "opencode", Under::config, "opencode/opencode.json", "opencode.json", "mcp", Form::one_list},
    {"codex", "Codex", Under::home, ".codex/config.toml", ".codex/config.toml", "mcp_servers", Form::toml,
     "CODEX_HOME"},
    {"copilot", "GitHub Copilot CLI", Under::home, ".copilot/mcp-config.json", ".mcp.json", "mcpServers",
     Form::all_tools, "COPILOT_HOME"},
    {"qwen", "Qwen Code", Under::home, ".qwen/settings.json", ".qwen/settings.json", "mcpServers"},
    {"kiro", "Kiro", Under::home, ".kiro/settings/mcp.json", ".kiro/settings/mcp.json", "mcpServers"},
    {"lmstudio", "LM Studio", Under::home, ".lmstudio/mcp.json", "", "mcpServers"},
};

Result<const ClientRow*> client_named(const std::string& id) {
  std::vector<std::string> known;
  for (const auto& client : clients) {
    if (client.id == id) return &client;
    known.emplace_back(client.id);
  }
  return fail(ErrorCode::usage, fmt::format("'{}' is no client that can be set up", printable(id)),
              fmt::format("They are: {}. Any other needs the command gpumod and the argument mcp.", join(known, ", ")));
}

Result<fs::path> file_of(const ClientRow& client, const Paths& paths, const json::object& request) {
  if (const auto named = text_of(request, "file"); !named.empty()) return fs::absolute(named);
  if (flag_of(request, "project")) {
    if (client.project_file.empty())
      return fail(ErrorCode::usage, fmt::format("{} has no file of its own in a project", client.name));
    return fs::current_path() / client.project_file;
  }
  if (client.folder)
    if (const auto folder = environment_variable(client.folder); !folder.empty())
      return fs::absolute(folder) / fs::path(client.file).filename();
  if (client.under == Under::home) return paths.home / client.file;
  const auto named = environment_variable("XDG_CONFIG_HOME");
  return (named.starts_with('/') ? fs::path(named) : paths.home / ".config") / client.file;
}

/// Programs that assistants start get little of the person's environment.
json::object environment_of_ours() {
  json::object variables;
  for (const char* name : {"GPUMOD_CONFIG_DIR", "GPUMOD_STATE_DIR", "GPUMOD_RUNTIME_DIR", "GPUMOD_CACHE_DIR"})
    if (const auto value = environment_variable(name); !value.empty()) variables[name] = fs::absolute(value).string();
  return variables;
}

json::object entry_for(const ClientRow& client, const fs::path& program) {
  json::object entry;
  if (client.form == Form::one_list) {
    entry = {{"type", "local"}, {"command", json::array{program.string(), "mcp"}}, {"enabled", true}};
  } else {
    if (client.form == Form::typed || client.form == Form::all_tools) entry["type"] = "stdio";
    entry["command"] = program.string();
    entry["args"] = json::array{"mcp"};
    if (client.form == Form::all_tools) entry["tools"] = json::array{"*"};
  }
  if (auto variables = environment_of_ours(); !variables.empty())
    entry[client.form == Form::one_list ? "environment" : "env"] = std::move(variables);
  return entry;
}

std::vector<std::string> place_of(const ClientRow& client) {
  return {std::string(client.key), "gpumod"};
}

/// Each member by itself, so that what people have added to the entry stays.
Result<std::string> with_entry(std::string text, const ClientRow& client, const json::object& entry) {
  if (client.form == Form::toml) return with_toml_table(text, place_of(client), entry);
  for (const auto& [key, value] : entry) {
    auto place = place_of(client);
    place.emplace_back(key);
    text = TRY(with_json_value(text, place, value));
  }
  return text;
}

struct Installed {
  bool changed = false;
  std::optional<fs::path> backup;
};

/// What was there before an earlier time is never written over.
fs::path free_name(const std::string& wanted) {
  std::error_code ignored;
  fs::path name = wanted;
  for (int number = 2; fs::exists(fs::symlink_status(name, ignored)); ++number)
    name = fmt::format("{}.{}", wanted, number);
  return name;
}

Result<Installed> install(const fs::path& named, const ClientRow& client, const json::object& entry) {
  constexpr std::size_t limit = 64 << 20;
  std::error_code missing;
  // People keep such files elsewhere and link to them: what is written is the file, never the link.
  const auto found = fs::weakly_canonical(named, missing);
  const auto file = missing ? named : found;
  if (std::error_code ignored; fs::is_symlink(named, ignored) && !fs::exists(named, ignored))
    return fail(ErrorCode::environment,
                fmt::format("{} is a link to {}, which is not there", named.string(),
                            fs::read_symlink(named, ignored).string()),
                "Make that file, or take the link away.");
  auto before = read_file(file, limit);
  const bool is_new = !before && before.error().code == ErrorCode::not_found;
  if (!before && !is_new) return fail(before.error());
  auto after = with_entry(is_new ? std::string() : *before, client, entry);
  if (!after)
    return fail(after.error().code, fmt::format("{}: {}", file.string(), after.error().message),
                "It was left as it was. With --print, gpumod shows what belongs into it.");
  Installed installed;
  if (!is_new && *after == *before) return installed;
  struct stat info {};
  const unsigned mode = ::stat(file.c_str(), &info) == 0 ? info.st_mode & 0777 : 0600;
  if (!is_new) {
    installed.backup = free_name(file.string() + ".before-gpumod");
    TRY(write_file_atomically(*installed.backup, *before, mode));
  } else {
    TRY(make_directories(file.parent_path(), 0700));
  }
  TRY(write_file_atomically(file, *after, mode));
  installed.changed = true;
  return installed;
}

}  // namespace

Answer mcp_install(Context& context, Request request) {
  const auto client = client_named(text_of(request, "client"));
  if (!client) co_return fail(client.error());
  const auto program = own_executable();
  if (!program) co_return fail(program.error());
  const auto file = file_of(**client, context.paths(), request);
  if (!file) co_return fail(file.error());
  const auto entry = entry_for(**client, *program);
  json::object told{{"client", (*client)->name}, {"file", file->string()}};
  if (flag_of(request, "print")) {
    const json::object whole{{(*client)->key, json::object{{"gpumod", entry}}}};
    told["text"] = (*client)->form == Form::toml ? toml_table(place_of(**client), entry) : pretty_json(whole) + "\n";
    told["entry"] = whole;
    told["changed"] = false;
    co_return json::value(json::object{{"shown", std::move(told)}});
  }
  const auto done = install(*file, **client, entry);
  if (!done) co_return fail(done.error());
  told["changed"] = done->changed;
  told["backup"] = done->backup ? json::value(done->backup->string()) : json::value(nullptr);
  co_return json::value(json::object{{"installed", std::move(told)}});
}

}  // namespace gpumod
