#include "sim/llama_gate.h"

#include <algorithm>

#include "base/fd.h"
#include "base/text.h"
#include "sim/llama_log.h"

namespace gpumod::sim {

namespace {

void add_keys(std::vector<std::string>& keys, std::string_view list, char separator) {
  while (!list.empty()) {
    const auto entry = list.substr(0, list.find(separator));
    list.remove_prefix(std::min(list.size(), entry.size() + 1));
    const auto key = trim(entry);
    if (!key.empty() && !key.starts_with('#')) keys.emplace_back(key);
  }
}

std::string key_of(const ServerRequest& request) {
  for (const auto* name : {"authorization", "x-api-key"}) {
    const auto found = request.headers.find(name);
    if (found == request.headers.end()) continue;
    std::string_view value = found->second;
    constexpr std::string_view scheme = "Bearer ";
    if (value.starts_with(scheme)) value.remove_prefix(scheme.size());
    return std::string(value);
  }
  return {};
}

}  // namespace

Result<std::vector<std::string>> llama_keys(const LlamaSettings& settings) {
  std::vector<std::string> keys;
  add_keys(keys, settings.text("api-key"), ',');
  if (const auto file = settings.text("api-key-file"); !file.empty())
    add_keys(keys, TRY(read_file(file, 1 << 20)), '\n');
  return keys;
}

bool is_health(const ServerRequest& request) {
  return request.path == "/health" || request.path == "/v1/health";
}

std::string llama_method(const ServerRequest& request) {
  return request.method == "HEAD" ? "GET" : request.method;
}

std::optional<ServerReply> llama_gate(const std::vector<std::string>& keys, const ServerRequest& request) {
  if (request.method == "OPTIONS") {
    ServerReply reply;
    reply.content_type = "text/html";
    reply.headers = {{"Access-Control-Allow-Credentials", "true"},
                     {"Access-Control-Allow-Methods", "GET, POST, DELETE, OPTIONS"},
                     {"Access-Control-Allow-Headers", "*"}};
    return reply;
  }
  if (keys.empty() || is_health(request) || request.path == "/") return std::nullopt;
  if (std::find(keys.begin(), keys.end(), key_of(request)) != keys.end()) return std::nullopt;
  llama_log('W', "srv    operator(): unauthorized: Invalid API Key");
  return llama_error(401, "Invalid API Key", "authentication_error");
}

ServerReply with_llama_headers(ServerReply reply) {
  reply.headers["Server"] = "llama.cpp";
  reply.headers["Access-Control-Allow-Origin"] = "";
  return reply;
}

void log_beginning(const LlamaSettings& settings) {
  llama_log('I', "srv  llama_server: initializing ...");
  llama_log('I', fmt::format("cmn  common_param: common_params_print_info: verbosity = {} (adjust with the `-lv N` "
                             "CLI arg)",
                             settings.number("log-verbosity").value_or(3)));
}

void log_security(const LlamaSettings& settings) {
  if (settings.has("api-key") || settings.has("api-key-file")) return;
  llama_log('W', "srv  llama_server: security: no API key is set and CORS allows all origins");
}

}  // namespace gpumod::sim
