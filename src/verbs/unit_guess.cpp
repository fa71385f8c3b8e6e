#include "verbs/unit_guess.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <filesystem>

#include "verbs/unit_text.h"

namespace gpumod {

namespace {

struct Server {
  std::string_view program;  ///< name of the file, or the Python module's first part
  EngineKind engine;
  std::uint16_t port;
};
constexpr std::array<Server, 5> servers{{{"llama-server", EngineKind::llamacpp, 8080},
                                         {"vllm", EngineKind::vllm, 8000},
                                         {"uvicorn", EngineKind::fastapi, 8000},
                                         {"ollama", EngineKind::command, 11434},
                                         {"text-embeddings-router", EngineKind::command, 3000}}};

/// "/opt/x/bin/vllm" and "vllm.entrypoints.openai.api_server" are both vllm.
const Server* server_of(const std::string& word) {
  const auto name = std::filesystem::path(word).filename().string();
  for (const auto& server : servers)
    if (name == server.program ||
        (name.starts_with(server.program) && name[server.program.size()] == '.' && word == name))
      return &server;
  return nullptr;
}

/// The value after any of these options, or joined to one by '='.
std::string option_of(const std::vector<std::string>& words, std::initializer_list<std::string_view> names) {
  for (std::size_t i = 0; i < words.size(); ++i)
    for (const auto name : names) {
      if (words[i] == name && i + 1 < words.size()) return words[i + 1];
      if (words[i].starts_with(name) && words[i].size() > name.size() && words[i][name.size()] == '=')
        return words[i].substr(name.size() + 1);
    }
  return {};
}

bool has_flag(const std::vector<std::string>& words, std::initializer_list<std::string_view> names) {
  return std::any_of(words.begin(), words.end(), [&](const std::string& word) {
    return std::find(names.begin(), names.end(), word) != names.end();
  });
}

template <typename Number>
std::optional<Number> number_of(const std::string& text) {
  Number value{};
  const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || problem != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

/// A variable is not known here.
std::string if_plain(std::string value) {
  return value.find('$') == std::string::npos ? value : std::string();
}

std::string address_of(const std::string& host) {
  const bool everywhere = host.empty() || host == "0.0.0.0" || host == "::" || host == "[::]" || host == "*";
  return everywhere ? std::string() : if_plain(host);
}

void read_llama(const std::vector<std::string>& words, UnitGuess& guess) {
  guess.model = if_plain(option_of(words, {"-m", "--model"}));
  if (guess.model.empty()) guess.model = if_plain(option_of(words, {"-hf", "-hfr", "--hf-repo"}));
  guess.served_name = if_plain(option_of(words, {"-a", "--alias"}));
  guess.embedding = has_flag(words, {"--embedding", "--embeddings"});
  guess.router = guess.model.empty();
}

void read_vllm(const std::vector<std::string>& words, UnitGuess& guess) {
  guess.model = if_plain(option_of(words, {"--model"}));
  const auto serve = std::find(words.begin(), words.end(), "serve");
  if (guess.model.empty() && serve != words.end() && std::next(serve) != words.end() &&
      !std::next(serve)->starts_with('-'))
    guess.model = if_plain(*std::next(serve));
  guess.served_name = if_plain(option_of(words, {"--served-model-name"}));
  guess.utilization = number_of<double>(option_of(words, {"--gpu-memory-utilization"}));
  if (guess.utilization && (*guess.utilization <= 0 || *guess.utilization > 1)) guess.utilization.reset();
  guess.embedding = option_of(words, {"--runner"}) == "pooling" || option_of(words, {"--task"}).starts_with("embed");
}

}  // namespace

std::optional<UnitGuess> guess_server(const std::vector<std::string>& words) {
  // `sh -c "exec vllm serve …"`: the words are inside one.
  std::vector<std::string> flat;
  for (std::size_t i = 0; i < words.size(); ++i) {
    const bool script = i >= 2 && words[i - 1].starts_with('-') && words[i - 1].ends_with('c') &&
                        words[i].find(' ') != std::string::npos;
    if (!script) {
      flat.push_back(words[i]);
      continue;
    }
    for (auto& word : command_words(words[i], {}))
      flat.push_back(std::move(word));
  }

  const Server* server = nullptr;
  std::size_t at = 0;
  for (; at < flat.size() && !server; ++at)
    server = server_of(flat[at]);
  if (!server) return std::nullopt;
  const std::vector<std::string> arguments(flat.begin() + static_cast<long>(at), flat.end());

  UnitGuess guess;
  guess.engine = server->engine;
  guess.server = server->program;
  guess.usual_port = server->port;
  guess.port = number_of<std::uint16_t>(option_of(arguments, {"--port", "-p"}));
  if (guess.port == 0) guess.port.reset();
  guess.host = address_of(option_of(arguments, {"--host", "--hostname"}));
  if (guess.host.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.:_-") !=
      std::string::npos)
    guess.host.clear();
  if (guess.engine == EngineKind::llamacpp) read_llama(arguments, guess);
  if (guess.engine == EngineKind::vllm) read_vllm(arguments, guess);
  return guess;
}

}  // namespace gpumod
