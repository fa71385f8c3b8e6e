#include "catalog/service_file.h"

#include <algorithm>
#include <set>

#include <fmt/format.h>

#include "base/text.h"
#include "catalog/previous.h"

namespace gpumod {

namespace {

std::vector<std::string> keys_of(const Table<Service>& table) {
  std::vector<std::string> keys;
  for (const auto& field : table)
    keys.push_back(field.declaration.key);
  return keys;
}

/// What a service of that engine may say.
const std::vector<std::string>& keys_for(EngineKind engine) {
  static std::map<EngineKind, std::vector<std::string>> keys;
  const auto [place, fresh] = keys.try_emplace(engine);
  if (fresh) {
    place->second = keys_of(common_service_table());
    for (auto& key : keys_of(engine_table(engine)))
      place->second.push_back(std::move(key));
  }
  return place->second;
}

/// An unknown key of one engine may be another engine's: say so, that is the likelier slip.
void report_foreign_keys(Reading& reading, const YamlNode& map, EngineKind engine) {
  auto known = keys_for(engine);
  const auto is_known = [&](const auto& entry) {
    return std::find(known.begin(), known.end(), entry.key->text) != known.end();
  };
  if (std::all_of(map.entries.begin(), map.entries.end(), is_known)) return;
  for (const auto kind : all_engines) {
    if (kind == engine) continue;
    for (const auto& key : keys_of(engine_table(kind))) {
      const auto* entry = map.find(key);
      if (!entry || std::find(known.begin(), known.end(), key) != known.end()) continue;
      reading.error(
          *entry->key,
          fmt::format("'{}' belongs to engine {}, and this service is {}", key, to_string(kind), to_string(engine)),
          "Remove it, or change the engine.");
      known.push_back(key);
    }
  }
  report_unknown_keys(reading, map, known, Severity::error);
}

/// What one service says must fit together, and what it leaves out gets its default.
class Settling {
 public:
  Settling(Reading& reading, ServiceDraft& draft) : reading_(reading), draft_(draft), service_(draft.service) {}

  void run() {
    if (service_.name.empty()) service_.name = service_.id;
    endpoint();
    router();
    engine_needs();
    sleep();
    network();
    adopted();
  }

 private:
  bool said(const std::string& key) const { return draft_.seen.contains(key); }
  void error(const std::string& key, std::string message, std::string hint = {}) {
    reading_.error(draft_.at(key), std::move(message), std::move(hint));
  }
  void warning(const std::string& key, std::string message, std::string hint = {}) {
    reading_.warning(draft_.at(key), std::move(message), std::move(hint));
  }

  void endpoint() {
    const bool serves_http = service_.engine != EngineKind::command;
    if (service_.port == 0 && serves_http) {
      if (!said("port") || draft_.at("port").text == "0")
        error("port", fmt::format("engine {} needs a port", to_string(service_.engine)), "Write `port: 8000`, say.");
      return;
    }
    if (service_.port != 0) {
      if (serves_http && !said("health")) service_.health_path = "/health";
      return;
    }
    for (const std::string key : {"health", "check"})
      if (!service_.health_path.empty() && said(key))
        error(key, "a health check needs a port", "Add `port:`, or write `health: none`.");
    const auto kind = service_.probe.kind;
    if (said("probe") && kind != ProbeKind::none && kind != ProbeKind::automatic)
      error("probe", "a probe needs a port", "Add `port:`, or write `probe: none`.");
  }

  void router() {
    if (service_.router.empty()) return;
    if (!service_.llama())
      error("router", "only engine llamacpp has routers", "Remove `router:`.");
    else if (!service_.in_router())
      error("router", "a service in a router needs models_dir",
            "Write `models_dir:`, the folder of the router's models.");
  }

  void engine_needs() {
    const auto& model = service_.model;
    const bool own_unit = !service_.unit.empty();
    if (service_.vllm() && model.id.empty() && model.path.empty() && !own_unit && !broken("model"))
      error("model", "engine vllm needs a model", "Write `model: ORGANISATION/NAME`, or a path.");
    if (service_.in_router()) {
      if (model.id.empty() && model.served_name.empty() && model.path.empty() && !broken("model"))
        error("model", "a service in a router needs the name of its model",
              "Write `model: NAME`, as the router calls it.");
    } else if (service_.llama() && model.path.empty() && !own_unit && !broken("model") && !said("models_dir")) {
      error("model", "engine llamacpp needs the path of a model, or models_dir",
            "Write `model: /path/to/file.gguf`; for a router, `models_dir:` and `model: NAME`.");
    }
    if (const auto* options = service_.command(); options && options->cmd.empty() && !own_unit && !broken("cmd"))
      error("cmd", "engine command needs cmd", "Write `cmd: [program, argument, …]`, or adopt a unit with `unit:`.");
    if (const auto* options = service_.fastapi(); options && options->app.empty() && !own_unit && !broken("app"))
      error("app", "engine fastapi needs an app", "Write `app: package.module:app`, or adopt a unit with `unit:`.");
    if (const auto* options = service_.llama(); options && options->models_max && !service_.in_router())
      warning("models_max", "models_max means nothing without models_dir");
  }

