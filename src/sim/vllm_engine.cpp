// The simulated vLLM's second process: EngineCore. It alone holds the video memory, and it goes on holding it when the
// API server is killed.
//
// Start-up, in the real one's order: CUDA context, comparison with free memory, weights in shards, profiling (nobody
// may give memory back meanwhile), KV cache up to the claim, CUDA graphs. A failure is logged with a traceback and ends
// the process with status 1; the API server learns of it by the closed link.
//
// Utilities (sleep, wake, RPC) are carried out by the loop that reads the link, one after the other and nothing else
// meanwhile, as the real engine's busy loop does; generations are tasks of their own that pause while it sleeps. A
// request to a sleeper waits until it wakes, as in newer vLLM; in older ones it killed the engine (fault dies-asleep).
#include <algorithm>
#include <csignal>
#include <ctime>

#include <boost/json/array.hpp>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "host/processes.h"
#include "sim/gpu.h"
#include "sim/programs.h"
#include "sim/vllm_answers.h"
#include "sim/vllm_link.h"
#include "sim/vllm_log.h"
#include "sim/vllm_memory.h"
#include "sim/vllm_process.h"

namespace gpumod::sim {

namespace json = boost::json;

namespace {

constexpr int link_descriptor = 3;  ///< where the API server puts our end
constexpr std::int64_t unlimited_gibberish = 64;

const std::vector<Frame> start_frames = {{"vllm/v1/engine/core.py", 946, "run_engine_core"},
                                         {"vllm/v1/engine/core.py", 691, "__init__"},
                                         {"vllm/v1/executor/uniproc_executor.py", 47, "_init_executor"}};

class EngineCore {
 public:
  EngineCore() : log_("EngineCore"), link_(loop_, Fd(link_descriptor)), awake_(loop_), never_(loop_) { awake_.set(); }

  [[noreturn]] void run() {
    loop_.spawn(watch_signals());
    loop_.spawn(live());
    loop_.run();
    ::_exit(0);
  }

 private:
  Task<void> watch_signals() {
    const Fd signals = ending_signals();
    for (;;) {
      const int number = co_await next_ending_signal(signals.get());
      const bool deaf = options_.has("ignore-sigterm") || options_.has("engine-survives");
      if (!deaf || number < 0) ::_exit(0);
    }
  }

  Task<void> live() {
    const auto first = co_await link_.receive();
    if (!first) ::_exit(0);
    configure(*first);
    if (options_.has("engine-survives")) ::setsid();
    loop_.spawn(start());
    for (;;) {
      auto message = co_await link_.receive();
      if (!message) break;
      auto handling = handle(std::move(*message));
      co_await std::move(handling);
    }
    // The API server is gone without having ended us: it was killed. The real engine does not always notice.
    if (options_.orphan > Duration::zero()) {
      co_await wait_for(scaled(options_.orphan));
      ::_exit(0);
    }
  }

  void configure(const json::object& message) {
    std::vector<std::string> arguments;
    for (const auto& word : message.at("arguments").as_array())
      arguments.emplace_back(word.as_string());
    auto parsed = parse_vllm(arguments);
    auto options = vllm_behaviour_for(std::get<VllmCommand>(parsed).model);
    if (!options) detail::die(options.error().message.c_str());
    command_ = std::move(std::get<VllmCommand>(parsed));
    options_ = std::move(*options);
  }

  // ---- start-up ----

  Task<void> start() {
    log_.info("core.py:97", fmt::format("Initializing a V1 LLM engine (v{}) with config: model='{}', "
                                        "tensor_parallel_size={}, enforce_eager={}, served_model_name={}",
                                        vllm_version, command_.model, command_.tensor_parallel_size,
                                        command_.enforce_eager ? "True" : "False", command_.served_name()));
    check(take_devices());
    co_await load_weights();
    if (options_.has("slow-compile")) co_await compile();
    co_await profile();
    check(allocate_cache());
    if (!command_.enforce_eager) {
      co_await wait_for(scaled(options_.graphs));
      log_.info("gpu_model_runner.py:4587",
                fmt::format("Graph capturing finished in {:.0f} secs, took 0.31 GiB", seconds(options_.graphs)));
    }
    log_.info("core.py:272", "init engine (profile, create kv cache, warmup model) finished");
    if (options_.crash_after) loop_.spawn(crash_later());
    weights_resident_ = weights_good_ = cache_resident_ = true;
    json::object ready;
    ready["ready"] = true;
    ready["max_model_len"] = cache_.max_model_len;
    link_.send(ready);
  }

