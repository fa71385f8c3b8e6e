#include "sim/llama_fleet.h"

#include <algorithm>

#include <boost/json/parse.hpp>

#include "sim/llama_log.h"
#include "sim/llama_process.h"
#include "sim/llama_replies.h"
#include "sim/llama_single.h"

namespace gpumod::sim {

namespace json = boost::json;

const char* to_string(LlamaState state) {
  switch (state) {
    case LlamaState::loading: return "loading";
    case LlamaState::loaded: return "loaded";
    case LlamaState::sleeping: return "sleeping";
    case LlamaState::unloaded: break;
  }
  return "unloaded";
}

LlamaFleet::LlamaFleet(Loop& loop, LlamaSettings settings)
    : loop_(loop),
      settings_(std::move(settings)),
      most_(settings_.number("models-max").value_or(4)),
      program_(own_program()) {}

Result<void> LlamaFleet::reload() {
  auto list = TRY(list_models(settings_));
  for (auto entry = models_.begin(); entry != models_.end();) {
    const auto& [name, model] = *entry;
    const bool listed =
        std::any_of(list.begin(), list.end(), [&](const ListedModel& known) { return known.name == name; });
    if (listed || model->state != LlamaState::unloaded) {
      ++entry;
      continue;
    }
    llama_log('I', fmt::format("srv   load_models: (reload) removing model name={} (no longer in source)", name));
    entry = models_.erase(entry);
  }
  llama_log('I', fmt::format("srv    operator(): Available models ({}):", list.size()));
  for (auto& listed : list) {
    const auto aliases = listed.aliases.empty() ? "" : fmt::format(" (aliases: {})", fmt::join(listed.aliases, ", "));
    llama_log('I', fmt::format("srv    operator():   [{:>10}] {}{}", listed.from_preset ? "preset" : "models_dir",
                               listed.name, aliases));
    auto& model = models_[listed.name];
    if (!model) model = std::make_shared<Model>(loop_);
    if (model->state != LlamaState::unloaded) continue;
    model->failed = false;
    model->exit_code = 0;
    model->listed = std::move(listed);
  }
  return {};
}

void LlamaFleet::load_on_startup() {
  for (const auto& [name, model] : models_) {
    if (!model->listed.load_on_startup) continue;
    llama_log('I', fmt::format("srv  load_startup: (startup) loading model {}", name));
    if (const auto started = spawn(model); !started) llama_log('E', started.error().message);
  }
}

LlamaFleet::Shared LlamaFleet::find(std::string_view name) const {
  for (const auto& [known, model] : models_) {
    const auto& aliases = model->listed.aliases;
    if (known == name || std::find(aliases.begin(), aliases.end(), name) != aliases.end()) return model;
  }
  return nullptr;
}

std::vector<std::string> LlamaFleet::words(const Model& model) const {
  auto settings = model.listed.settings;
  settings.set("host", "127.0.0.1");
  settings.set("port", fmt::format("{}", model.port));
  settings.set("alias", model.listed.name);
  auto words = llama_words(settings);
  words.insert(words.begin(), program_);
  return words;
}

std::shared_ptr<void> LlamaFleet::use(Shared model) {
  ++model->in_flight;
  model->last_used = now();
  return {nullptr, [this, model](void*) {
            --model->in_flight;
            model->last_used = now();
            moved_.set();
          }};
}

// ---- loading ----

LlamaFleet::Shared LlamaFleet::longest_unused() const {
  Shared oldest;
  for (const auto& [name, model] : models_) {
    const bool idle = model->state == LlamaState::loaded || model->state == LlamaState::sleeping;
    if (!idle || model->ending || model->in_flight > 0) continue;
    if (!oldest || model->last_used < oldest->last_used) oldest = model;
  }
  return oldest;
}

Task<void> LlamaFleet::quiet() {
  const auto busy = [this] {
    return std::any_of(models_.begin(), models_.end(), [](const auto& entry) { return entry.second->in_flight > 0; });
  };
  while (busy()) {
    moved_.reset();
    (void)co_await moved_.wait();
  }
}

bool LlamaFleet::has_room() const {
  const auto running = std::count_if(models_.begin(), models_.end(),
                                     [](const auto& entry) { return entry.second->state != LlamaState::unloaded; });
  return most_ <= 0 || running < most_;
}

Task<Result<void>> LlamaFleet::load(Shared model, Patience patience) {
  while (model->state == LlamaState::unloaded && !has_room()) {
    const auto oldest = longest_unused();
    if (!oldest && patience == Patience::refuse)
      co_return fail(ErrorCode::failed, "model limit reached, try again later");
    if (!oldest) {
      moved_.reset();
      (void)co_await moved_.wait();
      continue;
    }
    llama_log('I',
              fmt::format("srv    unload_lru: models_max limit reached, removing LRU name={}", oldest->listed.name));
    begin_end(oldest);
    while (oldest->state != LlamaState::unloaded) {
      oldest->changed.reset();
      (void)co_await oldest->changed.wait();
    }
  }
  // Asked again: somebody else may have loaded it while we waited.
  if (model->state != LlamaState::unloaded) co_return fail(ErrorCode::refused, "model is already running");
  co_return spawn(model);
}

Result<void> LlamaFleet::spawn(Shared model) {
  model->port = TRY(free_port());
  llama_log('I', fmt::format("srv          load: spawning server instance with name={} on port {}", model->listed.name,
                             model->port));
  llama_log('I', "srv          load: spawning server instance with args:");
  const auto argv = words(*model);
  for (const auto& word : argv)
    llama_log('I', fmt::format("srv          load:   {}", word));
  model->child = TRY(LlamaChild::start(argv, static_cast<std::uint16_t>(settings_.number("port").value_or(9931))));
  model->state = LlamaState::loading;
  model->failed = false;
  model->exit_code = 0;
  model->ending = false;
  model->last_used = now();
  tell(*model, "model_status", {{"status", "loading"}});
  loop_.spawn(watch(model));
  return {};
}

/// A child's life as its router sees it: what it says until it says no more, then its end.
Task<void> LlamaFleet::watch(Shared model) {
  const auto child = model->child;
  // Its last words may come after its end: who reads them keeps the pipe.
  loop_.spawn(read_lines(
      child->output(), [this, model](std::string line) { hear(model, std::move(line)); }, [child] {}));
  auto ending = child->end();
  const int code = co_await std::move(ending);
  llama_log('I', fmt::format("srv           run: instance name={} exited with status {}", model->listed.name, code));
  model->state = LlamaState::unloaded;
  model->failed = code != 0;
  model->exit_code = code;
  model->ending = false;
  model->info = nullptr;
  model->changed.set();
  moved_.set();
  tell(*model, "status_change", {{"status", "unloaded"}, {"exit_code", code}});
}

void LlamaFleet::hear(Shared model, std::string line) {
  if (!line.starts_with(child_report)) {
    llama_print(fmt::format("[{}] {}", model->port, line));
    return;
  }
  boost::system::error_code problem;
  const auto value = json::parse(line.substr(child_report.size()), problem);
  if (problem || !value.is_object() || model->state == LlamaState::unloaded) return;
  const auto& said = value.get_object();
  const auto* status = said.if_contains("status");
  if (!status || !status->is_string()) return;
  if (status->get_string() == "loaded") model->state = LlamaState::loaded;
  if (status->get_string() == "sleeping") model->state = LlamaState::sleeping;
  if (const auto* info = said.if_contains("info")) model->info = *info;
  model->changed.set();
  moved_.set();
  tell(*model, "status_change", said);
}

Task<Result<void>> LlamaFleet::loaded(Shared model) {
  while (model->state == LlamaState::loading) {
    model->changed.reset();
    (void)co_await model->changed.wait();
  }
  if (model->state == LlamaState::unloaded)
    co_return fail(ErrorCode::failed, fmt::format("model name={} failed to load", model->listed.name));
  co_return Result<void>();
}

// ---- the end ----

Result<void> LlamaFleet::unload(Shared model) {
  if (model->state == LlamaState::unloaded) return fail(ErrorCode::refused, "model is not running");
  begin_end(model);
  return {};
}

void LlamaFleet::begin_end(Shared model) {
  llama_log('I', fmt::format("srv        unload: stopping model instance name={}", model->listed.name));
  if (model->state == LlamaState::loading) {
    llama_log('W', fmt::format("srv        unload: model name={} is still loading, force-killing", model->listed.name));
    model->child->kill();
    return;
  }
  if (std::exchange(model->ending, true)) return;
  model->child->order_to_end();
  loop_.spawn(kill_after_timeout(model, model->child->pid()));
}

Task<void> LlamaFleet::kill_after_timeout(Shared model, pid_t pid) {
  const auto deadline = now() + scaled(model->listed.stop_timeout);
  while (model->ending && now() < deadline) {
    model->changed.reset();
    (void)co_await model->changed.wait(deadline);
  }
  if (!model->ending || model->child->pid() != pid) co_return;
  llama_log('W',
            fmt::format("srv           run: force-killing model instance name={} after timeout", model->listed.name));
  model->child->kill();
}

Task<void> LlamaFleet::unload_all() {
  for (const auto& [name, model] : models_) {
    if (model->state == LlamaState::unloaded) continue;
    llama_log('I', fmt::format("srv    unload_all: stopping model instance name={}", name));
    begin_end(model);
  }
  for (const auto& [name, model] : models_) {
    while (model->state != LlamaState::unloaded) {
      model->changed.reset();
      (void)co_await model->changed.wait();
    }
  }
}

// ---- listeners ----

std::shared_ptr<LlamaListener> LlamaFleet::listen() {
  auto listener = std::make_shared<LlamaListener>(loop_);
  listeners_.push_back(listener);
  return listener;
}

void LlamaFleet::tell(const Model& model, const char* event, json::object data) {
  const auto text =
      llama_event(json::object{{"model", model.listed.name}, {"event", event}, {"data", std::move(data)}});
  std::erase_if(listeners_, [](const auto& listener) { return listener.expired(); });
  for (const auto& weak : listeners_) {
    const auto listener = weak.lock();
    listener->events.push_back(text);
    listener->news.set();
  }
}

}  // namespace gpumod::sim
