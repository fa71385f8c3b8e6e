#include "control/start_log.h"

#include <algorithm>

#include <fmt/format.h>

#include "base/log.h"
#include "base/text.h"

namespace gpumod {

namespace {

/// What is kept of a long log: causes stand at its beginning (the first) or at its end (the last words).
constexpr std::size_t kept_from_beginning = 400;
constexpr std::size_t kept_lines = 1200;

/// journald would tell of a line up to a quarter of a second late. So often asking costs under one percent of a core,
/// and only while something starts.
constexpr Duration log_lag = 15ms;

constexpr std::size_t last_words = 12, longest_word = 300;

}  // namespace

std::vector<std::string> lines_that_matter(const std::vector<LogLine>& lines, std::string_view cause) {
  const auto from = lines.size() > last_words ? lines.size() - last_words : 0;
  const auto begin = lines.begin() + static_cast<long>(from);
  const auto kept = [](std::string_view line) {
    auto words = printable(line.substr(0, longest_word));
    return line.size() > longest_word ? words + " …" : words;
  };
  std::vector<std::string> out;
  const bool shown = std::any_of(begin, lines.end(), [&](const LogLine& line) { return line.text == cause; });
  if (!cause.empty() && !shown) out.push_back(kept(cause));
  for (auto line = begin; line != lines.end(); ++line)
    out.push_back(kept(line->text));
  return out;
}

std::shared_ptr<StartLog> StartLog::follow(UnitManager& units, const std::string& unit, Service service) {
  auto log = std::make_shared<StartLog>(std::move(service));
  const std::weak_ptr<StartLog> weak = log;
  const auto on_line = [weak](const LogLine& line) {
    if (const auto alive = weak.lock()) alive->take(line);
  };
  auto following = units.follow_log(unit, on_line, log_lag);
  if (following)
    log->following_ = std::move(*following);
  else
    log_warning("the log of {} cannot be followed: {}", unit, following.error().message);
  if (const auto question = engine_for(log->service_.engine).readiness_request(log->service_))
    log->our_question_ = fmt::format("{} {}", question->method, question->target);
  return log;
}

bool StartLog::of_this_run(const LogLine& line) const {
  return invocation_.empty() || line.invocation.empty() || line.invocation == invocation_;
}

void StartLog::take(const LogLine& line) {
  if (!of_this_run(line)) return;
  if (lines_.size() >= kept_lines) {
    const auto middle = lines_.begin() + kept_from_beginning;
    lines_.erase(middle, middle + (kept_lines - kept_from_beginning) / 2);
  }
  lines_.push_back(line);
  judge(line);
  const bool answers_us = !our_question_.empty() && line.text.find(our_question_) != std::string::npos;
  if (callback_ && !answers_us) callback_();
}

void StartLog::judge(const LogLine& line) {
  if (verdict_) return;
  const Engine& engine = engine_for(service_.engine);
  auto proof = engine.conclusive(service_, line);
  if (!proof) return;
  // The line that proves it need not be the one that says why.
  auto first = engine.classify(lines_);
  const bool explains = first.kind != FailureCause::Class::unknown;
  verdict_ = explains ? std::move(first) : std::move(*proof);
}

void StartLog::expect_run(std::string invocation) {
  if (invocation.empty() || invocation == invocation_) return;
  invocation_ = std::move(invocation);
  std::erase_if(lines_, [&](const LogLine& line) { return !of_this_run(line); });
  verdict_.reset();
  const auto kept = std::exchange(lines_, {});
  for (const auto& line : kept) {
    lines_.push_back(line);
    judge(line);
  }
}

}  // namespace gpumod
