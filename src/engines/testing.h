// Shorthands of this room's tests. Included by tests only.
#pragma once

#include <algorithm>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engines/engine.h"

namespace gpumod::testing_engines {

inline HttpReply reply(int status, std::string body, std::string type = "application/json") {
  HttpReply result;
  result.status = status;
  result.body = std::move(body);
  result.content_type = std::move(type);
  return result;
}

inline LaunchContext context(std::filesystem::path binary) {
  LaunchContext result;
  result.binary = std::move(binary);
  return result;
}

inline std::vector<LogLine> log_of(std::string_view text) {
  std::vector<LogLine> lines;
  while (!text.empty()) {
    const auto end = text.find('\n');
    LogLine line;
    line.text = std::string(text.substr(0, end));
    lines.push_back(std::move(line));
    text = end == std::string_view::npos ? std::string_view() : text.substr(end + 1);
  }
  return lines;
}

/// The argument after `flag`, "<none>" if the flag is not there.
inline std::string after(const std::vector<std::string>& argv, const std::string& flag) {
  const auto place = std::find(argv.begin(), argv.end(), flag);
  return place == argv.end() || place + 1 == argv.end() ? "<none>" : *(place + 1);
}

inline std::string variable(const UnitSpec& unit, const std::string& name) {
  const auto place = unit.environment.find(name);
  return place == unit.environment.end() ? "<unset>" : place->second.reveal();
}

inline Service vllm_service() {
  Service service;
  service.id = "chat";
  service.name = "Chat";
  service.engine = EngineKind::vllm;
  service.port = 7071;
  service.model.id = "Qwen/Qwen3-8B";
  service.options = VllmOptions{};
  return service;
}

inline Service llama_service() {
  Service service;
  service.id = "bge";
  service.engine = EngineKind::llamacpp;
  service.port = 8080;
  service.model.path = "/models/qwen-8b.gguf";
  service.options = LlamaOptions{};
  return service;
}

/// A model of the router "big", which serves /models.
inline Service router_service(const std::string& id) {
  Service service;
  service.id = id;
  service.engine = EngineKind::llamacpp;
  service.router = "big";
  service.port = 7070;
  service.sleep = SleepAbility::router;
  service.model.served_name = id;
  LlamaOptions options;
  options.models_dir = "/models";
  service.options = options;
  return service;
}

inline LlamaOptions& llama_of(Service& service) {
  return std::get<LlamaOptions>(service.options);
}
inline VllmOptions& vllm_of(Service& service) {
  return std::get<VllmOptions>(service.options);
}

}  // namespace gpumod::testing_engines
