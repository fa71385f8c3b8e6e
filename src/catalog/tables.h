// The tables of every kind of file. A service's keys are the common ones and those of its engine.
#pragma once

#include "catalog/schema.h"

namespace gpumod {

constexpr EngineKind all_engines[] = {EngineKind::vllm, EngineKind::llamacpp, EngineKind::fastapi, EngineKind::command};

const Table<Service>& common_service_table();
const Table<Service>& engine_table(EngineKind kind);
const Table<ModelSource>& model_table();
const Table<Probe>& probe_table();
const Table<Mode>& mode_table();

/// Settings and the variables that only the catalogue needs.
struct SettingsDraft {
  Settings settings;
  std::map<std::string, std::string> variables;
};
const Table<SettingsDraft>& settings_table();
const Table<EngineSettings>& engine_settings_table();
const Table<McpSettings>& mcp_table();

EngineOptions options_of(EngineKind kind);  ///< empty ones

/// Reads the files that an `env_file:` names; missing or malformed ones are problems, and so are readable ones.
std::optional<std::map<std::string, std::string>> read_environment_files(Reading&, const YamlNode&, const Shape&);

}  // namespace gpumod
