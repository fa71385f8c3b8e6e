// For tests: a simulated llama-server on a broker's GPUs, with models that are nothing but their .sim files.
#pragma once

#include <fstream>

#include <arpa/inet.h>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <gmock/gmock.h>
#include <sys/prctl.h>

#include "host/http_client.h"
#include "sim/broker_testing.h"
#include "sim/llama_child.h"

namespace gpumod::sim::testing {

/// A program whose two outputs go to one file. Killed and reaped with the object, and its children with it.
class LlamaProcess {
 public:
  LlamaProcess(std::vector<std::string> argv, std::vector<std::string> variables, std::filesystem::path log)
      : log_(std::move(log)) {
    posix_spawn_file_actions_t actions;
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    ::posix_spawn_file_actions_addopen(&actions, 1, log_.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
    ::posix_spawn_file_actions_adddup2(&actions, 1, 2);
    for (char** entry = environ; *entry; ++entry)
      variables.emplace_back(*entry);
    const auto arguments = pointers(argv);
    const auto environment = pointers(variables);
    EXPECT_EQ(::posix_spawn(&pid_, argv[0].c_str(), &actions, nullptr, arguments.data(), environment.data()), 0);
    ::posix_spawn_file_actions_destroy(&actions);
  }
  LlamaProcess(const LlamaProcess&) = delete;
  LlamaProcess& operator=(const LlamaProcess&) = delete;
  ~LlamaProcess() {
    kill(SIGKILL);
    (void)end();
  }

  pid_t pid() const { return pid_; }
  void kill(int signal) const {
    if (!ended_) ::kill(pid_, signal);
  }
  bool runs() const {
    const auto info = process_info(pid_);
    return !ended_ && info && info->alive();
  }
  /// Waits for it: its exit status, or the negative signal.
  int end() {
    if (!std::exchange(ended_, true)) ::waitpid(pid_, &status_, 0);
    return WIFEXITED(status_) ? WEXITSTATUS(status_) : -WTERMSIG(status_);
  }
  std::string log() const {
    std::ifstream file(log_);
    return {std::istreambuf_iterator<char>(file), {}};
  }

 private:
  static std::vector<char*> pointers(std::vector<std::string>& words) {
    std::vector<char*> list;
    for (auto& word : words)
      list.push_back(word.data());
    list.push_back(nullptr);
    return list;
  }
  std::filesystem::path log_;
  pid_t pid_ = -1;
  int status_ = 0;
  bool ended_ = false;
};

/// Models below a directory of its own, and the broker's larger card (24 GiB, 512 MiB of it kept back).
class LlamaTest : public ::testing::Test {
 protected:
  LlamaTest() {
    // Children that outlive their router come to us, so that none outlives the test.
    ::prctl(PR_SET_CHILD_SUBREAPER, 1);
    std::filesystem::create_directory(models_);
    std::filesystem::create_symlink(GPUMOD_SIM, program_);
  }
  ~LlamaTest() override {
    server_.reset();
    EXPECT_TRUE(until([&] {
      std::size_t left = 0;
      for (const pid_t pid : descendants_of(::getpid())) {
        if (pid == broker_.pid()) continue;
        ++left;
        ::kill(pid, SIGKILL);
        (void)::waitpid(pid, nullptr, WNOHANG);
      }
      return left == 0;
    }));
    ::prctl(PR_SET_CHILD_SUBREAPER, 0);
  }

  std::string model(const std::string& name, const std::string& options) {
    std::ofstream(models_ / (name + ".sim")) << options;
    const auto file = models_ / (name + ".gguf");
    std::ofstream(file) << "GGUF";
    return file.string();
  }
  /// Twenty times faster than life.
  void start(std::vector<std::string> words, std::vector<std::string> variables = {}) {
    const auto port = gpumod::sim::free_port();
    ASSERT_TRUE(port);
    port_ = *port;
    words.insert(words.begin(), program_.string());
    words.insert(words.end(), {"--port", fmt::format("{}", port_), "--offline"});
    variables.emplace_back("GPUMOD_SIM_SPEED=20");
    server_ = std::make_unique<LlamaProcess>(words, variables, directory_.path() / "log");
  }
  void start_router(std::vector<std::string> words = {}) {
    words.insert(words.begin(), {"--models-dir", models_.string(), "--no-models-autoload"});
    start(std::move(words));
    EXPECT_TRUE(until([&] { return status_of("GET", "/health") == 200; }));
  }
  bool becomes_ready() {
    return until([&] { return status_of("GET", "/health") == 200 || !server_->runs(); }) && server_->runs();
  }

  Result<HttpReply> ask(const std::string& method, const std::string& target, const std::string& body = "",
                        Duration timeout = 20s) {
    HttpRequest request;
    request.port = port_;
    request.method = method;
    request.target = target;
    request.body = body;
    request.timeout = timeout;
    return loop_.run_until_done(client_->request(std::move(request)));
  }
  int status_of(const std::string& method, const std::string& target, const std::string& body = "") {
    const auto reply = ask(method, target, body);
    return reply ? reply->status : 0;
  }
  boost::json::value answer(const std::string& method, const std::string& target, const std::string& body = "") {
    const auto reply = ask(method, target, body);
    EXPECT_TRUE(reply) << reply.error().message;
    return reply ? boost::json::parse(reply->body) : boost::json::value();
  }
  static std::string chat(const std::string& model = "") {
    return fmt::format(R"({{"model":"{}","messages":[{{"role":"user","content":"hi"}}],"max_tokens":4}})", model);
  }
  HttpRequest endless() const {
    HttpRequest request;
    request.port = port_;
    request.method = "POST";
    request.target = "/v1/chat/completions";
    request.body = R"({"messages":[{"role":"user","content":"hi"}]})";
    request.timeout = 60s;
    return request;
  }
  static std::string named(const std::string& model) { return fmt::format(R"({{"model":"{}"}})", model); }

  /// "loaded", "unloaded (failed, 1)"
  std::string state(const std::string& name) {
    const auto list = answer("GET", "/models");
    for (const auto& entry : list.at("data").as_array()) {
      if (entry.at("id").as_string() != name) continue;
      const auto& status = entry.at("status").as_object();
      std::string text(status.at("value").as_string());
      if (const auto* code = status.if_contains("exit_code"))
        text += fmt::format(" (failed, {})", boost::json::serialize(*code));
      return text;
    }
    return "unknown";
  }
  bool becomes(const std::string& name, const std::string& wanted) {
    return until([&] { return state(name) == wanted; });
  }
  bool load(const std::string& name) {
    return status_of("POST", "/models/load", named(name)) == 200 && becomes(name, "loaded");
  }
  pid_t child() const {
    const auto children = descendants_of(server_->pid());
    return children.empty() ? -1 : children.front();
  }

  /// What others than the broker's own hold of the first card.
  Bytes held() const {
    auto gpu = Gpu::open(0);
    const auto memory = gpu ? gpu->memory() : Result<Gpu::Memory>(fail(gpu.error()));
    EXPECT_TRUE(memory);
    return memory ? memory->total - memory->free : Bytes(-1);
  }
  bool becomes_held(Bytes amount) {
    return until([&] { return held() == amount; });
  }

  TestFolder directory_;
  std::filesystem::path models_ = directory_.path() / "models";
  std::filesystem::path program_ = directory_.path() / "llama-server";
  BrokerProcess broker_{directory_.path() / "gpu"};
  std::uint16_t port_ = 0;
  std::unique_ptr<LlamaProcess> server_;
  Loop loop_;
  std::unique_ptr<HttpClient> client_ = make_http_client(loop_);
};

}  // namespace gpumod::sim::testing
