// The llama.cpp engine against a real llama-server: what launch() writes really starts, and what the judges read is
// what the server really says. Answers are compared word for word, by models that can give no other
// (support/make_gguf.py).
//
// LLAMA_SERVER names the program (support/get-llama.sh), GPUMOD_TEST_MODELS a folder with
//   alpha.gguf   script "Hello from alpha."
//   thinker.gguf script "The answer is four." thinking "Let me see what two and two could be, one by one."
//   embed.gguf   embed --dim 48
//   bad.gguf     bad
#include <fstream>

#include <arpa/inet.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/folder_testing.h"
#include "base/paths.h"
#include "base/text.h"
#include "engines/engine.h"
#include "host/http_client.h"

namespace gpumod {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;

constexpr Duration patience = 60s;

std::uint16_t free_port() {
  const Fd probe(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  EXPECT_EQ(::bind(probe.get(), reinterpret_cast<sockaddr*>(&address), length), 0);
  EXPECT_EQ(::getsockname(probe.get(), reinterpret_cast<sockaddr*>(&address), &length), 0);
  return ntohs(address.sin_port);
}

/// A program in a group of its own, its output in a file; ended with its children when the object goes.
class Program {
 public:
  Program(const std::vector<std::string>& argv, const std::map<std::string, Secret>& environment,
          std::filesystem::path log)
      : log_(std::move(log)) {
    std::vector<std::string> variables;
    for (const auto& [name, value] : environment)
      variables.push_back(name + "=" + value.reveal());
    std::vector<char*> arguments, settings;
    for (const auto& word : argv)
      arguments.push_back(const_cast<char*>(word.c_str()));
    for (const auto& word : variables)
      settings.push_back(const_cast<char*>(word.c_str()));
    arguments.push_back(nullptr);
    settings.push_back(nullptr);
    const Fd output(::open(log_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
    pid_ = ::fork();
    if (pid_ == 0) {
      ::setpgid(0, 0);
      ::dup2(output.get(), 1);
      ::dup2(output.get(), 2);
      ::execve(arguments[0], arguments.data(), settings.data());
      ::_exit(127);
    }
  }
  ~Program() { stop(); }
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  bool alive() {
    if (pid_ > 0 && ::waitpid(pid_, &status_, WNOHANG) == pid_) pid_ = -1;
    return pid_ > 0;
  }
  /// The exit code, -1 if it lived too long or a signal ended it.
  int wait_for_exit() {
    const auto deadline = now() + patience;
    while (alive()) {
      if (now() > deadline) return -1;
      ::usleep(5'000);  // nothing signals a test that has no pidfd
    }
    return WIFEXITED(status_) ? WEXITSTATUS(status_) : -1;
  }
  void stop() {
    if (!alive()) return;
    ::kill(pid_, SIGTERM);
    if (wait_for_exit() == -1 && pid_ > 0) {
      ::kill(-pid_, SIGKILL);
      ::waitpid(pid_, &status_, 0);
      pid_ = -1;
    }
  }
  std::vector<LogLine> log() const {
    std::ifstream file(log_);
    std::vector<LogLine> lines;
    LogLine line;
    while (std::getline(file, line.text))
      lines.push_back(line);
    return lines;
  }

 private:
  std::filesystem::path log_;
  pid_t pid_ = -1;
  int status_ = 0;
};

class LlamaEngine : public ::testing::Test {
 protected:
  void SetUp() override {
    binary_ = environment_variable("LLAMA_SERVER");
    models_ = environment_variable("GPUMOD_TEST_MODELS");
    ASSERT_FALSE(binary_.empty() || models_.empty())
        << "LLAMA_SERVER and GPUMOD_TEST_MODELS name a real llama-server and its models: ctest sets them";
    ASSERT_EQ(::access(binary_.c_str(), X_OK), 0) << binary_;
    ASSERT_TRUE(std::filesystem::exists(models_ / "alpha.gguf")) << models_;
  }
  void TearDown() override { server_.reset(); }

  Service single(const std::string& file) const {
    Service service;
    service.id = "single";
    service.engine = EngineKind::llamacpp;
    service.port = free_port();
    service.model.path = models_ / file;
    LlamaOptions options;
    options.context_size = 256;
    options.gpu_layers = 0;
    service.options = options;
    return service;
  }

  Service member(const std::string& model, std::uint16_t port) const {
    auto service = single(model + ".gguf");
    service.id = model;
    service.router = "house";
    service.port = port;
    auto& options = std::get<LlamaOptions>(service.options);
    options.models_dir = models_;
    options.models_max = 2;
    return service;
  }

  UnitSpec launch(const Service& service, std::vector<const Service*> members = {}) {
    LaunchContext context;
    context.binary = binary_;
    context.router_members = members;
    if (!members.empty()) {
      const auto preset = router_preset(members);
      EXPECT_TRUE(preset) << preset.error().message;
      if (preset && *preset) {
        context.router_preset = folder_ / "preset.ini";
        EXPECT_TRUE(write_file_atomically(context.router_preset, **preset));
      }
    }
    auto unit = engine_.launch(service, context);
    EXPECT_TRUE(unit) << unit.error().message;
    EXPECT_THAT(unknown_flags(unit->argv, help()), IsEmpty());
    return unit.value_or(UnitSpec{});
  }

  void start(const UnitSpec& unit) {
    server_ = std::make_unique<Program>(unit.argv, unit.environment, folder_ / "log");
  }

  Result<HttpReply> ask(const std::optional<HttpRequest>& request) {
    if (!request) return fail(ErrorCode::failed, "there is nothing to ask");
    return loop_.run_until_done(client_->request(*request));
  }

  /// Asks until the judge is content. Readiness over HTTP has no signal to wait for.
  template <typename Judge>
  bool until(const std::optional<HttpRequest>& request, Judge judge) {
    const auto deadline = now() + patience;
    while (now() < deadline && server_->alive()) {
      const auto reply = ask(request);
      if (reply && judge(*reply)) return true;
      ::usleep(5'000);
    }
    return false;
  }
  bool until_ready(const Service& service) {
    return until(engine_.readiness_request(service), [&](const HttpReply& reply) {
      return engine_.judge_readiness(service, reply).state == ReadinessVerdict::State::ready;
    });
  }
  bool until_residency(const Service& service, Residency wanted) {
    return until(engine_.residency_request(service), [&](const HttpReply& reply) {
      const auto residency = engine_.judge_residency(service, reply);
      return residency && *residency == wanted;
    });
  }

  Result<void> identity(const Service& service) {
    const auto reply = ask(engine_.identity_request(service));
    return reply ? engine_.judge_identity(service, *reply) : Result<void>(fail(reply.error()));
  }
  ProbeVerdict probe(const Service& service) {
    const auto reply = ask(engine_.probe_request(service));
    if (reply) return engine_.judge_probe(service, *reply);
    ProbeVerdict verdict;
    verdict.reason = reply.error().message;
    return verdict;
  }
  Result<void> load(const Service& service) {
    const auto reply = ask(engine_.load_request(service));
    return reply ? engine_.judge_load(service, *reply) : Result<void>(fail(reply.error()));
  }
  Result<void> unload(const Service& service) {
    const auto reply = ask(engine_.unload_request(service));
    return reply ? engine_.judge_unload(service, *reply) : Result<void>(fail(reply.error()));
  }

  const std::string& help() {
    if (help_.empty()) {
      const auto arguments = engine_.help_arguments(Service{}).front();
      std::vector<std::string> argv{binary_.string()};
      argv.insert(argv.end(), arguments.begin(), arguments.end());
      Program program(argv, {}, folder_ / "help");
      EXPECT_EQ(program.wait_for_exit(), 0);
      for (const auto& line : program.log())
        help_ += line.text + "\n";
    }
    return help_;
  }

  const Engine& engine_ = engine_for(EngineKind::llamacpp);
  std::filesystem::path binary_;
  std::filesystem::path models_;
  const TestFolder folder_;
  std::string help_;
  Loop loop_;
  std::unique_ptr<HttpClient> client_ = make_http_client(loop_);
  std::unique_ptr<Program> server_;
};

TEST_F(LlamaEngine, OneChatModel) {
  auto service = single("alpha.gguf");
  service.probe.expect = "Hello from alpha.";
  start(launch(service));
  ASSERT_TRUE(until_ready(service));
  EXPECT_TRUE(until_residency(service, Residency::running));
  const auto right = identity(service);
  EXPECT_TRUE(right) << right.error().message;
  const auto verdict = probe(service);
  EXPECT_TRUE(verdict.ok) << verdict.reason;
  EXPECT_EQ(verdict.text, "Hello from alpha.");
  EXPECT_GT(verdict.generated_tokens.value_or(0), 0);
  EXPECT_TRUE(verdict.tokens_per_second);

  auto other = service;
  other.model.path = models_ / "thinker.gguf";
  EXPECT_THAT(identity(other).error().message, HasSubstr("alpha.gguf, not"));
  service.probe.kind = ProbeKind::embedding;
  EXPECT_FALSE(probe(service).ok);
}

TEST_F(LlamaEngine, ADeclaredNameIsServedAndHeldTo) {
  auto service = single("thinker.gguf");
  service.model.served_name = "glm";
  start(launch(service));
  ASSERT_TRUE(until_ready(service));
  EXPECT_TRUE(identity(service));
  const auto verdict = probe(service);
  EXPECT_TRUE(verdict.ok) << verdict.reason;
  // The probe's few tokens end inside the thought: no content, and yet an answer.
  EXPECT_TRUE(verdict.reasoning_only);
  EXPECT_THAT(verdict.text, StartsWith("Let me see what two and"));
  service.model.served_name = "nemotron";
  // Builds that echo the request's name cannot be caught this way; the identity catches them.
  const auto reply = ask(engine_.probe_request(service));
  ASSERT_TRUE(reply);
  const bool echoes = reply->body.find("nemotron") != std::string::npos;
  EXPECT_EQ(engine_.judge_probe(service, *reply).ok, echoes) << reply->body;
}

TEST_F(LlamaEngine, OneEmbeddingModel) {
  auto service = single("embed.gguf");
  std::get<LlamaOptions>(service.options).embeddings = true;
  service.probe.dimensions = 48;
  start(launch(service));
  ASSERT_TRUE(until_ready(service));
  EXPECT_TRUE(identity(service));
  const auto verdict = probe(service);
  EXPECT_TRUE(verdict.ok) << verdict.reason;
  EXPECT_EQ(verdict.dimensions, 48u);
  service.probe.dimensions = 64;
  EXPECT_FALSE(probe(service).ok);
}

TEST_F(LlamaEngine, ABrokenModelIsAMatterOfTheModel) {
  const auto service = single("bad.gguf");
  start(launch(service));
  EXPECT_EQ(server_->wait_for_exit(), 1);
  const auto cause = engine_.classify(server_->log());
  EXPECT_EQ(cause.kind, FailureCause::Class::model) << cause.line;
}

TEST_F(LlamaEngine, AMissingModelIsNamed) {
  const auto service = single("nowhere.gguf");
  start(launch(service));
  EXPECT_EQ(server_->wait_for_exit(), 1);
  const auto cause = engine_.classify(server_->log());
  EXPECT_EQ(cause.kind, FailureCause::Class::model) << cause.line;
  EXPECT_THAT(cause.cause, HasSubstr("nowhere.gguf"));
}

TEST_F(LlamaEngine, ABusyPortIsTransientAndNamed) {
  const auto service = single("alpha.gguf");
  start(launch(service));
  ASSERT_TRUE(until_ready(service));
  const auto first = std::exchange(server_, nullptr);
  start(launch(service));
  EXPECT_EQ(server_->wait_for_exit(), 1);
  const auto cause = engine_.classify(server_->log());
  EXPECT_EQ(cause.kind, FailureCause::Class::transient) << cause.line;
  EXPECT_EQ(cause.cause, fmt::format("port {} is already in use", service.port));
}

TEST_F(LlamaEngine, AnUnknownFlagIsFoundBeforeTheStartAndNamedAfterIt) {
  auto service = single("alpha.gguf");
  service.extra_args = {"--ubatch-sise", "8"};
  LaunchContext context;
  context.binary = binary_;
  const auto unit = engine_.launch(service, context);
  ASSERT_TRUE(unit);
  const auto unknown = unknown_flags(unit->argv, help());
  ASSERT_EQ(unknown.size(), 1u);
  EXPECT_EQ(unknown[0].flag, "--ubatch-sise");
  EXPECT_EQ(unknown[0].nearest, "--ubatch-size");
  start(*unit);
  EXPECT_EQ(server_->wait_for_exit(), 1);
  EXPECT_EQ(engine_.classify(server_->log()).kind, FailureCause::Class::configuration);
}

TEST_F(LlamaEngine, EveryOptionIsAFlagOfThisBuild) {
  auto service = single("alpha.gguf");
  auto& options = std::get<LlamaOptions>(service.options);
  options.threads = 1;
  options.n_cpu_moe = 1;
  options.flash_attention = "off";
  options.pooling = "mean";
  options.jinja = true;
  service.model.served_name = "x";
  launch(service);
  service.model.path.clear();
  service.model.id = "a/b";
  launch(service);
  auto router = member("alpha", 1);
  std::get<LlamaOptions>(router.options).models_preset = "/x.ini";
  launch(router);
}

TEST_F(LlamaEngine, ARouterOfTwoModels) {
  const auto port = free_port();
  auto alpha = member("alpha", port);
  auto thinker = member("thinker", port);
  alpha.probe.expect = "Hello from alpha.";
  const auto unit = launch(alpha, {&alpha, &thinker});
  EXPECT_THAT(unit.argv, Contains("--ctx-size"));
  start(unit);
  ASSERT_TRUE(until_ready(alpha));
  EXPECT_TRUE(until_residency(alpha, Residency::unloaded));
  EXPECT_FALSE(identity(alpha));
  EXPECT_THAT(probe(alpha).reason, HasSubstr("not loaded"));

  auto accepted = load(alpha);
  ASSERT_TRUE(accepted) << accepted.error().message;
  ASSERT_TRUE(until_residency(alpha, Residency::running));
  accepted = load(alpha);
  EXPECT_TRUE(accepted) << accepted.error().message;  // already running
  const auto right = identity(alpha);
  EXPECT_TRUE(right) << right.error().message;
  auto verdict = probe(alpha);
  EXPECT_TRUE(verdict.ok) << verdict.reason;
  EXPECT_EQ(verdict.text, "Hello from alpha.");
  EXPECT_TRUE(until_residency(thinker, Residency::unloaded));

  ASSERT_TRUE(unload(alpha));
  ASSERT_TRUE(until_residency(alpha, Residency::unloaded));
  EXPECT_TRUE(unload(alpha));  // not loaded
  ASSERT_TRUE(load(thinker));
  ASSERT_TRUE(until_residency(thinker, Residency::running));
  verdict = probe(thinker);
  EXPECT_TRUE(verdict.ok) << verdict.reason;
  // The probe's few tokens end inside the thought: no content, and yet an answer.
  EXPECT_TRUE(verdict.reasoning_only);
  EXPECT_THAT(verdict.text, StartsWith("Let me see what two and"));

  auto unknown = member("alhpa", port);
  EXPECT_EQ(load(unknown).error().code, ErrorCode::configuration);
  const auto reply = ask(engine_.residency_request(unknown));
  ASSERT_TRUE(reply);
  const auto residency = engine_.judge_residency(unknown, *reply);
  ASSERT_FALSE(residency);
  EXPECT_EQ(residency.error().code, ErrorCode::configuration);
  EXPECT_THAT(residency.error().hint, HasSubstr("'alpha'"));
}

TEST_F(LlamaEngine, ARoutersModelThatFailsSaysWithWhat) {
  const auto port = free_port();
  const auto bad = member("bad", port);
  start(launch(bad, {&bad}));
  ASSERT_TRUE(until_ready(bad));
  ASSERT_TRUE(load(bad));
  ASSERT_TRUE(until_residency(bad, Residency::failed));
  const auto reply = ask(engine_.residency_request(bad));
  ASSERT_TRUE(reply);
  EXPECT_THAT(engine_.failure_reason(bad, *reply), HasSubstr("exit code 1"));
  EXPECT_EQ(engine_.classify(server_->log()).kind, FailureCause::Class::model);
}

TEST_F(LlamaEngine, ARouterGivesEachModelItsOwnSettings) {
  const auto port = free_port();
  auto alpha = member("alpha", port);
  auto embed = member("embed", port);
  std::get<LlamaOptions>(embed.options).context_size = 128;
  std::get<LlamaOptions>(embed.options).embeddings = true;
  embed.probe.dimensions = 48;
  // A model that lies outside the router's folder is reached through the preset alone.
  std::filesystem::copy_file(models_ / "thinker.gguf", folder_ / "guest.gguf");
  auto guest = member("guest", port);
  guest.model.path = folder_ / "guest.gguf";
  const auto unit = launch(alpha, {&alpha, &embed, &guest});
  EXPECT_THAT(unit.argv, Contains("--models-preset"));
  start(unit);
  ASSERT_TRUE(until_ready(alpha));
  for (const auto* service : {&alpha, &embed}) {
    ASSERT_TRUE(load(*service));
    ASSERT_TRUE(until_residency(*service, Residency::running));
    const auto right = identity(*service);
    EXPECT_TRUE(right) << right.error().message;
    const auto verdict = probe(*service);
    EXPECT_TRUE(verdict.ok) << service->id << ": " << verdict.reason;
  }
  ASSERT_TRUE(unload(embed));
  ASSERT_TRUE(until_residency(embed, Residency::unloaded));
  ASSERT_TRUE(load(guest));
  ASSERT_TRUE(until_residency(guest, Residency::running));
  EXPECT_TRUE(identity(guest));
  EXPECT_TRUE(probe(guest).ok);
}

}  // namespace
}  // namespace gpumod
