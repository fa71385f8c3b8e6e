#include "sim/llama_single.h"

#include <cstdlib>
#include <deque>

#include <boost/json/array.hpp>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <unistd.h>

#include "base/paths.h"
#include "sim/llama_gate.h"
#include "sim/llama_loading.h"
#include "sim/llama_log.h"
#include "sim/llama_process.h"
#include "sim/llama_status.h"

namespace gpumod::sim {

namespace json = boost::json;

namespace {

using Kind = LlamaQuestion::Kind;

constexpr Duration look_interval = 50ms;  // how often a waiting request looks whether its client is still there

class LlamaSingle {
 public:
  LlamaSingle(Loop& loop, LlamaSettings settings, bool is_child)
      : loop_(loop), settings_(std::move(settings)), is_child_(is_child) {}
  Task<void> live();

 private:
  /// A request's place in the queue and at a slot; its end frees both.
  struct Ticket {
    explicit Ticket(LlamaSingle& of) : server(of) { ++server.in_flight_; }
    Ticket(const Ticket&) = delete;
    Ticket& operator=(const Ticket&) = delete;
    ~Ticket() {
      --server.in_flight_;
      server.idle_since_ = now();
      if (slot) slot->busy = false;
      server.slot_freed_.set();
    }
    LlamaSingle& server;
    LlamaSlot* slot = nullptr;
  };
  using Shared = std::shared_ptr<LlamaTelling>;

  void open_gpu();
  void name_model();
  [[noreturn]] void give_up_loading();
  void report(json::object what) const;
  Task<bool> load();
  Task<void> wake();
  Task<void> watch_idleness();

  Task<ServerReply> handle(ServerRequest request);
  Task<ServerReply> route(ServerRequest request);
  Task<ServerReply> answer(Kind kind, ServerRequest request);
  Task<ServerReply> embed(ServerRequest request, bool native);
  Task<ServerReply> slots();
  enum class Pick { first, least_recent };
  LlamaSlot* free_slot(Pick pick);
  void mark(LlamaSlot& slot);
  Task<std::shared_ptr<Ticket>> take_slot(Pick pick);
  Task<void> tell(Shared telling, std::shared_ptr<Ticket> ticket, ServerReply::Write write);
  Task<bool> pass(TimePoint until, std::function<bool()> has_left);
  Task<void> hang();
  bool is_wedged() const;
  void count(const LlamaTelling& telling);
  TimePoint said_by(TimePoint start, const LlamaTelling& telling, std::size_t token) const;

  void be_told_to_end(bool by_router);
  Task<void> end();

