#include "verbs/bench_figures.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include <boost/json.hpp>
#include <fmt/format.h>

#include "base/time.h"
#include "verbs/verb.h"

namespace gpumod {

namespace json = boost::json;

namespace {

double rounded(double amount) {
  return std::round(amount * 1000) / 1000;
}

double number_of(const json::object& object, std::string_view key) {
  const auto* found = object.if_contains(key);
  return found && found->is_number() ? found->to_number<double>() : 0;
}

const json::array& list_in(const json::object& object, std::string_view key) {
  static const json::array none;
  const auto* found = object.if_contains(key);
  return found && found->is_array() ? found->get_array() : none;
}

BenchFigures figures_in(const json::object& holder) {
  const auto* found = holder.if_contains("seconds");
  if (!found || !found->is_object()) return {};
  const auto& said = found->get_object();
  return {number_of(said, "median"), number_of(said, "spread"), number_of(said, "least"), number_of(said, "most")};
}

/// The object of `list` in which each of `keys` says the same as in `like`.
const json::object* twin_of(const json::object& like, const json::array& list,
                            std::initializer_list<std::string_view> keys) {
  for (const auto& each : list) {
    if (!each.is_object()) continue;
    const auto& object = each.get_object();
    if (std::all_of(keys.begin(), keys.end(),
                    [&](std::string_view key) { return text_of(object, key) == text_of(like, key); }))
      return &object;
  }
  return nullptr;
}

std::string in_seconds(double amount) {
  return format_seconds(std::chrono::duration_cast<Duration>(std::chrono::duration<double>(amount)));
}

json::array changed_steps(const json::object& before, const json::object& after) {
  json::array changed;
  for (const auto& each : list_in(after, "steps")) {
    if (!each.is_object()) continue;
    const auto& step = each.get_object();
    const auto* twin = twin_of(step, list_in(before, "steps"), {"action", "subject"});
    if (!twin || trend_of(figures_in(*twin), figures_in(step)) == Trend::same) continue;
    changed.push_back(json::object{{"action", text_of(step, "action")},
                                   {"subject", text_of(step, "subject")},
                                   {"before", figures_in(*twin).median},
                                   {"after", figures_in(step).median}});
  }
  return changed;
}

json::object change_of(const json::object& before, const json::object& after) {
  const auto was = figures_in(before), is = figures_in(after);
  const double percent = was.median > 0 ? (is.median - was.median) / was.median * 100 : 0;
  auto steps = changed_steps(before, after);
  auto words = fmt::format("{} to {}: {} now, {} before ({:+.0f} %)", text_of(after, "from"), text_of(after, "to"),
                           in_seconds(is.median), in_seconds(was.median), percent);
  for (const auto& step : steps)
    words += fmt::format("; {} of {}: {} now, {} before", text_of(step.get_object(), "action"),
                         text_of(step.get_object(), "subject"), in_seconds(number_of(step.get_object(), "after")),
                         in_seconds(number_of(step.get_object(), "before")));
  return {{"from", text_of(after, "from")},
          {"to", text_of(after, "to")},
          {"before", was.median},
          {"after", is.median},
          {"seconds", rounded(is.median - was.median)},
          {"percent", rounded(percent)},
          {"text", std::move(words)},
          {"steps", std::move(steps)}};
}

}  // namespace

BenchFigures figures_of(std::vector<double> runs) {
  if (runs.empty()) return {};
  std::sort(runs.begin(), runs.end());
  const auto middle = runs.size() / 2;
  const double median = runs.size() % 2 == 1 ? runs[middle] : (runs[middle - 1] + runs[middle]) / 2;
  const double away = std::accumulate(runs.begin(), runs.end(), 0.0,
                                      [&](double sum, double run) { return sum + std::abs(run - median); });
  return {median, away / static_cast<double>(runs.size()), runs.front(), runs.back()};
}

json::object to_json(const BenchFigures& figures, const std::vector<double>& runs) {
  json::array all;
  for (const auto run : runs)
    all.emplace_back(rounded(run));
  return {{"median", rounded(figures.median)},
          {"spread", rounded(figures.spread)},
          {"least", rounded(figures.least)},
          {"most", rounded(figures.most)},
          {"all", std::move(all)}};
}

Trend trend_of(const BenchFigures& before, const BenchFigures& after) {
  const double chance = std::max({before.median / 10, 0.1, 3 * before.spread, 3 * after.spread});
  if (after.median - before.median > chance) return Trend::slower;
  if (before.median - after.median > chance) return Trend::faster;
  return Trend::same;
}

json::object compare_benches(const json::object& before, const json::object& after) {
  json::array regressions, improvements, missing, notes;
  for (const auto& each : list_in(before, "transitions")) {
    if (!each.is_object()) continue;
    const auto& old = each.get_object();
    const auto* now = twin_of(old, list_in(after, "transitions"), {"from", "to"});
    const bool measured_now = now && !list_in(*now, "switches").empty() && figures_in(*now).median > 0;
    if (!measured_now) {
      missing.push_back(json::object{{"from", text_of(old, "from")}, {"to", text_of(old, "to")}});
      continue;
    }
    if (figures_in(old).median <= 0) continue;  // none of its runs had gone well
    const auto trend = trend_of(figures_in(old), figures_in(*now));
    if (trend == Trend::slower) regressions.push_back(change_of(old, *now));
    if (trend == Trend::faster) improvements.push_back(change_of(old, *now));
  }
  for (const char* key : {"gpus", "driver"}) {
    const auto *was = before.if_contains(key), *is = after.if_contains(key);
    if (was && is && *was != *is)
      notes.emplace_back(fmt::format("the {} {} not the same as then: {} now, {} before", key,
                                     std::string_view(key) == "gpus" ? "are" : "is", json::serialize(*is),
                                     json::serialize(*was)));
  }
  return {{"regressions", std::move(regressions)},
          {"improvements", std::move(improvements)},
          {"missing", std::move(missing)},
          {"notes", std::move(notes)}};
}

}  // namespace gpumod
