#include "engines/hub.h"

#include <algorithm>

#include <fmt/format.h>

#include "base/text.h"

namespace gpumod {

bool is_hub_id(std::string_view id) {
  if (id.empty() || id.size() > 96 || std::count(id.begin(), id.end(), '/') > 1) return false;
  if (id.find("--") != std::string_view::npos || id.find("..") != std::string_view::npos) return false;
  const auto is_word = [](std::string_view part) {
    const auto letter = [](char c) {
      return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    };
    const auto allowed = [&](char c) { return letter(c) || c == '-' || c == '_' || c == '.'; };
    return !part.empty() && part.front() != '-' && part.front() != '.' && part.back() != '-' && part.back() != '.' &&
           std::all_of(part.begin(), part.end(), allowed);
  };
  const auto slash = id.find('/');
  if (slash == std::string_view::npos) return is_word(id);
  return is_word(id.substr(0, slash)) && is_word(id.substr(slash + 1));
}

std::filesystem::path hub_model_dir(std::string_view id, const std::filesystem::path& hub_root) {
  if (!is_hub_id(id)) return {};
  std::string folder = "models--";
  for (const char c : id)
    c == '/' ? folder += "--" : folder += c;
  return hub_root / folder;
}

std::filesystem::path hub_snapshot_dir(std::string_view id, const std::filesystem::path& hub_root) {
  const auto model = hub_model_dir(id, hub_root);
  return model.empty() ? model : model / "snapshots";
}

std::filesystem::path hub_root_from(std::string_view hf_hub_cache, std::string_view hf_home,
                                    std::string_view xdg_cache_home, const std::filesystem::path& home) {
  if (!hf_hub_cache.empty()) return hf_hub_cache;
  if (!hf_home.empty()) return std::filesystem::path(hf_home) / "hub";
  if (!xdg_cache_home.empty()) return std::filesystem::path(xdg_cache_home) / "huggingface" / "hub";
  return home / ".cache" / "huggingface" / "hub";
}

bool is_hub_offline(std::string_view value) {
  const auto word = lower(value);
  return word == "1" || word == "true" || word == "yes" || word == "on";
}

std::string download_command(std::string_view id, const std::vector<std::string>& words) {
  std::string command = fmt::format("hf download {}", id);
  for (const auto& word : words)
    command += " " + shell_word(word);
  return command;
}

}  // namespace gpumod