  Loop& loop_;
  LlamaSettings settings_;
  bool is_child_;
  std::vector<std::string> keys_;
  LlamaModel model_;
  LlamaIdentity identity_;
  std::optional<Gpu> gpu_;
  LlamaPlacement placement_;
  std::unique_ptr<HttpServer> server_;
  std::deque<LlamaSlot> slots_;
  LlamaCounters counters_;
  int in_flight_ = 0;
  int tasks_ = 0;
  int questions_ = 0;
  bool loaded_ = false;
  bool asleep_ = false;
  bool waking_ = false;
  bool ending_ = false;
  TimePoint idle_since_;
  Signal slot_freed_{loop_};
  Signal awake_{loop_};
  Signal never_{loop_};
};

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

// ---- requests ----

Task<ServerReply> LlamaSingle::handle(ServerRequest request) {
  auto refusal = llama_gate(keys_, request);
  if (refusal) co_return with_llama_headers(std::move(*refusal));
  auto routing = route(std::move(request));
  auto reply = co_await std::move(routing);
  co_return with_llama_headers(std::move(reply));
}

Task<ServerReply> LlamaSingle::route(ServerRequest request) {
  const auto method = llama_method(request);
  const auto is = [&](std::string_view wanted, std::initializer_list<std::string_view> paths) {
    return method == wanted && std::find(paths.begin(), paths.end(), request.path) != paths.end();
  };
  const bool health = is_health(request) && method == "GET";
  if (!loaded_ && !(health && model_.has(llama_faults::health_lies))) {
    if (request.path == "/") co_return llama_not_found();
    co_return llama_error(503, "Loading model", "unavailable_error");
  }
  if (health) co_return llama_reply(json::object{{"status", "ok"}});
  if (is("GET", {"/props"}))
    co_return llama_reply(llama_props(settings_, identity_, model_, placement_.context, slots_.size(), asleep_));
  if (is("GET", {"/models", "/v1/models"})) co_return llama_reply(models_list(identity_, model_, placement_.context));
  if (is("GET", {"/lora-adapters"})) co_return llama_reply(json::array());
  if (is("GET", {"/metrics"})) {
    if (!settings_.flag("metrics")) co_return llama_not_supported("metrics endpoint", "--metrics");
    ServerReply reply;
    reply.content_type = "text/plain; version=0.0.4";
    reply.headers["Process-Start-Time-Unix"] = fmt::format("{}", identity_.created);
    reply.body = llama_metrics(counters_, slots_);
    co_return reply;
  }
  if (is("POST", {"/props"})) {
    if (!settings_.flag("props")) co_return llama_not_supported("changing global properties", "--props");
    co_return llama_reply(json::object{{"success", true}});
  }
  Task<ServerReply> replying;
  if (is("GET", {"/slots"}))
    replying = slots();
  else if (is("POST", {"/chat/completions", "/v1/chat/completions"}))
    replying = answer(Kind::chat, std::move(request));
  else if (is("POST", {"/v1/completions"}))
    replying = answer(Kind::completion, std::move(request));
  else if (is("POST", {"/completion", "/completions"}))
    replying = answer(Kind::native, std::move(request));
  else if (is("POST", {"/v1/embeddings"}))
    replying = embed(std::move(request), false);
  else if (is("POST", {"/embedding", "/embeddings"}))
    replying = embed(std::move(request), true);
  else if (is("POST", {"/tokenize"}))
    co_return llama_reply(tokenized(request.body));
  else
    co_return llama_not_found();
  auto reply = co_await std::move(replying);
  co_return reply;
}

bool LlamaSingle::is_wedged() const {
  return model_.has(llama_faults::wedged_child) && questions_ >= model_.wedge_after;
}

Task<ServerReply> LlamaSingle::slots() {
  if (!settings_.flag("slots", true)) co_return llama_not_supported("slots endpoint", "--slots");
  if (is_wedged()) co_await hang();
  co_await wake();
  co_return llama_reply(llama_slots(slots_));
}

/// A chat goes where its prompt is known already, which is mostly the first slot; everything else to the slot that was
/// used longest ago.
LlamaSlot* LlamaSingle::free_slot(Pick pick) {
  LlamaSlot* found = nullptr;
  for (auto& slot : slots_) {
    if (slot.busy) continue;
    if (!found || (pick == Pick::least_recent && slot.turn < found->turn)) found = &slot;
  }
  return found;
}

void LlamaSingle::mark(LlamaSlot& slot) {
  slot.used = true;
  slot.task = tasks_++;
  slot.turn = tasks_;
  slot.question = {};
  slot.prompt_tokens = slot.generated = 0;
}

/// Waits for a free slot, as the real one's queue does.
Task<std::shared_ptr<LlamaSingle::Ticket>> LlamaSingle::take_slot(Pick pick) {
  auto ticket = std::make_shared<Ticket>(*this);
  if (is_wedged()) co_await hang();
  ++questions_;
  co_await wake();
  for (;;) {
    if (ending_) co_await hang();
    if (auto* slot = free_slot(pick)) {
      mark(*slot);
      slot->busy = true;
      ticket->slot = slot;
      co_return ticket;
    }
    slot_freed_.reset();
    (void)co_await slot_freed_.wait();
  }
}

/// False when the client has left meanwhile. No return once the process is to end: who is still asking then has no
/// answer, and keeps the process (see llama_single.h).
Task<bool> LlamaSingle::pass(TimePoint until, std::function<bool()> has_left) {
  for (;;) {
    if (ending_) co_await hang();
    if (has_left && has_left()) co_return false;
    if (now() >= until) co_return true;
    co_await wait_until(std::min(until, now() + look_interval));
  }
}

TimePoint LlamaSingle::said_by(TimePoint start, const LlamaTelling& telling, std::size_t token) const {
  const double simulated = telling.timings.prompt + static_cast<double>(token) / placement_.tokens_per_second;
  return start + scaled(std::chrono::duration_cast<Duration>(std::chrono::duration<double>(simulated)));
}

Task<ServerReply> LlamaSingle::answer(Kind kind, ServerRequest request) {
  auto question = read_question(kind, request.body);
  if (!question) co_return llama_bad_request(question.error().message);
  if (model_.dimensions > 0) {
    if (auto* slot = free_slot(Pick::least_recent)) {
      mark(*slot);
      slot->question = *question;
    }
    co_return llama_error(500, "the current context does not support logits computation. skipping", "server_error");
  }
  const int context = slots_.front().context;
  auto made = make_answer(model_, *question, context);
  if (made.prompt_tokens >= context) co_return llama_too_long(made.prompt_tokens, context);

  auto taking = take_slot(Pick::first);
  auto ticket = co_await std::move(taking);
  auto telling = std::make_shared<LlamaTelling>();
  telling->identity = identity_;
  telling->question = std::move(*question);
  telling->answer = std::move(made);
  telling->id = "chatcmpl-" + random_id();
  telling->created = std::chrono::duration_cast<std::chrono::seconds>(wall_now().time_since_epoch()).count();
  telling->slot = static_cast<int>(ticket->slot - &slots_.front());
  telling->timings.prompt = telling->answer.prompt_tokens / model_.prompt_tokens_per_second;
  const auto tokens = telling->answer.tokens.size();
  telling->timings.generation = static_cast<double>(tokens > 0 ? tokens - 1 : 0) / placement_.tokens_per_second;
  ticket->slot->question = telling->question;
  ticket->slot->prompt_tokens = telling->answer.prompt_tokens;
  ticket->slot->generated = 0;
  llama_log('I', fmt::format("slot launch_slot_: id  {} | task {} | processing task, is_child = 0", telling->slot,
                             ticket->slot->task));

  if (telling->question.stream) {
    auto reply = llama_event_stream();
    reply.stream = [this, telling, ticket](ServerReply::Write write) {
      return tell(telling, ticket, std::move(write));
    };
    co_return reply;
  }
  const auto start = now();
  for (std::size_t token = 0; token < tokens; ++token) {
    auto waiting = pass(said_by(start, *telling, token), request.has_left);
    const bool still_there = co_await std::move(waiting);
    if (!still_there) {
      llama_log('W', fmt::format("srv          stop: cancel task, id_task = {}", ticket->slot->task));
      co_return ServerReply();
    }
    ++ticket->slot->generated;
  }
  count(*telling);
  co_return llama_reply(whole_answer(*telling));
}

/// One stream, from the role to the last line.
Task<void> LlamaSingle::tell(Shared telling, std::shared_ptr<Ticket> ticket, ServerReply::Write write) {
  const auto start = now();
  bool still_there = true;
  const auto tokens = telling->answer.tokens.size();
  for (std::size_t token = 0; still_there && token <= tokens; ++token) {
    std::vector<json::object> chunks;
    if (token == 0) chunks = stream_opening(*telling);
    if (token < tokens) {
      auto waiting = pass(said_by(start, *telling, token), nullptr);
      (void)co_await std::move(waiting);
      ++ticket->slot->generated;
      for (auto& chunk : stream_piece(*telling, token))
        chunks.push_back(std::move(chunk));
    } else {
      chunks = stream_ending(*telling);
    }
    std::string text;
    for (const auto& chunk : chunks)
      text += llama_event(chunk);
    if (token == tokens && telling->question.kind != Kind::native) text += "data: [DONE]\n\n";
    auto writing = write(std::move(text));
    still_there = co_await std::move(writing);
  }
  if (still_there)
    count(*telling);
  else
    llama_log('W', fmt::format("srv          stop: cancel task, id_task = {}", ticket->slot->task));
}

void LlamaSingle::count(const LlamaTelling& telling) {
  const auto generated = static_cast<int>(telling.answer.tokens.size());
  counters_.prompt_tokens += telling.answer.prompt_tokens;
  counters_.prompt_seconds += telling.timings.prompt;
  counters_.generated_tokens += generated;
  counters_.generation_seconds += telling.timings.generation;
  counters_.longest = std::max(counters_.longest, telling.answer.prompt_tokens + generated);
}

Task<ServerReply> LlamaSingle::embed(ServerRequest request, bool native) {
  if (!settings_.flag("embeddings")) co_return llama_not_supported("embeddings", "--embeddings");
  boost::system::error_code problem;
  const auto body = json::parse(request.body, problem);
  if (problem) co_return llama_bad_request(fmt::format("[json.exception.parse_error.101] {}", problem.message()));
  const auto texts = embedding_inputs(body);
  if (texts.empty()) co_return llama_bad_request("\"input\" or \"content\" must be provided");
  auto taking = take_slot(Pick::least_recent);
  const auto ticket = co_await std::move(taking);
  for (std::size_t text = 1; text < texts.size(); ++text)
    if (auto* slot = free_slot(Pick::least_recent)) mark(*slot);
  double tokens = 0;
  for (const auto& text : texts)
    tokens += tokens_in(text);
  const auto wanted = std::chrono::duration<double>(tokens / model_.prompt_tokens_per_second);
  auto waiting = pass(now() + scaled(std::chrono::duration_cast<Duration>(wanted)), request.has_left);
  (void)co_await std::move(waiting);
  const unsigned dimensions = model_.dimensions > 0 ? model_.dimensions : 64;
  if (native) co_return llama_reply(native_embedding_reply(body, dimensions));
  co_return llama_reply(embedding_reply(identity_, body, dimensions));
}

}  // namespace

int run_llama_single(const LlamaSettings& settings, bool is_child) {
  Loop loop;
  LlamaSingle server(loop, settings, is_child);
  loop.spawn(server.live());
  loop.run();
  return 1;
}

}  // namespace gpumod::sim
