// For tests: a simulated vLLM on a broker's GPUs, started as gpumod would start it and judged by gpumod's own engine.
#pragma once

#include <arpa/inet.h>
#include <boost/json/parse.hpp>
#include <gmock/gmock.h>
#include <netinet/in.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include "engines/engine.h"
#include "host/http_client.h"
#include "sim/broker_testing.h"

namespace gpumod::sim::testing {

inline std::uint16_t free_port() {
  const Fd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  EXPECT_EQ(::bind(fd.get(), reinterpret_cast<sockaddr*>(&address), length), 0);
  EXPECT_EQ(::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&address), &length), 0);
  return ntohs(address.sin_port);
}

class Vllm {
 public:
  /// `options` are simulated ones; it runs fifty times faster than life.
  Vllm(const std::filesystem::path& program, const Service& service, const std::string& options,
       const std::vector<std::string>& environment = {})
      : process_(arguments(program, service), variables(program, service, options, environment)) {}

  pid_t pid() const { return process_.pid(); }
  void kill(int signal) const { ::kill(pid(), signal); }
  /// Reads on until a line holds `words`; false when it closed its log first.
  bool says(std::string_view words) {
    for (;;) {
      const auto line = process_.read_line();
      if (line.empty()) return false;
      log_.push_back({});
      log_.back().text = line;
      if (line.find(words) != std::string::npos) return true;
    }
  }
  /// Its exit status, or the negative signal; both processes' last words are in the log then.
  int end() {
    while (says("\n")) {
    }
    return status();
  }
  int status() const {
    siginfo_t info{};
    EXPECT_EQ(::waitid(P_PID, static_cast<id_t>(pid()), &info, WEXITED | WNOWAIT), 0);
    return info.si_code == CLD_EXITED ? info.si_status : -info.si_status;
  }
  FailureCause cause() const { return engine_for(EngineKind::vllm).classify(log_); }
  std::string log() const {
    std::string text;
    for (const auto& line : log_)
      text += line.text + "\n";
    return text;
  }

 private:
  static UnitSpec unit(const std::filesystem::path& program, const Service& service) {
    LaunchContext context;
    context.binary = program;
    auto unit = engine_for(EngineKind::vllm).launch(service, context);
    if (unit) return std::move(*unit);
    ADD_FAILURE() << unit.error().message;
    return {};
  }
  static std::vector<std::string> arguments(const std::filesystem::path& program, const Service& service) {
    return unit(program, service).argv;
  }
  static std::vector<std::string> variables(const std::filesystem::path& program, const Service& service,
                                            const std::string& options, std::vector<std::string> more) {
    for (const auto& [name, value] : unit(program, service).environment)
      more.push_back(name + "=" + value.reveal());
    more.push_back("GPUMOD_SIM_OPTIONS=" + options);
    more.emplace_back("GPUMOD_SIM_SPEED=50");
    return more;
  }

  ChildProcess process_;
  std::vector<LogLine> log_;
};

/// A broker with its two cards (24 and 8 GiB, 512 MiB of each kept back) and a service on the first.
class VllmTest : public ::testing::Test {
 protected:
  VllmTest() {
    // Engines that outlive their server come to us, so that none outlives the test.
    ::prctl(PR_SET_CHILD_SUBREAPER, 1);
    std::filesystem::create_symlink(GPUMOD_SIM, program_);
    service_.id = "chat";
    service_.engine = EngineKind::vllm;
    service_.port = free_port();
    service_.model.id = "Qwen/Qwen3-8B";
    service_.options = gpumod::VllmOptions{};
    service_.probe.timeout = 20s;
  }
  ~VllmTest() override {
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
  gpumod::VllmOptions& options() { return std::get<gpumod::VllmOptions>(service_.options); }

  Vllm start(const std::string& simulated = "", const std::vector<std::string>& environment = {}) {
    return Vllm(program_, service_, simulated, environment);
  }

  Result<HttpReply> send(HttpRequest request) { return loop_.run_until_done(client_->request(std::move(request))); }
  Result<HttpReply> ask(const std::string& method, const std::string& target, const std::string& body = "",
                        Duration timeout = 20s) {
    HttpRequest request;
    request.port = service_.port;
    request.method = method;
    request.target = target;
    request.body = body;
    request.timeout = timeout;
    return send(std::move(request));
  }
  int status_of(const std::string& method, const std::string& target, const std::string& body = "") {
    const auto reply = ask(method, target, body);
    return reply ? reply->status : 0;
  }
  Result<HttpReply> chat(Duration timeout = 20s) {
    return ask("POST", "/v1/chat/completions", R"({"messages":[{"role":"user","content":"hi"}]})", timeout);
  }
  ProbeVerdict probe() {
    auto request = engine_.probe_request(service_);
    const auto reply = send(*request);
    if (reply) return engine_.judge_probe(service_, *reply);
    ProbeVerdict verdict;
    verdict.reason = reply.error().message;
    return verdict;
  }
  bool all_succeed(const std::vector<HttpRequest>& requests) {
    for (const auto& request : requests) {
      const auto reply = send(request);
      if (!reply || reply->status != 200) return false;
    }
    return !requests.empty();
  }

  struct Holding {
    pid_t pid = 0;
    std::string command;
    Bytes bytes;
  };
  /// Who holds what, as the broker knows it.
  std::vector<Holding> holders(std::size_t gpu = 0) const {
    std::vector<Holding> all;
    const auto state = boost::json::parse(broker_.ask("state"));
    for (const auto& entry : state.at("gpus").at(gpu).at("holders").as_array())
      all.push_back({static_cast<pid_t>(entry.at("pid").to_number<int>()), std::string(entry.at("command").as_string()),
                     Bytes(entry.at("bytes").to_number<std::int64_t>())});
    return all;
  }
  /// The engine's memory; 0 when there is none.
  Bytes held(std::size_t gpu = 0) const {
    for (const auto& holding : holders(gpu))
      if (holding.command == "VLLM::EngineCor") return holding.bytes;
    return {};
  }
  pid_t engine_pid() const {
    for (const auto& holding : holders())
      if (holding.command == "VLLM::EngineCor") return holding.pid;
    return 0;
  }

  const Engine& engine_ = engine_for(EngineKind::vllm);
  TestFolder directory_;
  std::filesystem::path program_ = directory_.path() / "vllm";
  BrokerProcess broker_{directory_.path() / "gpu"};
  Service service_;
  Loop loop_;
  std::unique_ptr<HttpClient> client_ = make_http_client(loop_);
};

}  // namespace gpumod::sim::testing
