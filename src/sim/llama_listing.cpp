#include "sim/llama_listing.h"

#include <algorithm>
#include <filesystem>

#include "base/fd.h"
#include "base/text.h"
#include "sim/llama_model.h"

namespace gpumod::sim {

namespace fs = std::filesystem;

namespace {

constexpr Duration usual_stop_timeout = 10s;

/// What a router keeps to itself, and what it says differently to each child.
constexpr std::string_view not_for_children[] = {"models-dir", "models-preset", "models-max",  "models-autoload",
                                                 "host",       "port",          "alias",       "model",
                                                 "hf-repo",    "api-key",       "api-key-file"};

struct Section {
  std::string name;
  std::vector<std::pair<std::string, std::string>> entries;
};

std::string_view without_comment(std::string_view line) {
  return trim(line.substr(0, line.find_first_of(";#")));
}

Result<std::vector<Section>> read_preset(const fs::path& file) {
  const auto text = read_file(file, 1 << 20);
  if (!text) return fail(ErrorCode::configuration, fmt::format("preset file does not exist: {}", file.string()));
  std::vector<Section> sections{{"", {}}};
  for (const auto raw : split_lines(*text)) {
    const auto line = without_comment(raw);
    if (line.empty()) continue;
    const auto equals = line.find('=');
    if (line.front() == '[' && line.back() == ']')
      sections.push_back({std::string(trim(line.substr(1, line.size() - 2))), {}});
    else if (equals != std::string_view::npos)
      sections.back().entries.emplace_back(trim(line.substr(0, equals)), trim(line.substr(equals + 1)));
    else
      return fail(ErrorCode::configuration, fmt::format("failed to parse server config file: {}", file.string()));
  }
  sections.erase(sections.begin());  // "version = 1"
  return sections;
}

Result<void> apply(ListedModel& model, const Section& section) {
  for (const auto& [key, value] : section.entries) {
    if (key == "load-on-startup") {
      model.load_on_startup = says_yes(value);
      model.settings.set(key, value);
      continue;
    }
    if (key == "stop-timeout") {
      model.settings.set(key, value);
      model.stop_timeout = std::chrono::seconds(model.settings.number(key).value_or(10));
      continue;
    }
    const auto* flag = llama_flag_named(key);
    if (!flag)
      return fail(ErrorCode::configuration,
                  fmt::format("option '{}' not recognized in preset '{}'", key, section.name));
    if (flag->key() == "alias") {
      model.aliases.push_back(value);
      continue;
    }
    model.settings.set(flag->key(), value);
  }
  return {};
}

/// The files of a folder, and of its folders: what llama-server would make one model of.
Result<std::vector<std::pair<std::string, fs::path>>> models_in(const fs::path& folder) {
  std::error_code problem;
  if (!fs::is_directory(folder, problem))
    return fail(ErrorCode::configuration,
                fmt::format("error: '{}' does not exist or is not a directory\n", folder.string()));
  const auto entries_of = [](const fs::path& in) {
    std::vector<fs::path> entries;
    std::error_code unreadable;
    for (fs::directory_iterator each(in, unreadable), end; !unreadable && each != end; each.increment(unreadable))
      entries.push_back(each->path());
    std::sort(entries.begin(), entries.end());
    return entries;
  };
  const auto ggufs = [&](const fs::path& in) {
    auto files = entries_of(in);
    std::erase_if(files, [](const fs::path& file) {
      return file.extension() != ".gguf" || file.filename().string().starts_with("mmproj");
    });
    return files;
  };
  std::vector<std::pair<std::string, fs::path>> found;
  for (const auto& file : ggufs(folder))
    found.emplace_back(file.stem().string(), file);
  for (const auto& entry : entries_of(folder))
    if (const auto parts = ggufs(entry); !parts.empty()) found.emplace_back(entry.filename().string(), parts.front());
  return found;
}

std::string preset_text(const ListedModel& model) {
  auto text = fmt::format("[{}]\n", model.name);
  for (const auto& [key, value] : in_router_order(model.settings))
    text += fmt::format("{} = {}\n", key, value);
  for (const auto* key : {"load-on-startup", "stop-timeout"})
    if (model.settings.has(key)) text += fmt::format("{} = {}\n", key, model.settings.text(key));
  return text + "\n";
}

}  // namespace

Result<std::vector<ListedModel>> list_models(const LlamaSettings& router) {
  std::vector<Section> sections;
  if (const auto preset = router.text("models-preset"); !preset.empty()) sections = TRY(read_preset(preset));
  std::map<std::string, ListedModel> models;
  if (const auto folder = router.text("models-dir"); !folder.empty())
    for (const auto& [name, file] : TRY(models_in(folder)))
      models[name].settings.set("model", file.string());
  for (const auto& section : sections)
    if (section.name != "*") models[section.name].from_preset = true;

  LlamaSettings own = router;
  for (const auto key : not_for_children)
    own.remove(key);
  own.set("log-colors", "off");
  std::vector<ListedModel> list;
  for (auto& [name, model] : models) {
    model.name = name;
    model.stop_timeout = usual_stop_timeout;
    for (const auto* wanted : {"*", name.c_str()})
      for (const auto& section : sections)
        if (section.name == wanted) TRY(apply(model, section));
    model.settings.merge(own);
    model.preset_text = preset_text(model);
    model.context = trained_context(model.settings.text("model"));
    list.push_back(std::move(model));
  }
  return list;
}

}  // namespace gpumod::sim