  /// A failed start ends the process here: the exception, twice as the real one logs it, and status 1.
  void check(const Result<void>& step) {
    if (step) return;
    const auto exception = with_type(step.error());
    log_.failure("core.py:946", "EngineCore failed to start.", exception, start_frames);
    log_.plain("Process EngineCore:");
    log_.uncaught(exception, start_frames);
    ::_exit(1);
  }

  static std::string with_type(const Error& error) {
    if (error.message.starts_with("CUDA out of memory")) return "torch.OutOfMemoryError: " + error.message;
    const auto colon = error.message.find(": ");
    const bool typed = colon != std::string::npos && error.message.find(' ') > colon;
    return typed ? error.message : "RuntimeError: " + error.message;
  }

  Result<void> take_devices() {
    for (std::int64_t device = 0; device < command_.tensor_parallel_size; ++device) {
      auto gpu = TRY(Gpu::open(static_cast<int>(device)));
      TRY(gpu.allocate("context", options_.context));
      const auto memory = TRY(gpu.memory());
      if (!command_.kv_cache_memory)
        TRY(check_free_memory(device, memory.free, memory.total, command_.gpu_memory_utilization));
      free_at_start_.push_back(memory.free);
      gpus_.push_back(std::move(gpu));
    }
    return {};
  }

  Result<void> allocate_everywhere(std::string_view label, Bytes each) {
    for (auto& gpu : gpus_)
      TRY(gpu.allocate(label, each));
    return {};
  }
  Result<void> release_everywhere(std::string_view label) {
    for (auto& gpu : gpus_)
      TRY(gpu.release(label));
    return {};
  }

  Task<void> load_weights() {
    log_.info("gpu_model_runner.py:3885", fmt::format("Starting to load model {}...", command_.model));
    if (options_.has("model-error")) {
      co_await wait_for(scaled(options_.load / options_.shards));
      check(fail(ErrorCode::failed, "AttributeError: 'Qwen2Tokenizer' object has no attribute 'all_special_ids'"));
    }
    const auto slice = share(share(options_.weights, command_.tensor_parallel_size), options_.shards);
    for (int shard = 0; shard < options_.shards; ++shard) {
      log_.bare(fmt::format("Loading safetensors checkpoint shards: {:3}% Completed | {}/{}",
                            100 * shard / options_.shards, shard, options_.shards));
      co_await wait_for(scaled(options_.load / options_.shards));
      check(allocate_everywhere("weights", slice));
      if (options_.has("hang-load") && shard + 1 >= (options_.shards + 1) / 2) (void)co_await never_.wait();
    }
    log_.bare(fmt::format("Loading safetensors checkpoint shards: 100% Completed | {0}/{0}", options_.shards));
    log_.info("default_loader.py:293", fmt::format("Loading weights took {:.2f} seconds", seconds(options_.load)));
    log_.info("gpu_model_runner.py:3982",
              fmt::format("Model loading took {:.2f} GiB memory and {:.6f} seconds",
                          static_cast<double>(options_.weights.count()) / (1 << 30), seconds(options_.load)));
  }

  /// A compiler: a child that computes, while nothing is said and no memory grows.
  Task<void> compile() {
    const auto until = now() + scaled(options_.compile);
    const pid_t child = ::fork();
    if (child == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      ::prctl(PR_SET_NAME, "cicc");
      ::syscall(SYS_close_range, 3U, ~0U, 0U);
      while (now() < until) {
      }
      ::_exit(0);
    }
    const auto end = open_pidfd(child);
    if (!end) detail::die(end.error().message.c_str());
    const auto ended = co_await wait_process_end(*end, TimePoint::max());
    if (!ended) detail::die(ended.error().message.c_str());
    (void)::waitpid(child, nullptr, 0);
  }