  /// Written, but not understood: its own problem is reported already.
  bool broken(const std::string& key) const { return said(key) && reading_.failed(); }

  void sleep() {
    const bool router = service_.in_router();
    if (!said("sleep")) {
      if (router) service_.sleep = SleepAbility::router;
      return;
    }
    auto* vllm = std::get_if<VllmOptions>(&service_.options);
    switch (service_.sleep) {
      case SleepAbility::none: return;
      case SleepAbility::router:
        if (!router)
          error("sleep", "sleep: router is for a service in a llama.cpp router",
                "Write `sleep: none`, or `models_dir:`.");
        return;
      case SleepAbility::level1:
      case SleepAbility::level2:
        if (!vllm)
          return error("sleep",
                       fmt::format("only vllm sleeps by levels, and this service is {}", to_string(service_.engine)),
                       router ? "Write `sleep: router`." : "Write `sleep: none`.");
        if (said("enable_sleep_mode") && !vllm->enable_sleep_mode)
          return error("enable_sleep_mode", "enable_sleep_mode is false, yet the service is to sleep",
                       "Remove it, or write `sleep: none`.");
        vllm->enable_sleep_mode = true;
    }
  }

  void network() {
    if (is_loopback(service_.host)) return;
    const auto* vllm = service_.vllm();
    if (vllm && vllm->enable_sleep_mode)
      warning(
          "host",
          fmt::format("anyone who reaches {} can put this service to sleep and run methods inside it: sleep mode opens "
                      "vLLM's development endpoints, without a password",
                      service_.host),
          "Write `host: 127.0.0.1`.");
    else
      warning("host",
              fmt::format("listening on {} puts this service on the network, without a password", service_.host),
              "Write `host: 127.0.0.1` unless others are meant to reach it.");
  }

  /// An adopted unit is started as it stands: what would shape a unit of ours has no effect on it.
  void adopted() {
    if (service_.unit.empty()) return;
    for (const std::string key : {"cmd", "extra_args", "binary", "working_dir", "env"})
      if (said(key))
        warning(key,
                fmt::format("{} has no effect: {} is your own unit and is started as it stands", key, service_.unit));
  }

