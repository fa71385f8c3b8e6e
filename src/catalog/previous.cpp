#include "catalog/previous.h"

#include <algorithm>

#include <fmt/format.h>

#include "base/text.h"
#include "catalog/tables.h"

namespace gpumod {

namespace {

/// A row moves a value to a key of ours, "model.path" meaning a key inside a key. Rows further down do not replace what
/// a row above them has set: unit_vars are nearer to the command line, so they come first.
struct Row {
  std::string_view place;  ///< "unit_vars", or "" for the top of the file
  std::string_view old_key;
  std::string_view new_key;      ///< empty: known, and of no use any more
  std::string_view engine = {};  ///< empty: any
};

constexpr Row rows[] = {
    {"", "id", "id"},
    {"", "name", "name"},
    {"", "driver", "engine"},
    {"", "vram_mb", "vram_mb"},
    {"", "port", "port"},
    {"", "startup_timeout", "startup_timeout"},
    {"", "health_endpoint", "health"},
    {"", "sleep_mode", "sleep"},
    {"", "supports_sleep", ""},   // sleep_mode says it; `false` overrules, see below
    {"", "kv_cache_per_1k", ""},  // estimates come from the model's own files now
    {"unit_vars", "host", "host"},
    {"unit_vars", "extra_args", "extra_args"},
    {"unit_vars", "working_dir", "working_dir"},
    {"unit_vars", "gpu_mem_util", "gpu_memory_utilization", "vllm"},
    {"unit_vars", "sleep_level", "", "vllm"},  // sleep_mode says it; vLLM has no such option
    {"unit_vars", "model_path", "model.path"},
    {"unit_vars", "default_model", "model.served_name", "llamacpp"},
    {"unit_vars", "ctx_size", "context_size", "llamacpp"},
    {"unit_vars", "n_gpu_layers", "gpu_layers", "llamacpp"},
    {"unit_vars", "flash_attn", "flash_attention", "llamacpp"},
    {"unit_vars", "app_module", "app", "fastapi"},
    {"", "model_id", "model.id"},
    {"unit_vars", "default_model", "model.id", "llamacpp"},
    {"", "model_path", "model.path"},
    {"", "context_size", "context_size", "llamacpp"},
    {"", "context_size", "max_model_len", "vllm"},
    {"", "context_size", "", "fastapi"},
};

class Translation {
 public:
  Translation(Reading& reading, const YamlNode& old)
      : reading_(reading), old_(old), map_(std::make_shared<YamlNode>()) {
    map_->kind = YamlNode::Kind::map;
    map_->line = old.line;
    map_->column = old.column;
  }

  Yaml run() {
    if (!engine_can_be_read()) return nullptr;
    collect_unit_vars();
    for (const auto& [key, value] : unit_vars_)
      keep_or_warn(*key, key, value, "unit_vars");
    for (const auto& row : rows)
      apply(row);
    for (const auto& [key, value] : old_.entries)
      keep_or_warn(*key, key, value, "");
    agree_on_sleep();
    fill_in_application();
    if (model_) put("model", old_, model_);
    return map_;
  }

 private:
  bool engine_can_be_read() {
    const auto* driver = old_.find("driver");
    engine_ = driver && driver->value->is_scalar() ? driver->value->text : "";
    if (engine_ == "docker") {
      reading_.error(*driver->value, "the docker driver is not read any more",
                     "Write `engine: command` with `cmd: docker run …` and `container: NAME`.");
      return false;
    }
    kind_ = engine_kind_from(engine_);
    if (const auto* unit = old_.find("unit_template"); unit && !unit->value->is_null())
      reading_.error(*unit->key, "unit_template is not read: gpumod writes no unit files from templates",
                     "Write `unit: NAME.service` to adopt a unit of your own, or leave it out.");
    return true;
  }

  void collect_unit_vars() {
    const auto* vars = old_.find("unit_vars");
    if (!vars || vars->value->is_null()) return;
    if (expect_map(reading_, *vars->value, "a map of unit_vars")) unit_vars_ = vars->value->entries;
  }

  const YamlNode::Entry* find(std::string_view place, std::string_view key) const {
    const auto& entries = place.empty() ? old_.entries : unit_vars_;
    const auto found = std::find_if(entries.begin(), entries.end(), [&](const auto& e) { return e.key->text == key; });
    return found == entries.end() || found->value->is_null() ? nullptr : &*found;
  }

  static bool belongs(const Row& row, std::string_view engine) { return row.engine.empty() || row.engine == engine; }

  void apply(const Row& row) {
    const auto* entry = find(row.place, row.old_key);
    if (!entry || row.new_key.empty() || !belongs(row, engine_)) return;
    const auto dot = row.new_key.find('.');
    if (dot == std::string_view::npos)
      put(std::string(row.new_key), *entry->key, entry->value);
    else
      put_into(model(), std::string(row.new_key.substr(dot + 1)), *entry->key, entry->value);
  }

