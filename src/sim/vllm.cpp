// The simulated vLLM: `vllm serve MODEL …`, the API server. It checks its command line, takes its port, starts the
// engine as a process of its own (this very program under another name, vllm_engine.cpp), listens when that is up, and
// takes it along when it ends.
//
// Two processes, because that is where vLLM's nastiest behaviour comes from: a killed API server leaves an engine that
// holds the GPU, and a dead engine leaves a server that listens.
#include <csignal>
#include <cstdio>

#include <arpa/inet.h>
#include <boost/json/array.hpp>
#include <netinet/in.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/paths.h"
#include "host/processes.h"
#include "sim/gpu.h"
#include "sim/programs.h"
#include "sim/vllm_api.h"
#include "sim/vllm_process.h"

namespace gpumod::sim {

namespace json = boost::json;

namespace {

constexpr int link_descriptor = 3;
constexpr Duration patience_with_engine = 5s;  ///< how long it may take to end, and a dead one to be noticed: simulated

const std::vector<Frame> server_frames = {{"vllm/entrypoints/cli/serve.py", 111, "cmd"},
                                          {"vllm/entrypoints/openai/api_server.py", 919, "run_server"}};

/// Binds the port and does not listen yet: vLLM holds it while it loads, so that nobody else takes it.
Result<Fd> hold_port(const std::string& host, std::uint16_t port) {
  const bool six = host.find(':') != std::string::npos;
  Fd fd(::socket(six ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const int on = 1;
  ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  int bound = -1;
  if (six) {
    sockaddr_in6 address{};
    address.sin6_family = AF_INET6;
    address.sin6_port = htons(port);
    ::inet_pton(AF_INET6, host.c_str(), &address.sin6_addr);
    bound = ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address);
  } else {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    if (host == "localhost")
      address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    else if (!host.empty())
      ::inet_pton(AF_INET, host.c_str(), &address.sin_addr);
    bound = ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address);
  }
  if (bound != 0) return fail(ErrorCode::failed, fmt::format("OSError: [Errno {}] {}", errno, std::strerror(errno)));
  return fd;
}

/// What the real one refuses before it starts an engine. The message is the exception.
Result<void> check_configuration(const VllmCommand& command, const VllmBehaviour& options) {
  if (command.model.starts_with("/") && !std::filesystem::exists(command.model))
    return fail(ErrorCode::failed,
                fmt::format("ValueError: Invalid repository ID or local directory specified: '{}'", command.model));
  if (!(command.gpu_memory_utilization > 0) || command.gpu_memory_utilization > 1)
    return fail(ErrorCode::failed,
                fmt::format("pydantic_core._pydantic_core.ValidationError: 1 validation error for CacheConfig\n"
                            "gpu_memory_utilization\n  Input should be greater than 0 and at most 1, not {}",
                            command.gpu_memory_utilization));
  if (command.max_model_len && *command.max_model_len > options.max_len)
    return fail(ErrorCode::failed,
                fmt::format("pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig\n  Value "
                            "error, User-specified max_model_len ({}) is greater than the derived max_model_len "
                            "(max_position_embeddings={} or model_max_length=None in model's config.json).",
                            *command.max_model_len, options.max_len));
  std::int64_t devices = 0;
  while (devices < command.tensor_parallel_size && Gpu::open(static_cast<int>(devices)))
    ++devices;
  if (devices == 0)
    return fail(ErrorCode::failed,
                "RuntimeError: Failed to infer device type, please set the environment variable "
                "`VLLM_LOGGING_LEVEL=DEBUG` to turn on verbose logging.");
  if (devices < command.tensor_parallel_size)
    return fail(ErrorCode::failed,
                fmt::format("pydantic_core._pydantic_core.ValidationError: 1 validation error for ParallelConfig\n  "
                            "Value error, World size ({}) is larger than the number of available GPUs ({}) in this "
                            "node.",
                            command.tensor_parallel_size, devices));
  return {};
}

struct EngineProcess {
  pid_t pid = -1;
  Fd pidfd;
  Fd link;
};

Result<EngineProcess> start_engine() {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) != 0)
    return fail(system_error("make a socketpair", errno));
  EngineProcess engine;
  engine.link = Fd(ends[0]);
  const Fd theirs(ends[1]);

  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_adddup2(&actions, theirs.get(), link_descriptor);
  std::string name = "VLLM::EngineCore";
  char* argv[] = {name.data(), nullptr};
  const int problem = ::posix_spawn(&engine.pid, "/proc/self/exe", &actions, nullptr, argv, environ);
  ::posix_spawn_file_actions_destroy(&actions);
  if (problem != 0) return fail(system_error("start the engine", problem));
  engine.pidfd = TRY(open_pidfd(engine.pid));
  return engine;
}