  /// What the dummy run takes for its time stands under a label of its own, so that others can tell when it happens.
  Task<void> profile() {
    check(allocate_everywhere("profiling", Bytes::mib(64)));
    log_.info("backends.py:703", "Using cache directory: ~/.cache/vllm/torch_compile_cache for vLLM's torch.compile");
    co_await wait_for(scaled(options_.profile));
    for (std::size_t i = 0; i < gpus_.size(); ++i)
      check(check_profile(free_at_start_[i], free_of(gpus_[i])));
    for (auto& gpu : gpus_)
      check(gpu.release("profiling"));
    check(take_activations());
  }

  Result<void> take_activations() {
    TRY(allocate_everywhere("activations", share(options_.activations, command_.tensor_parallel_size)));
    activations_resident_ = true;
    return {};
  }

  Bytes free_of(Gpu& gpu) {
    const auto memory = gpu.memory();
    if (!memory) check(fail(memory.error()));
    return memory->free;
  }

  /// As many blocks on every GPU: the one with the least room decides.
  Result<void> allocate_cache() {
    std::optional<KvCache> least;
    for (auto& gpu : gpus_) {
      const auto memory = TRY(gpu.memory());
      const auto cache = TRY(plan_kv_cache(command_, options_, memory.total));
      if (!least || cache.tokens < least->tokens) least = cache;
    }
    cache_ = *least;
    log_.info("gpu_worker.py:358", fmt::format("Available KV cache memory: {:.2f} GiB",
                                               static_cast<double>(cache_.size.count()) / (1 << 30)));
    TRY(allocate_everywhere("kv", cache_.size));
    log_.info("kv_cache_utils.py:1305", fmt::format("GPU KV cache size: {} tokens", cache_.tokens));
    log_.info("kv_cache_utils.py:1310",
              fmt::format("Maximum concurrency for {} tokens per request: {:.2f}x", cache_.max_model_len,
                          static_cast<double>(cache_.tokens) / static_cast<double>(cache_.max_model_len)));
    return {};
  }

  // ---- while it runs ----

  Task<void> crash_later() {
    co_await wait_for(scaled(*options_.crash_after));
    crash("torch.AcceleratorError: CUDA error: unspecified launch failure");
  }

  [[noreturn]] void crash(std::string_view exception) {
    log_.failure("core.py:955", "EngineCore encountered a fatal error.", exception,
                 {{"vllm/v1/engine/core.py", 946, "run_engine_core"},
                  {"vllm/v1/engine/core.py", 973, "run_busy_loop"},
                  {"vllm/v1/worker/gpu_worker.py", 620, "execute_model"}});
    ::_exit(1);
  }

  bool asleep() const { return !awake_.is_set(); }

  Task<void> handle(json::object message) {
    const auto& op = message.at("op").as_string();
    const auto id = message.at("id").to_number<std::int64_t>();
    if (op == "generate" || op == "embed") {
      if (asleep() && options_.has("dies-asleep"))
        crash("torch.AcceleratorError: CUDA error: an illegal memory access was encountered");
      running_.insert(id);
      loop_.spawn(op == "embed" ? embed(id, std::move(message)) : generate(id, std::move(message)));
    } else if (op == "abort") {
      running_.erase(id);
    } else if (op == "is_sleeping") {
      reply(id, asleep());
    } else if (op == "sleep") {
      auto sleeping = sleep(message.at("level").to_number<std::int64_t>(), std::string(message.at("mode").as_string()));
      const auto done = co_await std::move(sleeping);
      reply(id, done);
    } else if (op == "wake_up") {
      std::set<std::string> tags;
      for (const auto& tag : message.at("tags").as_array())
        tags.emplace(tag.as_string());
      auto waking = wake(std::move(tags));
      const auto done = co_await std::move(waking);
      reply(id, done);
    } else if (op == "collective_rpc") {
      auto calling = call(std::string(message.at("method").as_string()));
      const auto done = co_await std::move(calling);
      reply(id, done);
    }
  }

  void reply(std::int64_t id, bool result) {
    json::object message;
    message["id"] = id;
    message["result"] = result;
    link_.send(message);
  }