  /// A key that no row knows: ours passes, anything else is said aloud.
  void keep_or_warn(const YamlNode& at, const Yaml& key, const Yaml& value, std::string_view place) {
    if (key->text == "unit_vars" && place.empty()) return;
    if (key->text == "unit_template") return;
    for (const auto& row : rows)
      if (row.place == place && row.old_key == key->text && belongs(row, engine_)) return;
    std::vector<std::string> known;
    if (place.empty())
      for (const auto& field : common_service_table())
        known.push_back(field.declaration.key);
    if (kind_)
      for (const auto& field : engine_table(*kind_))
        known.push_back(field.declaration.key);
    if (std::find(known.begin(), known.end(), key->text) != known.end()) return put(key->text, at, value);
    if (!kind_ && !place.empty()) return;  // the engine is unknown, and so is what its variables mean
    for (const auto& row : rows)
      if (row.place == place && belongs(row, engine_)) known.emplace_back(row.old_key);
    const auto near = nearest_names(key->text, known, 1);
    const auto shown = printable(std::string_view(key->text).substr(0, 80));
    if (place.empty())
      reading_.warning(at, fmt::format("unknown key '{}' is ignored", shown),
                       near.empty() ? std::string() : fmt::format("Did you mean '{}'?", near.front()));
    else
      reading_.warning(at, fmt::format("unit_vars.{} is ignored: gpumod does not know it for {}", shown, engine_),
                       near.empty() ? "If the server has such an option, write it in extra_args."
                                    : fmt::format("Did you mean '{}'?", near.front()));
  }

  YamlNode& model() {
    if (!model_) {
      model_ = std::make_shared<YamlNode>();
      model_->kind = YamlNode::Kind::map;
    }
    return *model_;
  }

  void put(const std::string& key, const YamlNode& at, Yaml value) { put_into(*map_, key, at, std::move(value)); }

  void put_into(YamlNode& map, const std::string& key, const YamlNode& at, Yaml value) {
    if (map.find(key)) return;
    if (map.line == 0) {
      map.line = value->line;
      map.column = value->column;
    }
    map.entries.push_back({scalar(key, at), std::move(value)});
  }

  static Yaml scalar(const std::string& text, const YamlNode& at) {
    auto node = std::make_shared<YamlNode>();
    node->kind = YamlNode::Kind::scalar;
    node->text = text;
    node->line = at.line;
    node->column = at.column;
    return node;
  }

  void replace(const std::string& key, const std::string& text) {
    for (auto& entry : map_->entries)
      if (entry.key->text == key) entry.value = scalar(text, *entry.value);
  }

  bool says_router() const { return map_->find("models_dir") || map_->find("models_preset"); }

  /// Old files could promise a sleep that the engine cannot keep; what it can do instead is said, not guessed at switch
  /// time.
  void agree_on_sleep() {
    const auto* sleep = map_->find("sleep");
    if (!sleep || !sleep->value->is_scalar()) return;
    const auto* supports = find("", "supports_sleep");
    const std::string& wanted = sleep->value->text;
    if (supports && supports->value->is_scalar() && supports->value->text == "false" && wanted != "none") {
      reading_.warning(*sleep->value, fmt::format("supports_sleep is false, so sleep_mode {} is left aside", wanted));
      return replace("sleep", "none");
    }
    const bool level = wanted == "l1" || wanted == "l2";
    const bool router = wanted == "router";
    if (!level && !router) return;
    std::string can = "none";
    if (kind_ == EngineKind::vllm && level) can = wanted;
    if (kind_ == EngineKind::llamacpp && says_router()) can = "router";
    if (can == wanted) return;
    reading_.warning(*sleep->value, fmt::format("{} cannot sleep as {}; '{}' is used", engine_, wanted, can),
                     fmt::format("Write `sleep_mode: {}`.", can));
    replace("sleep", can);
  }

  /// The earlier unit template named this application when the file named none.
  void fill_in_application() {
    if (kind_ != EngineKind::fastapi || map_->find("app") || map_->find("unit")) return;
    const auto* driver = old_.find("driver");
    reading_.warning(*driver->value, "no unit_vars.app_module: main:app is used, as before",
                     "Name the application, or adopt your own unit with `unit:`.");
    put("app", *driver->value, scalar("main:app", *driver->value));
  }

  Reading& reading_;
  const YamlNode& old_;
  std::shared_ptr<YamlNode> map_;
  std::shared_ptr<YamlNode> model_;
  std::vector<YamlNode::Entry> unit_vars_;
  std::string engine_;
  std::optional<EngineKind> kind_;
};

}  // namespace

bool is_previous(const YamlNode& map) {
  return map.is_map() && map.find("driver") && !map.find("engine");
}

Yaml from_previous(Reading& reading, const YamlNode& map) {
  return Translation(reading, map).run();
}

std::vector<Renaming> previous_renamings() {
  std::vector<Renaming> all;
  for (const auto& row : rows) {
    const auto old_key = row.place.empty() ? std::string(row.old_key) : fmt::format("{}.{}", row.place, row.old_key);
    all.push_back({old_key, std::string(row.new_key), std::string(row.engine)});
  }
  return all;
}

}  // namespace gpumod
