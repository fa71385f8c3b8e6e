#include "engines/llama_router.h"

#include <algorithm>

#include <boost/json/array.hpp>

#include "base/text.h"
#include "engines/reply.h"

namespace gpumod {

namespace json = boost::json;

namespace {

auto configuration(std::string message, std::string hint = {}) {
  return fail(ErrorCode::configuration, std::move(message), std::move(hint));
}

/// One value for the whole router: unset members follow the others.
template <typename T, typename Get>
Result<T> agreed(const std::vector<const Service*>& members, const char* field, Get get) {
  T value{};
  const Service* owner = nullptr;
  for (const auto* member : members) {
    const T own = get(*member);
    if (own == T{} || (owner && own == value)) continue;
    if (owner)
      return configuration(fmt::format("services '{}' and '{}' share the router '{}' but differ in {}", owner->id,
                                       member->id, member->router, field),
                           "One router is one process: give both the same value, or another router.");
    value = own;
    owner = member;
  }
  return value;
}

bool fits_an_ini_file(std::string_view text) {
  return !text.empty() && trim(text) == text && is_valid_utf8(text) &&
         std::none_of(text.begin(), text.end(),
                      [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == ';' || c == '#'; });
}

Result<void> check_section(const Service& member, const std::string& name, const std::vector<ModelSetting>& settings) {
  if (!fits_an_ini_file(name) || name == "*" || name.find_first_of("[]") != std::string::npos)
    return configuration(
        fmt::format("service '{}': the model name '{}' cannot stand in a models preset", member.id, printable(name)),
        "Rename the model file, without brackets, ';' and '#'.");
  for (const auto& [key, value] : settings)
    if (!fits_an_ini_file(value))
      return configuration(
          fmt::format("service '{}': {} = '{}' cannot stand in a models preset", member.id, key, printable(value)),
          "A value there holds no ';', '#' or line break.");
  return {};
}

/// "alpha" of /models/alpha.gguf, "big" of /models/big/part-1.gguf; "" when the file lies elsewhere.
std::string name_below(const std::filesystem::path& folder, const std::filesystem::path& file) {
  if (folder.empty() || file.empty()) return {};
  const auto relative = file.is_absolute() ? file.lexically_normal().lexically_relative(folder.lexically_normal())
                                           : file.lexically_normal();
  if (relative.empty() || *relative.begin() == ".." || *relative.begin() == ".") return {};
  const bool in_subfolder = std::next(relative.begin()) != relative.end();
  return in_subfolder ? relative.begin()->string() : relative.stem().string();
}

const std::string* value_of(const std::vector<ModelSetting>& settings, const std::string& key) {
  for (const auto& [name, value] : settings)
    if (name == key) return &value;
  return nullptr;
}

bool all_agree(const std::vector<const Service*>& members, const ModelSetting& setting) {
  return std::all_of(members.begin(), members.end(), [&](const Service* member) {
    const auto settings = model_settings(*member->llama());
    const auto* value = value_of(settings, setting.first);
    return value && *value == setting.second;
  });
}

}  // namespace

std::string model_name(const Service& service) {
  const auto& model = service.model;
  if (!model.served_name.empty()) return model.served_name;
  if (const auto* llama = service.llama()) {
    if (auto name = name_below(llama->models_dir, model.path); !name.empty()) return name;
    if (!model.path.empty()) return model.path.stem().string();
  } else if (!model.path.empty()) {
    return model.path.string();
  }
  return model.id.empty() ? service.id : model.id;
}

std::vector<ModelSetting> model_settings(const LlamaOptions& options) {
  std::vector<ModelSetting> settings;
  const auto number = [&](const char* name, const auto& value) {
    if (value) settings.emplace_back(name, fmt::format("{}", *value));
  };
  const auto text = [&](const char* name, const std::string& value) {
    if (!value.empty()) settings.emplace_back(name, value);
  };
  const auto flag = [&](const char* name, bool wanted) {
    if (wanted) settings.emplace_back(name, "true");
  };
  number("ctx-size", options.context_size);
  number("n-gpu-layers", options.gpu_layers);
  number("threads", options.threads);
  number("n-cpu-moe", options.n_cpu_moe);
  text("flash-attn", options.flash_attention);
  text("pooling", options.pooling);
  flag("jinja", options.jinja);
  flag("embeddings", options.embeddings);
  return settings;
}

Result<RouterPlan> plan_router(const std::vector<const Service*>& members) {
  RouterPlan plan;
  if (members.empty()) return configuration("a router without services");
  for (const auto* member : members) {
    if (!member->in_router())
      return configuration(
          fmt::format("service '{}' shares the router '{}' but is no router's model", member->id, member->router),
          "Give it models_dir or models_preset.");
  }
  using Path = std::filesystem::path;
  plan.models_dir = TRY(
      agreed<Path>(members, "models_dir", [](const Service& s) { return s.llama()->models_dir.lexically_normal(); }));
  plan.models_preset = TRY(agreed<Path>(members, "models_preset",
                                        [](const Service& s) { return s.llama()->models_preset.lexically_normal(); }));
  TRY(agreed<std::string>(members, "host", [](const Service& s) { return s.host; }));
  TRY(agreed<std::uint16_t>(members, "port", [](const Service& s) { return s.port; }));

  for (const auto* member : members) {
    const auto& options = *member->llama();
    if (options.models_max) plan.models_max = std::max(plan.models_max.value_or(0), *options.models_max);
    // 0 means no limit.
    plan.no_models_autoload = plan.no_models_autoload || options.no_models_autoload;
    plan.stop_timeout = std::max(plan.stop_timeout, member->stop_timeout);
    for (const auto& [name, value] : member->environment) {
      const auto [place, added] = plan.environment.emplace(name, value);
      if (!added && !(place->second == value))
        return configuration(fmt::format("services of the router '{}' give {} different values", member->router, name),
                             "One router is one process with one environment.");
    }
    const auto& words = member->extra_args;
    const auto known = std::search(plan.extra_args.begin(), plan.extra_args.end(), words.begin(), words.end());
    if (known == plan.extra_args.end()) plan.extra_args.insert(plan.extra_args.end(), words.begin(), words.end());
  }
  if (std::any_of(members.begin(), members.end(), [](const Service* m) { return m->llama()->models_max == 0; }))
    plan.models_max = 0;

  for (const auto& setting : model_settings(*members.front()->llama()))
    if (all_agree(members, setting)) plan.common.push_back(setting);

  for (const auto* member : members) {
    const auto name = model_name(*member);
    std::vector<ModelSetting> own;
    for (const auto& setting : model_settings(*member->llama()))
      if (!value_of(plan.common, setting.first)) own.push_back(setting);
    if (!own.empty() && !plan.models_preset.empty())
      return configuration(
          fmt::format("services of the router '{}' want different settings ('{}': {} = {}), and it has a "
                      "models_preset of its own",
                      member->router, member->id, own.front().first, own.front().second),
          fmt::format("Write them into {}, section [{}], and not into the service.", plan.models_preset.string(),
                      name));
    const bool outside = plan.models_preset.empty() && !member->model.path.empty() &&
                         name_below(plan.models_dir, member->model.path).empty();
    if (outside) own.emplace_back("model", member->model.path.string());
    if (own.empty()) continue;
    TRY(check_section(*member, name, own));
    const auto same =
        std::find_if(plan.sections.begin(), plan.sections.end(), [&](const auto& s) { return s.first == name; });
    if (same == plan.sections.end())
      plan.sections.emplace_back(name, std::move(own));
    else if (same->second != own)
      return configuration(fmt::format("two services of the router '{}' want the model '{}' with different settings",
                                       member->router, name));
  }
  return plan;
}

Result<std::optional<std::string>> router_preset(const std::vector<const Service*>& members) {
  const auto plan = TRY(plan_router(members));
  if (plan.sections.empty()) return std::nullopt;
  std::string text = "version = 1\n";
  for (const auto& [name, settings] : plan.sections) {
    text += fmt::format("\n[{}]\n", name);
    for (const auto& [key, value] : settings)
      text += fmt::format("{} = {}\n", key, value);
  }
  return text;
}

namespace {

struct RouterModel {
  const json::value* entry = nullptr;  ///< null: the router does not list it
  std::vector<std::string> names;      ///< of all models
};

bool has_alias(const json::value& entry, const std::string& name) {
  const auto* aliases = find(entry, {"aliases"});
  if (!aliases || !aliases->is_array()) return false;
  return std::any_of(aliases->get_array().begin(), aliases->get_array().end(),
                     [&](const json::value& alias) { return alias.is_string() && alias.get_string() == name; });
}

RouterModel model_in(const json::value& body, const std::string& name) {
  RouterModel model;
  const auto* list = find(body, {"data"});
  if (!list) list = find(body, {"models"});
  if (!list || !list->is_array()) return model;
  for (const auto& entry : list->get_array()) {
    auto id = string_at(entry, {"id"});
    if (id.empty()) id = string_at(entry, {"name"});
    if (id == name || has_alias(entry, name)) model.entry = &entry;
    if (!id.empty()) model.names.push_back(shorten(id, 80));
  }
  return model;
}

/// "loaded", "unloaded" …; newer routers say it in an object, older ones as plain text.
std::string status_word(const json::value& entry) {
  const auto word = string_at(entry, {"status", "value"});
  return word.empty() ? string_at(entry, {"status"}) : word;
}

bool has_failed(const json::value& entry) {
  return bool_at(entry, {"status", "failed"}).value_or(false) || bool_at(entry, {"failed"}).value_or(false);
}

/// The file that the child was given: the argument after --model.
std::string model_file(const json::value& entry) {
  const auto* arguments = find(entry, {"status", "args"});
  if (!arguments || !arguments->is_array()) return {};
  const auto& list = arguments->get_array();
  for (std::size_t i = 0; i + 1 < list.size(); ++i) {
    const bool names_file = list[i].is_string() && (list[i].get_string() == "--model" || list[i].get_string() == "-m");
    if (names_file && list[i + 1].is_string()) return std::string(list[i + 1].get_string());
  }
  return {};
}

auto not_listed(const Service& service, const std::vector<std::string>& names) {
  const auto name = model_name(service);
  return configuration(fmt::format("the router on port {} has no model '{}'", service.port, name),
                       names.empty() ? "It lists no models at all: check models_dir." : did_you_mean(name, names));
}

Result<json::value> models_body(const HttpReply& reply) {
  if (!is_success(reply)) return fail(ErrorCode::failed, fmt::format("/models answers {}", status_and_message(reply)));
  auto body = TRY(json_body(reply));
  const auto* list = find(body, {"data"});
  if (!list) list = find(body, {"models"});
  if (!list || !list->is_array())
    return fail(ErrorCode::failed, "/models does not list models: it is no llama.cpp router");
  return body;
}

}  // namespace

Result<Residency> router_residency(const Service& service, const HttpReply& reply) {
  const auto body = TRY(models_body(reply));
  const auto model = model_in(body, model_name(service));
  if (!model.entry) return not_listed(service, model.names);
  const auto word = status_word(*model.entry);
  if (word == "loaded") return Residency::running;
  if (word == "loading" || word == "downloading") return Residency::starting;
  if (word == "sleeping") return Residency::sleeping1;
  if (word == "failed") return Residency::failed;
  if (word == "unloaded" || word == "downloaded")
    return has_failed(*model.entry) ? Residency::failed : Residency::unloaded;
  return fail(ErrorCode::failed,
              word.empty()
                  ? fmt::format("port {} does not say whether '{}' is loaded: it is no llama.cpp router", service.port,
                                model_name(service))
                  : fmt::format("the router says '{}' of its model, which is unknown here", shorten(word, 40)));
}

std::string router_failure_reason(const Service& service, const HttpReply& reply) {
  const auto body = models_body(reply);
  if (!body) return {};
  const auto model = model_in(*body, model_name(service));
  if (!model.entry || !has_failed(*model.entry)) return {};
  auto code = integer_at(*model.entry, {"status", "exit_code"});
  if (!code) code = integer_at(*model.entry, {"exit_code"});
  return code ? fmt::format("the router's process for '{}' ended with exit code {}", model_name(service), *code)
              : fmt::format("the router's process for '{}' ended", model_name(service));
}

Result<void> router_identity(const Service& service, const HttpReply& reply) {
  const auto body = TRY(models_body(reply));
  const auto name = model_name(service);
  const auto model = model_in(body, name);
  if (!model.entry) return not_listed(service, model.names);
  const auto word = status_word(*model.entry);
  if (word != "loaded" && word != "sleeping")
    return fail(ErrorCode::failed, fmt::format("the router on port {} has '{}' {}, not loaded", service.port, name,
                                               word.empty() ? "in no known state" : shorten(word, 40)));
  const std::filesystem::path file = model_file(*model.entry);
  if (!file.empty() && !service.model.path.empty() && file.filename() != service.model.path.filename())
    return fail(ErrorCode::failed, fmt::format("the router serves '{}' from {}, not from {}", name,
                                               shorten(file.string(), 200), service.model.path.string()));
  return {};
}

Result<void> router_load(const Service& service, const HttpReply& reply) {
  const auto message = server_message(reply);
  const auto says = [&](std::string_view text) { return message.find(text) != std::string::npos; };
  const auto name = model_name(service);
  if (is_success(reply)) {
    const auto body = json_body(reply);
    if (body && !bool_at(*body, {"success"}).value_or(true))
      return fail(ErrorCode::failed, fmt::format("the router refused to load '{}'", name));
    return {};
  }
  if (reply.status == 400 && (says("already running") || says("already loaded") || says("already loading"))) return {};
  if (reply.status == 404 || says("not found"))
    return configuration(fmt::format("the router on port {} has no model '{}'", service.port, name),
                         "A model is called as its file without .gguf, its sub-directory, or its preset's section.");
  if (says("limit"))
    return fail(ErrorCode::failed, fmt::format("the router keeps as many models as models_max allows: {}", message),
                "Unload one of them first, or raise models_max.");
  return fail(ErrorCode::failed, fmt::format("the router does not load '{}': {}", name, status_and_message(reply)));
}

Result<void> router_unload(const Service& service, const HttpReply& reply) {
  const auto message = server_message(reply);
  if (is_success(reply)) {
    const auto body = json_body(reply);
    if (!body || bool_at(*body, {"success"}).value_or(true)) return {};
  }
  if (reply.status == 400)
    for (const char* text : {"not running", "not loaded", "not found"})  // each way it holds no memory
      if (message.find(text) != std::string::npos) return {};
  return fail(ErrorCode::failed,
              fmt::format("the router does not unload '{}': {}", model_name(service), status_and_message(reply)));
}

}  // namespace gpumod
