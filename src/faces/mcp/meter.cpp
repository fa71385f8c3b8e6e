#include "faces/mcp/meter.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "faces/cli/fields.h"
#include "faces/cli/progress.h"

namespace gpumod::mcp {

namespace json = boost::json;
using namespace cli;

namespace {

/// A step that is not done never counts as more than this, however long it takes.
constexpr double most_of_a_step = 0.95;
/// What is left of the way to 100 is for the answer.
constexpr double most_of_all = 99;

}  // namespace

Meter::Step& Meter::step_of(std::int64_t index) {
  for (auto& step : steps_)
    if (step.index == index) return step;
  steps_.push_back({index, 1, false, {}});
  return steps_.back();
}

std::optional<Meter::Reading> Meter::on_event(const json::object& event, TimePoint now) {
  const auto kind = text(member(event, "event"));
  const auto words = ProgressView(std::string("change")).appended(event);
  if (kind == "plan") {
    steps_.clear();
    for (const auto& planned : elements(member(member(event, "plan"), "steps"))) {
      auto& step = step_of(static_cast<std::int64_t>(number(member(planned, "step")).value_or(double(steps_.size()))));
      step.expected = std::max(0.1, number(member(planned, "seconds")).value_or(1));
    }
    if (const auto all = number(member(member(event, "plan"), "seconds")))
      expected_end_ = now + std::chrono::duration_cast<Duration>(std::chrono::duration<double>(*all));
  } else if (kind == "step") {
    auto& step = step_of(static_cast<std::int64_t>(number(member(event, "step")).value_or(-1)));
    const auto result = text(member(event, "result"));
    step.over = result == "done" || result == "failed" || result == "skipped";
    if (result == "running" && !step.began) step.began = now;
  }
  if (!words) return std::nullopt;
  doing_ = *words;
  return reading(now);
}

std::optional<Meter::Reading> Meter::on_tick(TimePoint now) {
  return doing_.empty() ? std::nullopt : reading(now);
}

std::optional<Meter::Reading> Meter::reading(TimePoint now) {
  double all = 0, done = 0;
  for (const auto& step : steps_) {
    all += step.expected;
    if (step.over) done += step.expected;
    if (step.over || !step.began) continue;
    const double passed = std::chrono::duration<double>(now - *step.began).count();
    done += std::min(passed, most_of_a_step * step.expected);
  }
  const double percent = all > 0 ? std::min(most_of_all, std::floor(1000 * done / all) / 10) : 0;
  // Strictly more each time, for the protocol wants it so; a little more where nothing has come about.
  shown_ = std::max(percent, shown_ + 0.001);
  auto words = fmt::format("{}, {} %", doing_, static_cast<int>(std::min(shown_, most_of_all)));
  if (expected_end_ && *expected_end_ - now >= 1s)
    words += fmt::format(", about {} s left", std::chrono::ceil<std::chrono::seconds>(*expected_end_ - now).count());
  return Reading{shown_, std::move(words)};
}

}  // namespace gpumod::mcp