  void reply(std::int64_t id, const Result<void>& done) {
    if (done) {
      reply(id, true);
      return;
    }
    const auto exception = with_type(done.error());
    log_.failure("core.py:1012", "Invocation of a utility method failed", exception,
                 {{"vllm/v1/engine/core.py", 1009, "_handle_client_request"},
                  {"vllm/device_allocator/cumem.py", 80, "create_and_map"}});
    json::object message;
    message["id"] = id;
    message["error"] = exception;
    link_.send(message);
  }

  void finish(std::int64_t id, const char* reason, std::int64_t prompt_tokens, std::int64_t generated) {
    json::object message;
    message["id"] = id;
    message["finish"] = reason;
    message["prompt_tokens"] = prompt_tokens;
    message["completion_tokens"] = generated;
    link_.send(message);
  }

  struct Piece {
    std::string text;
    bool reasoning = false;
  };

  /// What the model would say if nothing cut it short.
  std::vector<Piece> speech(std::string_view prompt) const {
    std::vector<Piece> pieces;
    const auto say = [&](std::string_view text, bool reasoning) {
      for (auto& token : tokens_of(text))
        pieces.push_back({std::move(token), reasoning});
    };
    if (!options_.think.empty()) {
      const bool parsed = !command_.reasoning_parser.empty();
      if (!parsed) pieces.push_back({"<think>\n", false});
      say(options_.think, parsed);
      if (!parsed) pieces.push_back({"\n</think>\n\n", false});
    }
    say(filled_answer(options_.answer, command_.served_name(), prompt), false);
    return pieces;
  }

  Task<void> generate(std::int64_t id, json::object message) {
    const std::string prompt(message.at("prompt").as_string());
    const auto prompt_tokens = static_cast<std::int64_t>(tokens_of(prompt).size());
    const auto limit = message.at("max_tokens").is_null()
                           ? std::max<std::int64_t>(cache_.max_model_len - prompt_tokens, 1)
                           : message.at("max_tokens").to_number<std::int64_t>();
    if (options_.has("wedged")) co_return;
    if (asleep()) (void)co_await awake_.wait();
    auto pieces = speech(prompt);
    // Weights that were dropped and not read again are zeros, and zeros choose the first token of every vocabulary.
    if (!weights_good_)
      pieces.assign(static_cast<std::size_t>(std::min(limit, unlimited_gibberish)), Piece{"!", false});

    const auto step =
        std::chrono::duration_cast<Duration>(std::chrono::duration<double>(1 / options_.tokens_per_second));
    auto next = now();
    std::int64_t generated = 0;
    for (auto& piece : pieces) {
      if (generated == limit) break;
      next += scaled(step);
      co_await wait_until(next);
      if (!running_.contains(id)) co_return;  // its client left, or sleep ended it
      json::object token;
      token["id"] = id;
      token["text"] = std::move(piece.text);
      token["reasoning"] = piece.reasoning;
      link_.send(token);
      ++generated;
    }
    const bool whole = weights_good_ && generated == static_cast<std::int64_t>(pieces.size());
    running_.erase(id);
    finish(id, whole ? "stop" : "length", prompt_tokens, generated);
  }

  Task<void> embed(std::int64_t id, json::object message) {
    if (options_.has("wedged")) co_return;
    if (asleep()) (void)co_await awake_.wait();
    json::array vectors;
    std::int64_t tokens = 0;
    for (const auto& input : message.at("inputs").as_array()) {
      const std::string_view text = input.as_string();
      tokens += static_cast<std::int64_t>(tokens_of(text).size());
      json::array vector;
      for (const double place : embedding_of(text, dimensions()))
        vector.push_back(weights_good_ ? place : 0.0);
      vectors.push_back(std::move(vector));
    }
    running_.erase(id);
    json::object answer;
    answer["id"] = id;
    answer["vectors"] = std::move(vectors);
    answer["prompt_tokens"] = tokens;
    link_.send(answer);
  }

  int dimensions() const { return options_.dimensions > 0 ? options_.dimensions : 1024; }

  // ---- sleep ----

