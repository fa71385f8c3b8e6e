#include "sim/llama_single.h"

#include <cstdlib>

#include <boost/json/array.hpp>
#include <boost/json/serialize.hpp>
#include <unistd.h>

#include "base/paths.h"
#include "sim/llama_gate.h"
#include "sim/llama_log.h"
#include "sim/llama_process.h"
#include "sim/llama_single_server.h"

namespace gpumod::sim {

namespace json = boost::json;

void LlamaSingle::open_gpu() {
  if (environment_variable("GPUMOD_SIM_GPU").empty() || settings_.text("device") == "none") {
    if (settings_.has("n-gpu-layers")) llama_print("warning: no usable GPU found, --gpu-layers option will be ignored");
    return;
  }
  auto gpu = Gpu::open(settings_.number("main-gpu").value_or(0));
  if (!gpu) {
    // The real one says so, too, and goes on without.
    llama_log('W', fmt::format("ggml_cuda_init: failed to initialize CUDA: {}", gpu.error().message));
    return;
  }
  gpu_ = std::move(*gpu);
}

void LlamaSingle::name_model() {
  auto path = model_.file;
  if (model_.has(llama_faults::wrong_model)) path.replace_filename("another-model.gguf");
  identity_.path = path.string();
  std::string_view aliases;
  const auto said = settings_.text("alias");
  if (!model_.has(llama_faults::wrong_model)) aliases = said;
  while (!aliases.empty()) {
    const auto alias = aliases.substr(0, aliases.find(','));
    aliases.remove_prefix(std::min(aliases.size(), alias.size() + 1));
    identity_.aliases.emplace_back(alias);
  }
  if (identity_.aliases.empty())
    identity_.aliases.push_back(model_.has(llama_faults::wrong_model) ? "another-model" : identity_.path);
  identity_.name = identity_.aliases.front();
  identity_.created = std::chrono::duration_cast<std::chrono::seconds>(wall_now().time_since_epoch()).count();
}

void LlamaSingle::give_up_loading() {
  llama_log('E', fmt::format("srv    load_model: failed to load model, '{}'", settings_.text("model")));
  llama_log('I', "srv    operator(): operator(): cleaning up before exit...");
  llama_log('E', "srv  llama_server: exiting due to model loading error");
  leave(1);
}

/// A line to the router. What cannot be told is the router's loss: it sees the end of the process.
void LlamaSingle::report(json::object what) const {
  if (!is_child_) return;
  const auto line = std::string(child_report) + json::serialize(what) + '\n';
  [[maybe_unused]] const auto written = ::write(STDOUT_FILENO, line.data(), line.size());
}

Task<void> LlamaSingle::live() {
  log_beginning(settings_);
  const auto host = settings_.text("host", "127.0.0.1");
  const auto port = settings_.number("port").value_or(9931);
  auto keys = llama_keys(settings_);
  if (!keys) {
    llama_log('E', keys.error().message);
    leave(1);
  }
  keys_ = std::move(*keys);
  log_security(settings_);
  auto server = HttpServer::listen(loop_, host, static_cast<std::uint16_t>(port),
                                   [this](ServerRequest request) { return handle(std::move(request)); });
  if (!server) {
    llama_log('E',
              fmt::format("srv         start: couldn't bind HTTP server socket, hostname: {}, port: {}", host, port));
    llama_log('I', "srv    operator(): operator(): cleaning up before exit...");
    llama_log('E', "srv  llama_server: exiting due to HTTP server error");
    leave(1);
  }
  server_ = std::move(*server);

  const auto path = settings_.text("model", settings_.text("hf-repo"));
  auto model = read_llama_model(path);
  if (!model) {
    llama_log('I', fmt::format("srv    load_model: loading model '{}'", path));
    log_unreadable_model(path, model.error());
    give_up_loading();
  }
  model_ = std::move(*model);
  name_model();
  const bool deaf = model_.has(llama_faults::wedged_child) || model_.has(llama_faults::ignore_sigterm);
  if (deaf) ignore_signals();
  open_gpu();
  if (gpu_ && model_.cuda > Bytes() && !gpu_->allocate("cuda", model_.cuda)) give_up_loading();
  slots_.resize(static_cast<std::size_t>(std::max(1, settings_.number("parallel").value_or(4))));
  if (model_.has(llama_faults::health_lies)) report({{"status", "loaded"}});

  const bool has_loaded = co_await load();
  if (!has_loaded) give_up_loading();
  loaded_ = true;
  idle_since_ = now();
  llama_log('I', "srv  llama_server: model loaded");
  llama_log('I', fmt::format("srv  llama_server: listening on http://{}:{}", host, server_->port()));
  report({{"status", "loaded"}, {"info", model_entry(identity_, model_, placement_.context)}});
  if (!deaf) hear_signals(loop_, [this] { be_told_to_end(false); });
  if (settings_.number("sleep-idle-seconds").value_or(-1) > 0) loop_.spawn(watch_idleness());
  if (!is_child_ || model_.has(llama_faults::wedged_child)) co_return;
  llama_log('I', "srv    operator(): child server monitoring thread started, waiting for EOF on stdin...");
  loop_.spawn(read_lines(
      STDIN_FILENO,
      [this](std::string line) {
        if (line == child_order) {
          llama_log('I', "srv    operator(): exit command received, exiting...");
          be_told_to_end(true);
        }
      },
      [] {
        llama_log('I', "srv    operator(): EOF on stdin detected, forcing shutdown...");
        leave(1);
      }));
}

Task<bool> LlamaSingle::load() {
  llama_log('I', fmt::format("srv    load_model: loading model '{}'", settings_.text("model")));
  LlamaLoad order;
  order.model = &model_;
  order.settings = &settings_;
  order.gpu = gpu_ ? &*gpu_ : nullptr;
  order.loop = &loop_;
  order.progress = [this](double share) {
    if (share > 0 && share < 1) return;
    const json::object progress{{"stages", json::array{"text_model"}}, {"current", "text_model"}, {"value", share}};
    report({{"status", "loading"}, {"progress", progress}});
  };
  auto loading = load_llama(order);
  auto placement = co_await std::move(loading);
  if (!placement) co_return false;
  placement_ = std::move(*placement);
  const int each =
      settings_.has("parallel") ? placement_.context / static_cast<int>(slots_.size()) : placement_.context;
  llama_log('I', fmt::format("srv    load_model: initializing, n_slots = {}, n_ctx_slot = {}, kv_unified = '{}'",
                             slots_.size(), each, !settings_.has("parallel")));
  for (auto& slot : slots_)
    slot.context = each;
  co_return true;
}

// ---- sleep ----

Task<void> LlamaSingle::watch_idleness() {
  const auto limit = scaled(std::chrono::seconds(*settings_.number("sleep-idle-seconds")));
  for (;;) {
    const auto due = (in_flight_ > 0 ? now() : idle_since_) + limit;
    co_await wait_until(due);
    if (in_flight_ > 0 || now() < idle_since_ + limit || ending_) continue;
    llama_log('I', "que    start_loop: entering sleeping state");
    llama_log('I', "srv  handle_sleep: server is entering sleeping state");
    unload_llama(gpu_ ? &*gpu_ : nullptr);
    asleep_ = true;
    awake_.reset();
    report({{"status", "sleeping"}});
    (void)co_await awake_.wait();
  }
}

/// Whoever needs the model waits here until it is back. There is no way on when it does not fit any more: the real one
/// aborts.
Task<void> LlamaSingle::wake() {
  if (!asleep_) co_return;
  if (waking_) {
    (void)co_await awake_.wait();
    co_return;
  }
  waking_ = true;
  llama_log('I', "que    start_loop: exiting sleeping state");
  llama_log('I', "srv  handle_sleep: server is exiting sleeping state");
  const bool has_loaded = co_await load();
  if (!has_loaded) {
    llama_print("failed to reload model after sleeping");
    std::abort();
  }
  for (auto& slot : slots_)
    slot.used = false;
  waking_ = false;
  asleep_ = false;
  idle_since_ = now();
  report({{"status", "loaded"}});
  awake_.set();
}

// ---- the end ----

void LlamaSingle::be_told_to_end(bool by_router) {
  const bool stuck = in_flight_ > 0 && model_.wedges_when_busy;
  if (!ending_) {
    ending_ = true;
    llama_log('I', "srv    operator(): operator(): cleaning up before exit...");
    server_->stop_listening();
  }
  if (stuck || (is_child_ && !by_router)) return;
  loop_.spawn(end());
}

Task<void> LlamaSingle::end() {
  co_await wait_for(scaled(model_.unload));
  leave(0);
}

Task<void> LlamaSingle::hang() {
  (void)co_await never_.wait();
}

int run_llama_single(const LlamaSettings& settings, bool is_child) {
  Loop loop;
  LlamaSingle server(loop, settings, is_child);
  loop.spawn(server.live());
  loop.run();
  return 1;
}

}  // namespace gpumod::sim
