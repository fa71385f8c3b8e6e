#include "sim/vllm_answers.h"

#include <cctype>
#include <cmath>
#include <cstdint>

namespace gpumod::sim {

namespace {

bool is_blank(char c) {
  return std::isspace(static_cast<unsigned char>(c)) != 0;
}

/// FNV-1a: the same on every machine, unlike std::hash.
std::uint64_t hash_of(std::string_view word) {
  std::uint64_t hash = 0xcbf29ce484222325;
  for (const char c : word) {
    hash ^= static_cast<unsigned char>(std::tolower(static_cast<unsigned char>(c)));
    hash *= 0x100000001b3;
  }
  return hash;
}

/// SplitMix64: from one hash as many numbers as a vector has places.
double next_number(std::uint64_t& state) {
  state += 0x9e3779b97f4a7c15;
  std::uint64_t mixed = state;
  mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9;
  mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111eb;
  mixed ^= mixed >> 31;
  return static_cast<double>(mixed >> 11) / 4503599627370496.0 - 1.0;  // from -1 to 1
}

void replace_all(std::string& text, std::string_view what, std::string_view with) {
  for (auto place = text.find(what); place != std::string::npos; place = text.find(what, place + with.size()))
    text.replace(place, what.size(), with);
}

}  // namespace

std::vector<std::string> tokens_of(std::string_view text) {
  std::vector<std::string> tokens;
  std::size_t start = 0;
  for (std::size_t i = 1; i <= text.size(); ++i) {
    const bool ends = i == text.size() || (is_blank(text[i]) && !is_blank(text[i - 1]));
    if (!ends) continue;
    tokens.emplace_back(text.substr(start, i - start));
    start = i;
  }
  return tokens;
}

std::string filled_answer(std::string_view pattern, std::string_view model, std::string_view prompt) {
  std::string text(pattern);
  replace_all(text, "{model}", model);
  replace_all(text, "{prompt}", prompt);
  return text;
}

std::vector<double> embedding_of(std::string_view text, int dimensions) {
  std::vector<double> vector(static_cast<std::size_t>(dimensions), 0.0);
  const auto add = [&](std::string_view word) {
    auto state = hash_of(word);
    for (auto& place : vector)
      place += next_number(state);
  };
  add("");  // so that no text has the zero vector
  for (std::size_t i = 0; i < text.size();) {
    std::size_t end = i;
    while (end < text.size() && std::isalnum(static_cast<unsigned char>(text[end])) != 0)
      ++end;
    if (end > i) add(text.substr(i, end - i));
    i = end + 1;
  }
  double length = 0;
  for (const double place : vector)
    length += place * place;
  length = std::sqrt(length);
  for (auto& place : vector)
    place /= length > 0 ? length : 1;
  return vector;
}

}  // namespace gpumod::sim
