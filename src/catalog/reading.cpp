#include "catalog/reading.h"

#include <fmt/format.h>

#include "base/text.h"
#include "catalog/env_file.h"

namespace gpumod {

void Reading::report(Severity severity, const YamlNode& at, std::string message, std::string hint) {
  if (severity == Severity::error) failed_ = true;
  if (reported_ > problems_per_file) return;
  if (reported_++ == problems_per_file) {
    problems_.push_back({severity, where(at), "there are more problems in this file", "Mend the ones above first."});
    return;
  }
  problems_.push_back({severity, where(at), std::move(message), std::move(hint)});
}

void Reading::error(const YamlNode& at, std::string message, std::string hint) {
  report(Severity::error, at, std::move(message), std::move(hint));
}

void Reading::warning(const YamlNode& at, std::string message, std::string hint) {
  report(Severity::warning, at, std::move(message), std::move(hint));
}

std::vector<std::string> Reading::known_names() const {
  std::vector<std::string> names;
  for (const auto& [name, value] : environment_)
    names.push_back(name);
  for (const auto& [name, value] : around_.variables)
    names.push_back(name);
  for (const char* name : {"HOME", "USER", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME"})
    names.push_back(name);
  return names;
}

std::optional<std::string> Reading::value_of(const YamlNode& at, const std::string& name, Expansion how) {
  if (how.keep_endpoint && (name == "PORT" || name == "HOST")) return fmt::format("${{{}}}", name);
  if (const auto found = environment_.find(name); found != environment_.end()) {
    if (how.visible)
      warning(at,
              fmt::format(
                  "the value of ${} from env_file becomes an argument, which everybody on this machine can read", name),
              "Let the server read it from its environment; or, if it is no secret, move it to `variables:` in "
              "gpumod.yaml.");
    return found->second;
  }
  if (const auto found = around_.variables.find(name); found != around_.variables.end()) return found->second;
  if (around_.machine)
    if (auto value = around_.machine(name)) return value;
  if (name == "PORT" && port_ != 0) return fmt::format("{}", port_);
  if (name == "HOST" && !host_.empty()) return host_;
  const auto near = nearest_names(name, known_names(), 1);
  error(at, fmt::format("the variable ${} is not defined", name),
        near.empty()
            ? fmt::format("Define {} under `variables:` in gpumod.yaml or in an env_file; $$ is a plain dollar.", name)
            : fmt::format(
                  "Did you mean ${}? Names come from `variables:` in gpumod.yaml, an env_file, HOME, USER and XDG_*.",
                  near.front()));
  return std::nullopt;
}

std::optional<std::string> Reading::expand(const YamlNode& at, std::string_view text, Expansion how) {
  std::string result;
  if (how.home && !text.empty() && text.front() == '~') {
    if (text.size() > 1 && text[1] != '/') {
      error(at, "only ~/ is understood, not the home directory of somebody else", "Write the whole path.");
      return std::nullopt;
    }
    auto home = value_of(at, "HOME", {});
    if (!home) return std::nullopt;
    result = std::move(*home);
    text.remove_prefix(1);
  }
  const auto is_name_character = [](char c) { return is_variable_name(std::string("_") + c); };
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '$' || i + 1 == text.size()) {
      result += text[i];
      continue;
    }
    std::string name;
    if (text[i + 1] == '$') {
      result += '$';
      ++i;
      continue;
    }
    if (text[i + 1] == '{') {
      const auto end = text.find('}', i);
      name = std::string(text.substr(i + 2, end == std::string_view::npos ? 0 : end - i - 2));
      if (!is_variable_name(name)) {
        error(at, "what begins with ${ is not of the form ${NAME}", "Write $$ for a plain dollar.");
        return std::nullopt;
      }
      i = end;
    } else {
      std::size_t end = i + 1;
      while (end < text.size() && is_name_character(text[end]))
        ++end;
      name = std::string(text.substr(i + 1, end - i - 1));
      if (!is_variable_name(name)) {
        result += '$';
        continue;
      }
      i = end - 1;
    }
    auto value = value_of(at, name, how);
    if (!value) return std::nullopt;
    result += *value;
    if (result.size() > yaml_file_limit) {
      error(at, "the text grows beyond all bounds when its variables are filled in");
      return std::nullopt;
    }
  }
  return result;
}

std::filesystem::path Reading::absolute(const std::string& path) const {
  const std::filesystem::path given(path);
  return given.is_absolute() ? given : (around_.config / given).lexically_normal();
}

}  // namespace gpumod