  Task<Result<void>> sleep(std::int64_t level, std::string mode) {
    if (asleep()) {
      log_.warning("abstract.py:290", "Executor is already sleeping.");
      co_return Result<void>();
    }
    if (mode == "wait") {
      // Nothing signals the end of the last one: each ends by itself, and this is looked at as often as tokens come.
      while (!running_.empty())
        co_await wait_for(5ms);
    }
    awake_.reset();
    for (const auto id : running_)
      finish(id, "abort", 0, 0);
    running_.clear();
    if (level < 1) co_return Result<void>();
    co_await wait_for(scaled(level == 1 ? options_.sleep1 : options_.sleep2));
    // Without the flag there is no pool to give back from: it calls itself asleep, and holds everything.
    if (command_.enable_sleep_mode) {
      const auto given = give_back(level);
      if (!given) co_return given;
      if (level >= 2) weights_good_ = false;
      weights_resident_ = cache_resident_ = false;
    }
    log_.info("gpu_worker.py:144", "Sleep mode freed memory");
    co_return Result<void>();
  }

  Result<void> give_back(std::int64_t level) {
    const auto residual = level == 1 ? options_.residual1 : options_.residual2;
    TRY(release_everywhere("kv"));
    TRY(release_everywhere("activations"));
    TRY(release_everywhere("weights"));
    activations_resident_ = false;
    residual_ = std::max(residual - options_.context, Bytes(0));
    return allocate_everywhere("residual", residual_);
  }

  /// Nothing named: everything. Memory that is not there leaves it asleep as it was, but for what came before.
  Task<Result<void>> wake(std::set<std::string> tags) {
    if (!asleep()) {
      log_.warning("abstract.py:308", "Executor is not sleeping.");
      co_return Result<void>();
    }
    const bool all = tags.empty();
    const bool from_host = weights_good_;
    if (command_.enable_sleep_mode && (all || tags.contains("weights")) && !weights_resident_) {
      const auto taken = take_back("weights", share(options_.weights, command_.tensor_parallel_size));
      if (!taken) co_return taken;
      if (from_host) co_await wait_for(scaled(options_.wake1));
      weights_resident_ = true;
    }
    if (command_.enable_sleep_mode && (all || tags.contains("kv_cache")) && !cache_resident_) {
      const auto taken = take_back("kv", cache_.size);
      if (!taken) co_return taken;
      cache_resident_ = true;
    }
    const bool complete = (weights_resident_ && cache_resident_) || !command_.enable_sleep_mode;
    if (complete && !activations_resident_) {
      const auto working = take_activations();
      if (!working) co_return out_of_memory();
    }
    if (complete) awake_.set();
    co_return Result<void>();
  }

  static Result<void> out_of_memory() {
    return fail(ErrorCode::failed, "RuntimeError: CUDA Error: out of memory at /workspace/csrc/cumem_allocator.cpp:62");
  }

  /// All GPUs or none. What the sleeper kept beside its context becomes part of what it takes.
  Result<void> take_back(std::string_view label, Bytes each) {
    TRY(release_everywhere("residual"));
    if (allocate_everywhere(label, each)) {
      residual_ = Bytes(0);
      return {};
    }
    TRY(release_everywhere(label));
    TRY(allocate_everywhere("residual", residual_));
    return out_of_memory();
  }

  Task<Result<void>> call(std::string method) {
    if (method != "reload_weights")
      co_return fail(ErrorCode::failed, fmt::format("NotImplementedError: the worker has no method '{}'", method));
    if (!weights_resident_)
      co_return fail(ErrorCode::failed, "RuntimeError: CUDA error: an illegal memory access was encountered");
    co_await wait_for(scaled(options_.wake2));
    weights_good_ = true;
    co_return Result<void>();
  }

  Loop loop_;
  VllmLog log_;
  VllmLink link_;
  Signal awake_;
  Signal never_;
  VllmCommand command_;
  VllmBehaviour options_;
  std::vector<Gpu> gpus_;
  std::vector<Bytes> free_at_start_;  // of each, before the weights: what profiling compares with
  KvCache cache_;
  bool weights_resident_ = false;
  bool weights_good_ = false;
  bool cache_resident_ = false;
  bool activations_resident_ = false;
  Bytes residual_;
  std::set<std::int64_t> running_;
};

}  // namespace

int vllm_engine_main() {
  ::prctl(PR_SET_NAME, "VLLM::EngineCore");  // the kernel keeps fifteen characters of it
  block_ending_signals();
  EngineCore().run();
}

}  // namespace gpumod::sim
