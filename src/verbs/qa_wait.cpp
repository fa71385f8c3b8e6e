#include "verbs/qa_wait.h"

#include <algorithm>
#include <map>

#include <boost/json.hpp>
#include <fmt/format.h>

#include "base/text.h"
#include "model/json.h"
#include "verbs/qa_values.h"

namespace gpumod {

namespace json = boost::json;

namespace {

constexpr Bytes worth_naming = Bytes::mib(64);

using Holder = std::pair<GivenBack::By, std::string>;

std::map<Holder, Bytes> holders_at(const Recording::Point& point) {
  std::map<Holder, Bytes> holders;
  Bytes ours;
  for (const auto& [name, bytes] : point.held) {
    holders[{GivenBack::By::ours, name}] = bytes;
    ours += bytes;
  }
  if (point.used && point.unheld) {
    holders[{GivenBack::By::nobody, ""}] = *point.unheld;
    holders[{GivenBack::By::others, ""}] = std::max(Bytes(), *point.used - *point.unheld - ours);
  }
  return holders;
}

/// How one GPU was from the beginning of the wait to its end.
std::vector<Recording::Point> during(const Recording& recording, const Recording::Wait& wait, GpuIndex gpu) {
  std::vector<Recording::Point> points;
  for (const auto& point : recording.curve) {
    if (point.gpu != gpu || point.at > wait.until) continue;
    if (point.at <= wait.from) points.clear();  // it was over when the wait began
    points.push_back(point);
    points.back().at = std::max(point.at, wait.from);
  }
  return points;
}

std::string_view to_string(GivenBack::By by) {
  switch (by) {
    case GivenBack::By::ours: return "ours";
    case GivenBack::By::nobody: return "nobody";
    case GivenBack::By::others: break;
  }
  return "others";
}

}  // namespace

std::vector<GivenBack> given_back_during(const Recording& recording, const Recording::Wait& wait) {
  std::map<Holder, GivenBack> all;
  for (const auto& gpu : recording.gpus) {
    const auto points = during(recording, wait, gpu.index);
    if (points.empty()) continue;
    // What is there at the end was not waited for.
    auto kept = holders_at(points.back());
    std::map<Holder, GivenBack> here;
    for (std::size_t i = 0; i < points.size(); ++i) {
      const auto lasted = (i + 1 < points.size() ? points[i + 1].at : wait.until) - points[i].at;
      for (const auto& [holder, bytes] : holders_at(points[i])) {
        const auto went = bytes - kept[holder];
        if (went < worth_naming) continue;
        auto& given = here[holder];
        given.bytes = std::max(given.bytes, went);
        given.held += lasted;
      }
    }
    for (const auto& [holder, given] : here) {
      auto& whole = all[holder];
      whole.by = holder.first;
      whole.name = holder.second;
      whole.bytes += given.bytes;
      whole.held = std::max(whole.held, given.held);
    }
  }
  std::vector<GivenBack> found;
  for (auto& [holder, given] : all)
    found.push_back(std::move(given));
  std::stable_sort(found.begin(), found.end(), [](const auto& a, const auto& b) { return a.bytes > b.bytes; });
  return found;
}

json::value to_json(const GivenBack& given) {
  return json::object{{"by", to_string(given.by)},
                      {"name", text_or_null(given.name)},
                      {"bytes", given.bytes.count()},
                      {"seconds", rounded_seconds(given.held)}};
}

std::string given_back_words(const json::value& given) {
  const auto bytes = integer_at(given, {"bytes"});
  const auto took = number_at(given, {"seconds"});
  if (!bytes || !took) return {};
  const auto amount = to_string(Bytes(*bytes));
  const auto time = format_seconds(std::chrono::duration_cast<Duration>(std::chrono::duration<double>(*took)));
  const auto by = string_at(given, {"by"});
  if (by == "nobody") return fmt::format("For {} the driver kept {} that no process held any more.", time, amount);
  if (by == "others") return fmt::format("For {} processes that are none of gpumod's held {}.", time, amount);
  return fmt::format("For {} processes of {} held {}.", time, string_at(given, {"name"}), amount);
}

}  // namespace gpumod