  Reading& reading_;
  ServiceDraft& draft_;
  Service& service_;
};

ServiceDraft read_service(const std::string& file, const Yaml& original, const std::string& stem,
                          const Surroundings& around, std::vector<Problem>& problems) {
  Reading reading(file, around, problems);
  ServiceDraft draft;
  draft.root = original;
  draft.service.id = stem;
  draft.service.source = {file, original->line, original->column};
  if (!expect_map(reading, *original, "a service: a map of keys")) return draft;

  // The id first: a broken service is remembered by it.
  if (const auto* id = original->find("id"); id && id->value->is_scalar() && is_valid_id(id->value->text))
    draft.service.id = id->value->text;
  else if ((!id || id->value->is_null()) && !is_valid_id(stem))
    reading.error(*original,
                  stem.empty() ? std::string("the service has no id")
                               : fmt::format("the file's name, '{}', is no id", printable(stem)),
                  "Write `id:`, in small letters, digits, and . _ -.");

  if (is_previous(*original)) {
    const Yaml translated = from_previous(reading, *original);
    if (!translated) return draft;
    draft.root = translated;
  }
  const YamlNode& map = *draft.root;
  if (const auto* engine = map.find("engine");
      engine && engine->value->is_scalar() && engine->value->text == "docker") {
    reading.error(*engine->value, "there is no engine docker",
                  "Write `engine: command` with `cmd: docker run …` and `container: NAME`.");
    return draft;
  }

  auto& service = draft.service;
  read_fields(reading, map, common_service_table(), Phase::early, service, draft.seen);
  reading.know_endpoint(service.host, service.port);
  const auto* engine = map.find("engine");
  const bool engine_known = engine && engine->value->is_scalar() && engine_kind_from(engine->value->text).has_value();
  if (!engine_known) {
    // Without its engine the rest cannot be judged, but what is common to all can.
    read_fields(reading, map, common_service_table(), Phase::late, service, draft.seen);
    return draft;
  }
  service.options = options_of(service.engine);
  read_fields(reading, map, common_service_table(), Phase::late, service, draft.seen);
  read_fields(reading, map, engine_table(service.engine), Phase::early, service, draft.seen);
  read_fields(reading, map, engine_table(service.engine), Phase::late, service, draft.seen);
  report_foreign_keys(reading, map, service.engine);
  Settling(reading, draft).run();
  draft.ok = !reading.failed();
  return draft;
}

}  // namespace

std::string stem_of(const std::string& file) {
  return std::filesystem::path(file).stem().string();
}

bool is_loopback(std::string_view host) {
  return host == "localhost" || host == "::1" || host.substr(0, 4) == "127.";
}

std::vector<ServiceDraft> read_service_file(const std::string& file, const Yaml& root, const Surroundings& around,
                                            std::vector<Problem>& problems) {
  std::vector<ServiceDraft> drafts;
  const auto* list = root->is_map() ? root->find("services") : nullptr;
  if (!list) {
    drafts.push_back(read_service(file, root, stem_of(file), around, problems));
    return drafts;
  }
  Reading reading(file, around, problems);
  report_unknown_keys(reading, *root, {"services"}, Severity::error);
  const auto& items = list->value->items;
  if (!list->value->is_sequence())
    reading.error(*list->value, "expected a list of services", "Write `services:` and then `- id: …` items.");
  else if (!items.empty() &&
           std::all_of(items.begin(), items.end(), [](const Yaml& item) { return item->is_scalar(); }))
    reading.error(*list->value, "this looks like a mode", "Modes belong in the folder modes/.");
  else
    for (const auto& item : items)
      drafts.push_back(read_service(file, item, "", around, problems));
  return drafts;
}

ModeDraft read_mode_file(const std::string& file, const Yaml& root, const Surroundings& around,
                         std::vector<Problem>& problems) {
  Reading reading(file, around, problems);
  ModeDraft draft;
  auto& mode = draft.mode;
  draft.root = root;
  mode.id = stem_of(file);
  mode.source = {file, root->line, root->column};
  if (root->is_map()) {
    if (const auto* id = root->find("id"); id && id->value->is_scalar() && is_valid_id(id->value->text))
      mode.id = id->value->text;
    else if ((!id || id->value->is_null()) && !is_valid_id(mode.id))
      reading.error(*root, fmt::format("the file's name, '{}', is no id", printable(mode.id)),
                    "Write `id:`, in small letters, digits, and . _ -.");
  }
  Seen seen;
  read_object(reading, *root, mode_table(), mode, seen);
  if (mode.name.empty()) mode.name = mode.id;
  if (const auto found = seen.find("services"); found != seen.end() && found->second->is_sequence())
    draft.elements = found->second->items;
  if (draft.elements.size() != mode.services.size()) draft.elements.resize(mode.services.size(), root);

  std::set<std::string> ids;
  for (std::size_t i = 0; i < mode.services.size(); ++i) {
    const auto& id = mode.services[i];
    if (!is_valid_id(id))
      reading.error(*draft.elements[i], fmt::format("'{}' is no id of a service", printable(id.substr(0, 80))));
    else if (!ids.insert(id).second)
      reading.error(*draft.elements[i], fmt::format("the service '{}' is listed twice", id), "Remove one of them.");
  }
  for (const auto& id : mode.optional)
    if (!ids.contains(id))
      reading.error(seen.contains("optional") ? *seen.at("optional") : *root,
                    fmt::format("'{}' is optional, but no service of the mode", printable(id.substr(0, 80))),
                    "Add it to services, or take it out here.");
  draft.ok = !reading.failed();
  return draft;
}

Settings read_settings_file(const std::string& file, const Yaml& root, Surroundings& around,
                            std::vector<Problem>& problems) {
  Reading reading(file, around, problems);
  SettingsDraft draft;
  if (!expect_map(reading, *root, "settings: a map of keys")) return draft.settings;
  Seen seen;
  const auto& table = settings_table();
  read_fields(reading, *root, table, Phase::early, draft, seen);
  around.variables = draft.variables;
  read_fields(reading, *root, table, Phase::late, draft, seen);
  std::vector<std::string> known;
  for (const auto& field : table)
    known.push_back(field.declaration.key);
  report_unknown_keys(reading, *root, known, Severity::error);
  return draft.settings;
}

}  // namespace gpumod