class ApiServer {
 public:
  ApiServer(std::vector<std::string> arguments, VllmCommand command, VllmBehaviour options)
      : arguments_(std::move(arguments)),
        command_(std::move(command)),
        options_(std::move(options)),
        log_("APIServer"),
        server_over_(loop_) {}

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
      if (number >= 0 && options_.has("ignore-sigterm")) continue;
      ending_ = true;
      const bool was_up = server_ != nullptr && client_->ready();
      if (server_) server_->stop_listening();
      co_await end_engine();
      if (was_up)
        say_goodbye();
      else
        log_.uncaught("KeyboardInterrupt: terminated", server_frames);
      ::_exit(was_up ? 0 : 130);
    }
  }

  void say_goodbye() const {
    for (const char* text : {"Shutting down", "Waiting for application shutdown.", "Application shutdown complete."})
      log_.plain(fmt::format("INFO:     {}", text));
  }

  [[noreturn]] void give_up(const Error& error) const {
    log_.uncaught(error.message, server_frames);
    ::_exit(1);
  }

  Task<void> live() {
    log_.info("utils.py:325", fmt::format("version {}, model {}", vllm_version, command_.model));
    co_await wait_for(scaled(options_.boot));
    auto held = hold_port(command_.host, command_.port);
    if (!held) give_up(held.error());
    if (const auto fine = check_configuration(command_, options_); !fine) give_up(fine.error());
    auto engine = start_engine();
    if (!engine) give_up(engine.error());
    engine_ = std::move(*engine);
    link_ = std::make_unique<VllmLink>(loop_, std::move(engine_.link));
    client_ = std::make_unique<EngineClient>(loop_, *link_);
    api_ = std::make_unique<VllmApi>(command_, options_, *client_, log_, [this] { server_over_.set(); });
    configure_engine();
    if (options_.has("health-lies")) listen(*held);

    for (;;) {
      auto message = co_await link_->receive();
      if (!message) break;
      if (!message->contains("ready")) {
        client_->deliver(std::move(*message));
        continue;
      }
      client_->set_ready(message->at("max_model_len").to_number<std::int64_t>());
      if (!server_) listen(*held);
    }
    if (ending_) co_return;  // we ended it ourselves
    engine_is_dead();
    if (environment_variable("VLLM_KEEP_ALIVE_ON_ENGINE_DEATH") == "1") co_return;
    // Its watchdog looks every few seconds; a request that finds the engine dead ends it at once.
    const auto deadline = now() + scaled(patience_with_engine);
    (void)co_await server_over_.wait(deadline);
    // The reply to that request is still to be sent.
    co_await wait_for(100ms);
    say_goodbye();
    ::_exit(0);
  }

  void configure_engine() {
    json::array words;
    for (const auto& word : arguments_)
      words.push_back(json::value(word));
    json::object message;
    message["arguments"] = std::move(words);
    link_->send(message);
  }

  void listen(Fd& held) {
    held.reset();
    const auto host = command_.host.empty() ? std::string("0.0.0.0") : command_.host;
    auto server = HttpServer::listen(loop_, host, command_.port,
                                     [this](ServerRequest request) { return api_->handle(std::move(request)); });
    if (!server) {
      log_.error("launcher.py:44", fmt::format("OSError: {}", server.error().message));
      if (engine_.pid > 0) ::kill(engine_.pid, SIGKILL);
      ::_exit(1);
    }
    server_ = std::move(*server);
    log_.info("api_server.py:946", fmt::format("Starting vLLM server on http://{}:{}", host, command_.port));
    log_.plain("INFO:     Application startup complete.");
  }

  void engine_is_dead() {
    (void)::waitpid(engine_.pid, nullptr, WNOHANG);
    if (!client_->ready())
      give_up({ErrorCode::failed,
               "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}"});
    client_->set_dead();
    log_.failure("async_llm.py:708", "AsyncLLM output_handler failed.",
                 "vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue. See stack trace (above) "
                 "for the root cause.",
                 {{"vllm/v1/engine/async_llm.py", 660, "output_handler"}});
  }

  Task<void> end_engine() {
    if (engine_.pid < 0) co_return;
    ::kill(engine_.pid, SIGTERM);
    const auto deadline = now() + scaled(patience_with_engine);
    const auto ended = co_await wait_process_end(engine_.pidfd, deadline);
    const bool gone = ended && *ended;
    if (!gone && !options_.has("engine-survives")) ::kill(engine_.pid, SIGKILL);
  }

  std::vector<std::string> arguments_;
  VllmCommand command_;
  VllmBehaviour options_;
  Loop loop_;
  VllmLog log_;
  Signal server_over_;
  bool ending_ = false;
  EngineProcess engine_;
  std::unique_ptr<VllmLink> link_;
  std::unique_ptr<EngineClient> client_;
  std::unique_ptr<VllmApi> api_;
  std::unique_ptr<HttpServer> server_;
};

}  // namespace

int vllm_main(const Arguments& arguments) {
  auto parsed = parse_vllm(arguments);
  if (const auto* last_words = std::get_if<VllmLastWords>(&parsed)) {
    std::fputs(last_words->text.c_str(), last_words->exit_code == 0 ? stdout : stderr);
    return last_words->exit_code;
  }
  auto& command = std::get<VllmCommand>(parsed);
  auto options = vllm_behaviour_for(command.model);
  if (!options) {
    std::fprintf(stderr, "vllm (simulated): %s\n", options.error().message.c_str());
    if (!options.error().hint.empty()) std::fprintf(stderr, "%s\n", options.error().hint.c_str());
    return 2;
  }
  block_ending_signals();
  ApiServer(arguments, std::move(command), std::move(*options)).run();
}

}  // namespace gpumod::sim
