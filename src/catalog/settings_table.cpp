// What gpumod.yaml may say.
#include "catalog/tables.h"

namespace gpumod {

namespace {

std::optional<UnitManagerKind> unit_manager_from(std::string_view name) {
  if (name == "auto") return UnitManagerKind::automatic;
  if (name == "systemd") return UnitManagerKind::systemd;
  if (name == "local") return UnitManagerKind::local;
  return std::nullopt;
}

Shape engines_shape() {
  std::vector<Declaration> members;
  for (const auto kind : all_engines)
    members.push_back({std::string(to_string(kind)), shapes::object(declarations_of(engine_settings_table())), "none",
                       "For every service of this engine."});
  return shapes::object(std::move(members));
}

void store_engines(Reading& reading, const YamlNode& node, const Shape& shape, SettingsDraft& draft) {
  if (!expect_map(reading, node, "a map of engines")) return;
  std::vector<std::string> known;
  for (const auto& member : shape.members)
    known.push_back(member.key);
  report_unknown_keys(reading, node, known, Severity::error);
  for (const auto& [key, value] : node.entries) {
    const auto kind = engine_kind_from(key->text);
    if (!kind || value->is_null()) continue;
    Seen seen;
    read_object(reading, *value, engine_settings_table(), draft.settings.engines[*kind], seen);
    reading.know_environment({});
  }
}

}  // namespace

const Table<EngineSettings>& engine_settings_table() {
  static const Table<EngineSettings> table = {
      {{"binary", shapes::program(), "the engine's usual name", "The program that is started."},
       into(&EngineSettings::binary)},
      {{"env_file", shapes::paths(), "none", "Files of NAME=VALUE lines, mode 0600.", true},
       [](Reading& reading, const YamlNode& node, const Shape& shape, EngineSettings& settings) {
         auto values = read_environment_files(reading, node, shape);
         if (!values) return;
         for (const auto& [name, value] : *values)
           settings.environment[name] = Secret(value);
         reading.know_environment(std::move(*values));
       }},
      {{"env", shapes::environment(), "none", "Environment variables, over those of env_file."},
       [](Reading& reading, const YamlNode& node, const Shape& shape, EngineSettings& settings) {
         if (auto values = read_environment(reading, node, shape))
           for (auto& [name, value] : *values)
             settings.environment[name] = Secret(std::move(value));
       }},
      {{"extra_args", shapes::arguments(), "none", "Arguments passed on as they stand, before the service's own."},
       into(&EngineSettings::extra_args)},
  };
  return table;
}

const Table<McpSettings>& mcp_table() {
  static const Table<McpSettings> table = {
      {{"allow", shapes::choice({"read", "switch", "admin"}), "switch",
        "What assistants may do: look (read), change what runs as well (switch), or change files and records as well "
        "(admin). Dry runs are always allowed."},
       [](Reading& reading, const YamlNode& node, const Shape& shape, McpSettings& settings) {
         const auto name = read_text(reading, node, shape);
         // Somebody wanted to limit it, and was not understood.
         settings.allow = (name ? assistant_rights_from(*name) : std::nullopt).value_or(AssistantRights::read);
       }},
      {{"changes_per_minute", shapes::integer(1, 600), "10", "How often one client may change something."},
       into(&McpSettings::changes_per_minute)},
      {{"calls_per_minute", shapes::integer(1, 6000), "300", "How often one client may call a tool at all."},
       into(&McpSettings::calls_per_minute)},
  };
  return table;
}

const Table<SettingsDraft>& settings_table() {
  static const Table<SettingsDraft> table = {
      {{"variables", shapes::environment(), "none",
        "What $NAME stands for in all files. Its own values know HOME, USER and XDG_* only.", true},
       [](Reading& reading, const YamlNode& node, const Shape& shape, SettingsDraft& draft) {
         if (auto values = read_environment(reading, node, shape)) draft.variables = std::move(*values);
       }},
      {{"vram_margin", shapes::memory(), "512 MiB", "On each GPU: memory that is never given away."},
       [](Reading& reading, const YamlNode& node, const Shape& shape, SettingsDraft& draft) {
         if (const auto amount = read_memory(reading, node, shape)) draft.settings.vram_margin = *amount;
       }},
      {{"unit_manager", shapes::choice({"auto", "systemd", "local"}), "auto",
        "Who runs services: the systemd user manager, or gpumod's own supervisor where there is none."},
       [](Reading& reading, const YamlNode& node, const Shape& shape, SettingsDraft& draft) {
         if (const auto name = read_text(reading, node, shape))
           if (const auto kind = unit_manager_from(*name)) draft.settings.unit_manager = *kind;
       }},
      {{"release_timeout", shapes::duration(1, 3600), "120s",
        "How long memory may take to become free before a switch fails."},
       [](Reading& reading, const YamlNode& node, const Shape& shape, SettingsDraft& draft) {
         if (const auto time = read_duration(reading, node, shape)) draft.settings.release_timeout = *time;
       }},
      {{"boot", shapes::choice({"goal", "blank", "nothing"}), "goal",
        "What becomes of a switch that a reboot cut off: it is finished or taken back (goal), nothing is to run "
        "(blank), "
        "or it is forgotten (nothing)."},
       [](Reading& reading, const YamlNode& node, const Shape& shape, SettingsDraft& draft) {
         if (const auto name = read_text(reading, node, shape))
           if (const auto policy = boot_policy_from(*name)) draft.settings.boot = *policy;
       }},
      {{"engines", engines_shape(), "none", "Per engine: binary, environment, arguments."}, store_engines},
      {{"mcp", shapes::object(declarations_of(mcp_table())), "none", "For assistants that come over MCP."},
       [](Reading& reading, const YamlNode& node, const Shape&, SettingsDraft& draft) {
         Seen seen;
         read_object(reading, node, mcp_table(), draft.settings.mcp, seen);
       }},
  };
  return table;
}

}  // namespace gpumod
