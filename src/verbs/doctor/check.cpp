#include "verbs/doctor/check.h"

#include <algorithm>

#include <boost/json.hpp>
#include <fmt/format.h>

#include "base/text.h"

namespace gpumod {

namespace json = boost::json;

std::string_view to_string(Health health) {
  switch (health) {
    case Health::ok: return "ok";
    case Health::skipped: return "skipped";
    case Health::note: return "note";
    case Health::warning: return "warning";
    case Health::failure: return "failure";
  }
  return "";
}

std::string describe(const Fix& fix) {
  switch (fix.kind) {
    case Fix::Kind::enable_linger:
      return fmt::format("let the services of {} run without a login (linger)", fix.subject);
    case Fix::Kind::make_folder: return fmt::format("make the folder {} with mode {:04o}", fix.subject, fix.mode);
    case Fix::Kind::restrict_mode: return fmt::format("set the mode of {} to {:04o}", fix.subject, fix.mode);
  }
  return "";
}

Health Check::state() const {
  Health worst = Health::ok;
  for (const auto& finding : findings)
    worst = std::max(worst, finding.state);
  return worst;
}

void Check::note(std::string text, std::string mend) {
  findings.push_back({Health::note, std::move(text), std::move(mend)});
}
void Check::warn(std::string text, std::string mend) {
  findings.push_back({Health::warning, std::move(text), std::move(mend)});
}
void Check::fail(std::string text, std::string mend) {
  findings.push_back({Health::failure, std::move(text), std::move(mend)});
}

Health worst_of(const std::vector<Check>& checks) {
  Health worst = Health::ok;
  for (const auto& check : checks)
    worst = std::max(worst, check.state());
  return worst;
}

json::array describe_checks(const std::vector<Check>& checks) {
  json::array lines;
  for (const auto& check : checks) {
    auto findings = check.findings;
    std::stable_sort(findings.begin(), findings.end(),
                     [](const Finding& a, const Finding& b) { return a.state > b.state; });
    json::array found;
    for (const auto& finding : findings)
      found.push_back(json::object{{"state", to_string(finding.state)},
                                   {"text", printable(finding.text)},
                                   {"mend", finding.mend.empty() ? json::value(nullptr) : json::value(finding.mend)}});
    lines.push_back(json::object{{"id", check.id},
                                 {"group", check.group},
                                 {"title", check.title},
                                 {"state", to_string(check.state())},
                                 {"why", check.why},
                                 {"findings", std::move(found)}});
  }
  return lines;
}

}  // namespace gpumod
