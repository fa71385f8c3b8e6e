#include "verbs/qa_diff.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include <fmt/format.h>

#include "base/text.h"
#include "base/units.h"
#include "verbs/qa_issues.h"
#include "verbs/qa_values.h"

namespace gpumod {

namespace json = boost::json;

namespace {

/// Something that is measured, and what of a difference is noise.
struct Quantity {
  const char* kind;
  const char* unit;  // "s", "tok/s", "bytes"
  bool less_is_better;
  double share;   // of the earlier value
  double amount;  // in its unit
};

constexpr Quantity transition_seconds{"seconds", "s", true, 0.20, 0.5};
constexpr Quantity load_seconds{"load", "s", true, 0.20, 0.5};
constexpr Quantity tokens_rate{"tokens", "tok/s", false, 0.10, 1};
constexpr Quantity prompt_rate{"prompt", "tok/s", false, 0.25, 5};
constexpr Quantity first_token{"first_token", "s", true, 0.50, 0.1};
constexpr Quantity memory{"vram", "bytes", true, 0.02, 64.0 * 1024 * 1024};
constexpr const Quantity* quantities[] = {&transition_seconds, &load_seconds, &tokens_rate,
                                          &prompt_rate,        &first_token,  &memory};

using Key = std::pair<const Quantity*, std::string>;  // and its subject

/// What a run saw, by subject.
struct Seen {
  std::map<Key, std::vector<double>> figures;
  std::map<std::string, bool> transitions;    // passed at each time, whatever its services answered
  std::map<std::string, std::string> probes;  // "coder in code": what is wrong, "" when nothing ever was
  std::map<std::string, std::int64_t> dimensions;
  std::set<std::string> orphans;
};

bool comes_up(const std::string& action) {
  return action == "start" || action == "load" || action == "wake";
}

void look_at_service(const json::value& service, const std::string& mode, Seen& seen) {
  const auto subject = fmt::format("{} in {}", string_at(service, {"service"}), mode);
  const auto add = [&](const Quantity& quantity, const char* figure) {
    if (const auto value = number_at(service, {"figures", figure}))
      seen.figures[{&quantity, subject}].push_back(*value);
  };
  add(tokens_rate, "tokens_per_second");
  add(prompt_rate, "prompt_tokens_per_second");
  add(first_token, "first_token_seconds");
  if (const auto dimensions = number_at(service, {"figures", "dimensions"}))
    seen.dimensions[subject] = static_cast<std::int64_t>(*dimensions);
  auto& wrong = seen.probes[subject];
  for (const auto& problem : list_at(service, {"problems"}))
    if (wrong.empty() && problem.is_string()) wrong = problem.get_string();
}

Seen seen_in(const json::value& run) {
  Seen seen;
  for (const auto& transition : list_at(run, {"transitions"})) {
    const auto name = name_of_transition(transition);
    const auto mode = string_at(transition, {"to"}), result = string_at(transition, {"result"});
    if (result == "cancelled") continue;
    const bool reached = result == "committed" || result == "unchanged";
    const auto [entry, first] = seen.transitions.emplace(name, reached);
    if (!first) entry->second = entry->second && reached;
    for (const auto& orphan : list_at(transition, {"orphans"}))
      seen.orphans.insert(fmt::format("{} after {}", string_at(orphan, {"name"}), name));
    if (!reached) continue;
    if (const auto took = number_at(transition, {"seconds"}))
      seen.figures[{&transition_seconds, name}].push_back(*took);
    if (const auto ours = number_at(transition, {"vram", "ours"})) seen.figures[{&memory, mode}].push_back(*ours);
    for (const auto& step : list_at(transition, {"steps"})) {
      const auto took = number_at(step, {"seconds"});
      const bool plain = string_at(step, {"result"}) == "done" && integer_at(step, {"attempts"}) == 1;
      const auto service = string_at(step, {"service"});
      if (took && plain && !service.empty() && comes_up(string_at(step, {"action"})))
        seen.figures[{&load_seconds, service}].push_back(*took);
    }
    for (const auto& service : list_at(transition, {"services"}))
      look_at_service(service, mode, seen);
  }
  return seen;
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const auto middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

double spread(const std::vector<double>& values) {
  const double middle = median(values);
  double sum = 0;
  for (const double value : values)
    sum += std::abs(value - middle);
  return sum / static_cast<double>(values.size());
}

std::string amount_words(const Quantity& quantity, double amount) {
  if (std::string_view(quantity.unit) == "bytes") return to_string(Bytes(static_cast<std::int64_t>(amount)));
  if (std::string_view(quantity.unit) == "s") return fmt::format("{:.2f} s", amount);
  return fmt::format("{:.0f} {}", amount, quantity.unit);
}

std::string sentence(const Quantity& quantity, const std::string& subject, double before, double after,
                     double tolerance) {
  const auto was = amount_words(quantity, before), is = amount_words(quantity, after);
  const std::string_view kind = quantity.kind;
  std::string words = kind == "seconds" ? fmt::format("{} took {}, and {} before", subject, is, was)
                      : kind == "load"  ? fmt::format("{} took {} to come up, and {} before", subject, is, was)
                      : kind == "vram"  ? fmt::format("mode {} holds {}, and {} before", subject, is, was)
                      : kind == "first_token"
                          ? fmt::format("{} took {} to its first token, and {} before", subject, is, was)
                      : kind == "prompt" ? fmt::format("{} reads its prompt at {}, and at {} before", subject, is, was)
                                         : fmt::format("{} generates {}, and {} before", subject, is, was);
  const double change = before > 0 ? (after - before) / before * 100 : 0;
  return words + fmt::format(" ({:+.0f} %; {} is within tolerance)", change, amount_words(quantity, tolerance));
}

struct Comparison {
  json::array regressions, improvements, missing;

  void worse(const char* kind, const std::string& subject, json::value before, json::value after, std::string text) {
    regressions.push_back(json::object{{"kind", kind},
                                       {"subject", subject},
                                       {"before", std::move(before)},
                                       {"after", std::move(after)},
                                       {"tolerance", nullptr},
                                       {"unit", nullptr},
                                       {"text", std::move(text)}});
  }
};

void compare_figures(const Seen& before, const Seen& after, Comparison& out) {
  for (const auto* quantity : quantities)
    for (const auto& [key, now_seen] : after.figures) {
      const auto earlier = before.figures.find(key);
      if (key.first != quantity || earlier == before.figures.end()) continue;
      const double was = median(earlier->second), is = median(now_seen);
      const double noise = 3 * std::max(spread(earlier->second), spread(now_seen));
      const double tolerance = std::max({quantity->amount, quantity->share * was, noise});
      const double worse_by = quantity->less_is_better ? is - was : was - is;
      if (std::abs(worse_by) <= tolerance) continue;
      json::object entry{{"kind", quantity->kind},
                         {"subject", key.second},
                         {"before", was},
                         {"after", is},
                         {"tolerance", tolerance},
                         {"unit", quantity->unit},
                         {"text", sentence(*quantity, key.second, was, is, tolerance)}};
      (worse_by > 0 ? out.regressions : out.improvements).push_back(std::move(entry));
    }
}

void compare_outcomes(const Seen& before, const Seen& after, Comparison& out) {
  for (const auto& [name, reached] : after.transitions) {
    const auto earlier = before.transitions.find(name);
    if (!reached && earlier != before.transitions.end() && earlier->second)
      out.worse("transition", name, true, false, fmt::format("{} does not get there any more", name));
  }
  for (const auto& orphan : after.orphans)
    if (!before.orphans.contains(orphan))
      out.worse("orphan", orphan, false, true, fmt::format("{}: it is left behind, and was not before", orphan));
  for (const auto& [subject, dimensions] : after.dimensions) {
    const auto earlier = before.dimensions.find(subject);
    if (earlier != before.dimensions.end() && earlier->second != dimensions)
      out.worse("dimensions", subject, earlier->second, dimensions,
                fmt::format("{} answers with {} dimensions, and with {} before", subject, dimensions, earlier->second));
  }
  for (const auto& [subject, wrong] : after.probes) {
    const auto earlier = before.probes.find(subject);
    if (!wrong.empty() && earlier != before.probes.end() && earlier->second.empty())
      out.worse("probe", subject, true, false, fmt::format("{} fails its probe: {}", subject, wrong));
  }
}

void note_missing(const Seen& before, const Seen& after, Comparison& out) {
  for (const auto& [name, reached] : before.transitions)
    if (!after.transitions.contains(name)) out.missing.push_back(json::value(name));
  for (const auto& [subject, wrong] : before.probes)
    if (!after.probes.contains(subject)) out.missing.push_back(json::value("the answers of " + subject));
}

json::value id_of(const json::value& run) {
  const auto id = integer_at(run, {"id"});
  return id ? json::value(*id) : json::value(nullptr);
}

std::map<std::string, std::string> keys_of(const json::value& run) {
  std::map<std::string, std::string> keys;
  for (const auto& service : list_at(run, {"environment", "services"}))
    keys[string_at(service, {"id"})] = string_at(service, {"key"});
  return keys;
}

std::string gpus_of(const json::value& run) {
  std::vector<std::string> names;
  for (const auto& gpu : list_at(run, {"environment", "gpus"}))
    names.push_back(string_at(gpu, {"name"}));
  return join(names, ", ");
}

}  // namespace

json::array changes_between(const json::value& before, const json::value& after) {
  json::array changes;
  const auto compare = [&](const char* what, const std::string& was, const std::string& is) {
    if (was != is && !was.empty() && !is.empty())
      changes.push_back(json::value(fmt::format("{}: {}, and {} before", what, is, was)));
  };
  const auto text = [](const json::value& run, const char* key) { return string_at(run, {"environment", key}); };
  compare("gpumod", text(before, "gpumod"), text(after, "gpumod"));
  compare("driver", text(before, "driver"), text(after, "driver"));
  compare("unit manager", text(before, "unit_manager"), text(after, "unit_manager"));
  compare("GPUs", gpus_of(before), gpus_of(after));
  const auto was = keys_of(before), is = keys_of(after);
  for (const auto& [id, key] : is) {
    const auto earlier = was.find(id);
    if (earlier == was.end())
      changes.push_back(json::value(fmt::format("{} is new", id)));
    else if (earlier->second != key && !key.empty() && !earlier->second.empty())
      changes.push_back(
          json::value(fmt::format("{}: its arguments, model file, engine build or the driver changed", id)));
  }
  for (const auto& [id, key] : was)
    if (!is.contains(id)) changes.push_back(json::value(fmt::format("{} is gone", id)));
  return changes;
}

json::object compare_runs(const json::value& before, const json::value& after) {
  const auto was = seen_in(before), is = seen_in(after);
  Comparison out;
  compare_outcomes(was, is, out);
  compare_figures(was, is, out);
  note_missing(was, is, out);
  return {{"before", id_of(before)},
          {"after", id_of(after)},
          {"regressions", std::move(out.regressions)},
          {"improvements", std::move(out.improvements)},
          {"changes", changes_between(before, after)},
          {"missing", std::move(out.missing)}};
}

}  // namespace gpumod
