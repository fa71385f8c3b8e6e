// What every engine's launch() and requests share: building an argument list, composing the environment, and where to
// reach a server.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "engines/engine.h"

namespace gpumod {

/// An argument list that grows only by what people set.
class Arguments {
 public:
  explicit Arguments(const std::filesystem::path& program) { list_.push_back(program.string()); }

  Arguments& add(std::string word) {
    list_.push_back(std::move(word));
    return *this;
  }
  Arguments& flag(const char* name, bool wanted) {
    if (wanted) add(name);
    return *this;
  }
  Arguments& option(const char* name, const std::string& value) {
    if (!value.empty()) add(name).add(value);
    return *this;
  }
  template <typename Number>
  Arguments& option(const char* name, const std::optional<Number>& value) {
    if (value) add(name).add(fmt::format("{}", *value));
    return *this;
  }
  Arguments& append(const std::vector<std::string>& words) {
    list_.insert(list_.end(), words.begin(), words.end());
    return *this;
  }
  std::vector<std::string> take() { return std::move(list_); }

 private:
  std::vector<std::string> list_;
};

using Environment = std::map<std::string, Secret>;

/// Starting must never turn into a download of forty gigabytes; preflight says what is missing. People may override it.
Environment offline_by_default();

/// The address to bind: loopback, unless the service says another.
std::string bind_host(const Service& service);

/// Everything of a unit but its argv and what only one engine sets: name, tag, environment, times.
/// `defaults` are the engine's own variables, which people's override; `required` override people's.
UnitSpec unit_of(const Service& service, const LaunchContext& context, const Environment& defaults,
                 const Environment& required);

/// The virtual environment whose bin/ holds the binary: "/home/u/vllm/.venv" of ".../.venv/bin/vllm". Empty for the
/// system's own directories, which are no environment.
std::filesystem::path virtual_environment_of(const std::filesystem::path& binary);
/// Puts the virtual environment's bin/ first on PATH and names it, unless people set these themselves.
void enter_virtual_environment(UnitSpec& unit, const LaunchContext& context);

/// Errors: configuration, when the port is 0.
Result<void> require_port(const Service& service);
/// Errors: configuration, when the binary is not an absolute path.
Result<void> require_binary(const Service& service, const LaunchContext& context);

/// Where to connect: the address it binds, or loopback when it binds all of them.
std::string connect_host(const Service& service);
/// The key that this server asks of everybody, as its arguments or its environment set it; "" where they do not. A secret.
std::string api_key_of(const Service& service);
/// What went wrong where an answer is no success; of a server that asks for a key, what to do.
Error unanswered(const Service& service, std::string_view path, const HttpReply& reply);
/// Requests carry the server's key.
HttpRequest get_request(const Service& service, std::string target, Duration timeout);
HttpRequest post_request(const Service& service, std::string target, std::string body, Duration timeout);

/// How long one small question may take before it counts as unanswered; readiness asks again.
constexpr Duration question_timeout = 5s;

/// The answers of an engine that has nothing to sleep, load or say about its model; each engine overrides what it has.
class PlainEngine : public Engine {
 public:
  std::optional<HttpRequest> readiness_request(const Service& service) const override;
  ReadinessVerdict judge_readiness(const Service& service, const HttpReply& reply) const override;
  std::optional<HttpRequest> residency_request(const Service&) const override { return std::nullopt; }
  Result<Residency> judge_residency(const Service&, const HttpReply&) const override { return Residency::running; }
  std::string failure_reason(const Service&, const HttpReply&) const override { return {}; }
  std::optional<HttpRequest> load_request(const Service&) const override { return std::nullopt; }
  std::optional<HttpRequest> unload_request(const Service&) const override { return std::nullopt; }
  Result<void> judge_load(const Service& service, const HttpReply& reply) const override;
  Result<void> judge_unload(const Service& service, const HttpReply& reply) const override;
  std::vector<HttpRequest> sleep_requests(const Service&, Residency) const override { return {}; }
  std::vector<HttpRequest> wake_requests(const Service&, Residency) const override { return {}; }
  std::optional<HttpRequest> identity_request(const Service&) const override { return std::nullopt; }
  Result<void> judge_identity(const Service&, const HttpReply&) const override { return {}; }
  std::vector<std::vector<std::string>> help_arguments(const Service&) const override { return {{"--help"}}; }
  IdleNames idle_names() const override { return {}; }
};

const Engine& vllm_engine();
const Engine& llamacpp_engine();
const Engine& fastapi_engine();
const Engine& command_engine();

}  // namespace gpumod
