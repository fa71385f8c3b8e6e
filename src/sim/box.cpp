#include "sim/box.h"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdlib>

#include <boost/json.hpp>
#include <fcntl.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <poll.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/paths.h"
#include "base/text.h"
#include "base/time.h"
#include "sim/protocol.h"

extern char** environ;

namespace gpumod::sim {

namespace fs = std::filesystem;

namespace {

constexpr Duration program_patience = 10s;

/// A card that many people have, and its driver.
constexpr const char* gpu_description = "NVIDIA GeForce RTX 4090=24564MiB";
constexpr std::string_view empty_gguf("GGUF\3\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 24);
constexpr const char* driver_version = "580.65.06";

/// A port of the loopback that nobody uses now.
Result<std::uint16_t> free_port() {
  const Fd probe(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  auto* generic = reinterpret_cast<sockaddr*>(&address);
  if (!probe || ::bind(probe.get(), generic, size) != 0 || ::getsockname(probe.get(), generic, &size) != 0)
    return fail(system_error("find a free port", errno, ErrorCode::environment));
  return ntohs(address.sin_port);
}

Result<pid_t> spawn(const fs::path& program, std::vector<std::string> words, int standard_output) {
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  ::posix_spawn_file_actions_adddup2(&actions, standard_output, 1);
  posix_spawnattr_t attributes;
  ::posix_spawnattr_init(&attributes);
  ::posix_spawnattr_setpgroup(&attributes, 0);  // Ctrl-C is ours to handle, not theirs
  ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP);
  words.insert(words.begin(), program.string());
  std::vector<char*> argv;
  argv.reserve(words.size() + 1);
  for (auto& word : words)
    argv.push_back(word.data());
  argv.push_back(nullptr);
  pid_t pid = -1;
  const int problem = ::posix_spawn(&pid, program.c_str(), &actions, &attributes, argv.data(), environ);
  ::posix_spawn_file_actions_destroy(&actions);
  ::posix_spawnattr_destroy(&attributes);
  if (problem != 0)
    return fail(system_error(fmt::format("start {}", program.string()), problem, ErrorCode::environment));
  return pid;
}

void end_and_reap(pid_t pid) {
  if (pid <= 0) return;
  ::kill(pid, SIGTERM);
  ::kill(pid, SIGCONT);
  while (::waitpid(pid, nullptr, 0) < 0 && errno == EINTR) {
  }
}

}  // namespace

Result<Box> Box::build(const BoxOptions& options) {
  Box box;
  box.speed_ = options.speed;
  box.keep_ = options.keep;
  TRY(box.find_programs());
  std::error_code problem;
  const auto temporary = fs::temp_directory_path(problem);
  if (problem || !temporary.is_absolute())
    return fail(ErrorCode::environment, "there is no directory for temporary files that the demo could use",
                "TMPDIR names one: correct or unset that variable.");
  // mkdtemp(3) replaces the six X.
  auto pattern = (temporary / "gpumod-demo-XXXXXX").string();
  if (!::mkdtemp(pattern.data()))
    return fail(system_error(fmt::format("create {}", pattern), errno, ErrorCode::environment));
  box.directory_ = pattern;
  TRY(box.write_files(options));
  TRY(box.start_broker());
  return box;
}

Box::Box(Box&& other) noexcept
    : directory_(std::exchange(other.directory_, {})),
      program_(std::move(other.program_)),
      library_(std::move(other.library_)),
      speed_(other.speed_),
      keep_(other.keep_),
      broker_(std::exchange(other.broker_, -1)),
      desktops_(std::exchange(other.desktops_, {})) {}

Box::~Box() {
  for (const auto pid : std::exchange(desktops_, {}))
    end_and_reap(pid);
  end_and_reap(broker_);
  std::error_code ignored;
  if (!directory_.empty() && !keep_) fs::remove_all(directory_, ignored);
}

/// In a build tree the library is beside the programs' folder; installed, both have folders of their own.
Result<void> Box::find_programs() {
  const auto own = TRY(own_executable());
  const auto bin = own.parent_path();
  std::error_code ignored;
  const auto first = [&](std::initializer_list<fs::path> candidates) {
    for (const auto& candidate : candidates)
      if (fs::exists(candidate, ignored)) return candidate;
    return fs::path();
  };
  program_ = first({bin / "gpumod-sim", bin / "../libexec/gpumod/gpumod-sim"});
  library_ = first({bin / "../lib/libgpumod-sim-nvml.so", bin / "../lib/gpumod/libgpumod-sim-nvml.so"});
  if (program_.empty() || library_.empty())
    return fail(ErrorCode::environment,
                fmt::format("the demo's simulated GPU ({}) is not beside {}",
                            program_.empty() ? "gpumod-sim" : "libgpumod-sim-nvml.so", own.string()),
                "Run it from the build folder (./dev demo), or install gpumod with `cmake --install`.");
  program_ = fs::weakly_canonical(program_, ignored);
  library_ = fs::weakly_canonical(library_, ignored);
  return {};
}

Result<void> Box::write_files(const BoxOptions& options) const {
  const auto config = directory_ / "config", models = directory_ / "models", bin = directory_ / "bin";
  for (const auto& folder : {config / "services", config / "modes", models / "vllm-embedding", bin})
    TRY(make_directories(folder));
  for (const char* engine : {"vllm", "llama-server"})
    if (::symlink(program_.c_str(), (bin / engine).c_str()) != 0)
      return fail(system_error((bin / engine).string(), errno, ErrorCode::environment));
  const auto router_port = TRY(free_port());
  auto embedding_port = TRY(free_port());
  while (embedding_port == router_port)
    embedding_port = TRY(free_port());

  const auto environment =
      fmt::format("{{{}: {}, GPUMOD_SIM_SPEED: \"{}\"}}", socket_variable, (directory_ / "gpu.sock").string(), speed_);
  std::map<fs::path, std::string> files;
  files[config / "gpumod.yaml"] = fmt::format(
      "unit_manager: local\n"
      "engines:\n"
      "  vllm:\n    binary: {0}/vllm\n    env: {1}\n"
      "  llamacpp:\n    binary: {0}/llama-server\n    env: {1}\n",
      bin.string(), environment);

  // What the two models take on such a card; they share a router, and so a port.
  const auto router_service = [&](const char* model, int mib) {
    return fmt::format(
        "engine: llamacpp\nrouter: llama\nport: {}\nmodels_dir: {}\nmodel: {}\nvram: {} MiB\n"
        "context_size: 32768\ngpu_layers: 99\nprobe: {{kind: chat, timeout: 5s}}\nstop_timeout: 3s\n",
        router_port, models.string(), model, mib);
  };
  files[config / "services/qwen3-coder.yaml"] = router_service(coder_model, 22514);
  files[config / "services/nemotron-3-nano.yaml"] = router_service(nemotron_model, 22054);
  files[config / "services/vllm-embedding.yaml"] = fmt::format(
      "engine: vllm\nport: {}\nmodel: {{path: {}, served_name: Qwen3-VL-Embedding-2B}}\nrunner: pooling\n"
      "gpu_memory_utilization: 0.22\nmax_model_len: 8192\nsleep: l1\nstartup_timeout: 180s\nstop_timeout: 3s\n"
      "probe: {{kind: embedding, dimensions: 2048}}\n"
      "env: {{GPUMOD_SIM_OPTIONS: \"{}\"}}\n",
      embedding_port, (models / "vllm-embedding").string(),
      "weights=3800MiB;load=12s;profile=6s;graphs=4s;dims=2048;" + options.vllm_options);
  files[config / "modes/blank.yaml"] = "services: []\n";
  files[config / "modes/code.yaml"] = "services: [qwen3-coder]\n";
  files[config / "modes/rag.yaml"] = "services: [vllm-embedding]\n";
  files[config / "modes/nemotron.yaml"] = "services: [nemotron-3-nano]\n";

  const auto model = [&](const std::string& name, const std::string& usual) {
    // The head of a GGUF file of version 3 without tensors: the stand-in reads no more of it.
    files[models / (name + ".gguf")] = std::string(empty_gguf);
    const auto more = options.model_options.find(name);
    files[models / (name + ".sim")] =
        fmt::format("{}{}\n", usual, more == options.model_options.end() ? "" : more->second);
  };
  model(coder_model,
        "weights=17699MiB\nkv-per-1k=136MiB\ncompute=463MiB\nload=4s\ntokens-per-second=171\n"
        "answer=Hi there! How can I help you today?\n");
  model(nemotron_model,
        "weights=20400MiB\nkv-per-1k=38MiB\ncompute=438MiB\nload=5s\ntokens-per-second=133\n"
        "think=The user greets me. A greeting in return is enough.\nanswer=Hello!\n");
  files[models / "vllm-embedding/config.json"] = "{\"architectures\": [\"Qwen3VLForConditionalGeneration\"]}\n";
  for (const auto& [file, content] : files)
    TRY(write_file_atomically(file, content));
  return {};
}

/// Starts one of gpumod-sim's programs and waits until it says that it is ready.
Result<pid_t> Box::start_program(std::vector<std::string> words) const {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return fail(system_error("create a pipe", errno, ErrorCode::environment));
  const Fd listening(ends[0]);
  Fd theirs(ends[1]);
  const auto what = words.front();
  const auto pid = TRY(spawn(program_, std::move(words), theirs.get()));
  theirs.reset();
  const TimePoint deadline = now() + program_patience;
  std::string said;
  while (said.find('\n') == std::string::npos) {
    pollfd waiting{listening.get(), POLLIN, 0};
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - now()).count();
    const int ready = left > 0 ? ::poll(&waiting, 1, static_cast<int>(left)) : 0;
    if (ready < 0 && errno == EINTR) continue;
    char buffer[256];
    const ssize_t n = ready > 0 ? ::read(listening.get(), buffer, sizeof buffer) : 0;
    if (n <= 0) {
      end_and_reap(pid);
      return fail(ErrorCode::environment, fmt::format("the simulated GPU's {} did not start", what));
    }
    said.append(buffer, static_cast<std::size_t>(n));
  }
  return pid;
}

Result<void> Box::start_broker() {
  ::setenv("GPUMOD_SIM_SPEED", fmt::format("{}", speed_).c_str(), 1);
  broker_ = TRY(start_program({"broker", "--socket", (directory_ / "gpu.sock").string(), "--gpu", gpu_description,
                               "--reserved", "15MiB", "--driver-version", driver_version, "--with-parent"}));
  return {};
}

void Box::enter() const {
  const auto set = [](const char* name, const fs::path& value) { ::setenv(name, value.c_str(), 1); };
  set("GPUMOD_CONFIG_DIR", directory_ / "config");
  set("GPUMOD_STATE_DIR", directory_ / "state");
  set("GPUMOD_CACHE_DIR", directory_ / "cache");
  set("GPUMOD_RUNTIME_DIR", directory_ / "run");
  set("GPUMOD_UNIT_MANAGER", "local");
  set("GPUMOD_NVML_LIBRARY", library_);
  set(socket_variable, directory_ / "gpu.sock");
}

Result<std::string> Box::ask(const std::string& line) const {
  const Fd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const auto path = (directory_ / "gpu.sock").string();
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  if (!socket || ::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
    return fail(system_error("reach the simulated GPU", errno, ErrorCode::environment));
  const auto words = line + "\n";
  if (::send(socket.get(), words.data(), words.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(words.size()))
    return fail(system_error("ask the simulated GPU", errno, ErrorCode::environment));
  std::string answer;
  char buffer[4096];
  while (answer.find('\n') == std::string::npos) {
    const ssize_t n = ::recv(socket.get(), buffer, sizeof buffer, 0);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return fail(ErrorCode::environment, "the simulated GPU has gone");
    answer.append(buffer, static_cast<std::size_t>(n));
  }
  answer.resize(answer.find('\n'));
  return answer;
}

Result<boost::json::object> Box::gpu() const {
  const auto answer = TRY(ask("state"));
  std::error_code malformed;
  auto state = boost::json::parse(answer, malformed);
  if (malformed || !state.is_object()) return fail(ErrorCode::environment, "the simulated GPU's state is no JSON");
  return std::move(state.get_object());
}

Result<void> Box::tell(const std::string& line) const {
  const auto answer = TRY(ask(line));
  if (answer != "ok" && !answer.starts_with("ok "))
    return fail(ErrorCode::environment, fmt::format("the simulated GPU does not take '{}': {}", line, answer));
  return {};
}

Result<pid_t> Box::start_desktop(const std::vector<std::string>& words) {
  std::vector<std::string> all{"desktop"};
  all.insert(all.end(), words.begin(), words.end());
  const auto pid = TRY(start_program(std::move(all)));
  desktops_.push_back(pid);
  return pid;
}

void Box::end_desktop(pid_t pid) {
  std::erase(desktops_, pid);
  end_and_reap(pid);
}

}  // namespace gpumod::sim
