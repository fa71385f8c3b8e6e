#include "verbs/imagined_gpu.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>
#include <optional>
#include <set>

#include <fmt/format.h>

#include "base/text.h"

namespace gpumod {

namespace {

struct Card {
  const char* name;
  std::int64_t mib;  ///< as the driver reports it
};

constexpr Card cards[] = {
    {"RTX 5090", 32607},     {"RTX 5080", 16303},
    {"RTX 5070 Ti", 16303},  {"RTX 5070", 12227},
    {"RTX 4090", 24564},     {"RTX 4080 SUPER", 16376},
    {"RTX 4080", 16376},     {"RTX 4070 Ti SUPER", 16376},
    {"RTX 4070 Ti", 12282},  {"RTX 4070 SUPER", 12282},
    {"RTX 4070", 12282},     {"RTX 4060", 8188},
    {"RTX 3090 Ti", 24564},  {"RTX 3090", 24576},
    {"RTX 3080", 10240},     {"RTX 3070", 8192},
    {"RTX 3060", 12288},     {"RTX A6000", 49140},
    {"RTX 6000 Ada", 49140}, {"RTX PRO 6000", 97887},
    {"A10", 23028},          {"A100 40GB", 40960},
    {"A100 80GB", 81920},    {"H100", 81559},
    {"H200", 143771},        {"L4", 23034},
    {"L40S", 46068},         {"T4", 15360},
    {"V100 16GB", 16384},    {"V100 32GB", 32768},
};

constexpr Bytes largest = Bytes::gib(1024);
constexpr std::size_t most_gpus = 64;

std::string lower_alphanumeric(std::string_view text) {
  auto out = lower(text);
  std::erase_if(out, [](unsigned char c) { return !std::isalnum(c); });
  return out;
}

/// "NVIDIA GeForce RTX 4090" and "rtx4090" are the same card.
std::string plain_name(std::string_view name) {
  auto plain = lower_alphanumeric(name);
  for (const std::string_view maker : {"nvidia", "geforce", "tesla", "quadro"})
    if (plain.starts_with(maker)) plain.erase(0, maker.size());
  return plain;
}

/// Words with which the driver tells apart what people do not: "NVIDIA A100-SXM4-80GB", "NVIDIA H100 80GB HBM3".
bool is_of_the_board(std::string_view word) {
  return word.starts_with("sxm") || word.starts_with("hbm") || word == "pcie" || word == "nvl" || word == "generation";
}

bool is_size(std::string_view word) {
  return word.size() > 2 && word.ends_with("gb") &&
         word.substr(0, word.size() - 2).find_first_not_of("0123456789") == std::string_view::npos;
}

/// The card that a name means, and how much memory its name says it has ("": nothing).
std::pair<std::string, std::string> card_and_size(std::string_view name) {
  std::string card, size;
  while (!name.empty()) {
    const auto at = std::min(name.find_first_of(" -"), name.size());
    const auto word = lower_alphanumeric(name.substr(0, at));
    name.remove_prefix(std::min(at + 1, name.size()));
    if (is_size(word))
      size = word;
    else if (!is_of_the_board(word))
      card += word;
  }
  return {plain_name(card), size};
}

bool can_mean(std::string_view peoples, std::string_view drivers) {
  const auto [card, size] = card_and_size(peoples);
  const auto [its_card, its_size] = card_and_size(drivers);
  return !card.empty() && card == its_card && (size.empty() || its_size.empty() || size == its_size);
}

std::optional<Bytes> size_in(std::string_view text) {
  text = trim(text);
  const auto unit_at = std::min(text.find_first_not_of("0123456789."), text.size());
  double amount = 0;
  const auto [end, problem] = std::from_chars(text.data(), text.data() + unit_at, amount);
  if (problem != std::errc() || end != text.data() + unit_at) return std::nullopt;
  const auto unit = lower_alphanumeric(text.substr(unit_at));
  double mib = 0;
  if (unit.empty() || unit == "m" || unit == "mi" || unit == "mib")
    mib = amount;
  else if (unit == "g" || unit == "gi" || unit == "gib")
    mib = amount * 1024;
  if (!(mib >= 1) || mib > static_cast<double>(largest.to_mib())) return std::nullopt;
  return Bytes::mib(static_cast<std::int64_t>(std::llround(mib)));
}

Result<GpuSample> imagined(const std::string& asked, int index) {
  const auto equals = asked.rfind('=');
  std::string name(trim(std::string_view(asked).substr(0, equals)));
  std::optional<Bytes> total;
  if (equals != std::string::npos) {
    total = size_in(std::string_view(asked).substr(equals + 1));
    if (!total || name.empty())
      return fail(ErrorCode::usage, fmt::format("--gpu needs NAME=SIZE, not '{}'", printable(asked)),
                  "A size is 24GiB, 16G or 24564 (MiB), at most 1024GiB.");
  } else {
    const auto known = std::find_if(std::begin(cards), std::end(cards),
                                    [&](const Card& card) { return plain_name(card.name) == plain_name(name); });
    if (known == std::end(cards)) {
      std::vector<std::string> names;
      for (const auto& card : cards)
        names.emplace_back(card.name);
      const auto near = nearest_names(name, names);
      return fail(ErrorCode::usage, fmt::format("no GPU is known as '{}'", printable(name)),
                  fmt::format("Give its size too: --gpu {}=24GiB. {}", printable(name.empty() ? "NAME" : name),
                              near.empty() ? fmt::format("Known: {}.", join(names, ", ")) : did_you_mean(name, names)));
    }
    name = known->name;
    total = Bytes::mib(known->mib);
  }
  return GpuSample{index, fmt::format("GPU-imagined-{}", index),      std::move(name),
                   total, std::max(Bytes(), *total - kept_by_driver), {}};
}

}  // namespace

Result<std::vector<GpuSample>> imagined_gpus(const std::vector<std::string>& asked) {
  if (asked.size() > most_gpus)
    return fail(ErrorCode::usage, fmt::format("--gpu can be given {} times at most", most_gpus));
  std::vector<GpuSample> gpus;
  for (const auto& one : asked)
    gpus.push_back(TRY(imagined(one, static_cast<int>(gpus.size()))));
  return gpus;
}

void name_as_measured(std::vector<GpuSample>& imagined, const Footprints& known) {
  std::set<std::string> measured_on;
  for (const auto& [subject, footprint] : known)
    for (const auto& [name, measured] : footprint.measured)
      measured_on.insert(name);
  for (auto& gpu : imagined) {
    const auto meant = std::find_if(measured_on.begin(), measured_on.end(),
                                    [&](const std::string& name) { return can_mean(gpu.name, name); });
    if (meant != measured_on.end() && !measured_on.contains(gpu.name)) gpu.name = *meant;
  }
}

}  // namespace gpumod
