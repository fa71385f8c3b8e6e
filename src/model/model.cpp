#include <algorithm>
#include <array>

#include <fmt/format.h>

#include "model/footprint.h"
#include "model/ledger.h"
#include "model/service.h"
#include "model/unit.h"

namespace gpumod {

namespace {

template <typename Enum, std::size_t N>
using Names = std::array<std::pair<Enum, std::string_view>, N>;

template <typename Enum, std::size_t N>
std::string_view name_of(const Names<Enum, N>& names, Enum value) {
  for (const auto& [candidate, name] : names)
    if (candidate == value) return name;
  return "unknown";
}

template <typename Enum, std::size_t N>
std::optional<Enum> value_of(const Names<Enum, N>& names, std::string_view name) {
  for (const auto& [value, candidate] : names)
    if (candidate == name) return value;
  return std::nullopt;
}

constexpr Names<EngineKind, 4> engine_names{{{EngineKind::vllm, "vllm"},
                                             {EngineKind::llamacpp, "llamacpp"},
                                             {EngineKind::fastapi, "fastapi"},
                                             {EngineKind::command, "command"}}};
constexpr Names<Residency, 9> residency_names{{{Residency::stopped, "stopped"},
                                               {Residency::starting, "starting"},
                                               {Residency::running, "running"},
                                               {Residency::sleeping1, "sleeping1"},
                                               {Residency::sleeping2, "sleeping2"},
                                               {Residency::unloaded, "unloaded"},
                                               {Residency::suspended, "suspended"},
                                               {Residency::stopping, "stopping"},
                                               {Residency::failed, "failed"}}};
constexpr Names<SleepAbility, 4> sleep_names{{{SleepAbility::none, "none"},
                                              {SleepAbility::level1, "l1"},
                                              {SleepAbility::level2, "l2"},
                                              {SleepAbility::router, "router"}}};
constexpr Names<ProbeKind, 7> probe_names{{{ProbeKind::automatic, "auto"},
                                           {ProbeKind::none, "none"},
                                           {ProbeKind::chat, "chat"},
                                           {ProbeKind::completion, "completion"},
                                           {ProbeKind::embedding, "embedding"},
                                           {ProbeKind::rerank, "rerank"},
                                           {ProbeKind::http, "http"}}};
constexpr Names<OnFailure, 3> on_failure_names{
    {{OnFailure::rollback, "rollback"}, {OnFailure::stay, "stay"}, {OnFailure::blank, "blank"}}};
constexpr Names<BootPolicy, 3> boot_names{
    {{BootPolicy::goal, "goal"}, {BootPolicy::blank, "blank"}, {BootPolicy::nothing, "nothing"}}};
constexpr Names<ActiveState, 6> active_names{{{ActiveState::inactive, "inactive"},
                                              {ActiveState::activating, "activating"},
                                              {ActiveState::active, "active"},
                                              {ActiveState::deactivating, "deactivating"},
                                              {ActiveState::failed, "failed"},
                                              {ActiveState::unknown, "unknown"}}};
constexpr Names<ClaimSource, 5> claim_source_names{{{ClaimSource::unknown, "unknown"},
                                                    {ClaimSource::declared, "declared"},
                                                    {ClaimSource::estimated, "estimated"},
                                                    {ClaimSource::measured, "measured"},
                                                    {ClaimSource::utilization, "utilization"}}};
constexpr Names<Phase, 8> phase_names{{{Phase::start, "start"},
                                       {Phase::ready, "ready"},
                                       {Phase::load, "load"},
                                       {Phase::stop, "stop"},
                                       {Phase::release, "release"},
                                       {Phase::unload, "unload"},
                                       {Phase::sleep, "sleep"},
                                       {Phase::wake, "wake"}}};

}  // namespace

std::string_view to_string(ClaimSource source) {
  return name_of(claim_source_names, source);
}
std::string_view to_string(Phase phase) {
  return name_of(phase_names, phase);
}
std::optional<Phase> phase_from(std::string_view name) {
  return value_of(phase_names, name);
}
std::string_view to_string(EngineKind kind) {
  return name_of(engine_names, kind);
}
std::optional<EngineKind> engine_kind_from(std::string_view name) {
  return value_of(engine_names, name);
}
std::string_view to_string(Residency residency) {
  return name_of(residency_names, residency);
}
std::optional<Residency> residency_from(std::string_view name) {
  return value_of(residency_names, name);
}
std::string_view to_string(SleepAbility ability) {
  return name_of(sleep_names, ability);
}
std::string_view to_string(ProbeKind kind) {
  return name_of(probe_names, kind);
}
std::optional<ProbeKind> probe_kind_from(std::string_view name) {
  return value_of(probe_names, name);
}
std::string_view to_string(OnFailure policy) {
  return name_of(on_failure_names, policy);
}
std::optional<OnFailure> on_failure_from(std::string_view name) {
  return value_of(on_failure_names, name);
}
std::string_view to_string(AssistantRights rights) {
  switch (rights) {
    case AssistantRights::read: return "read";
    case AssistantRights::switch_: return "switch";
    case AssistantRights::admin: return "admin";
  }
  return "read";
}

std::optional<AssistantRights> assistant_rights_from(std::string_view name) {
  for (const auto rights : {AssistantRights::read, AssistantRights::switch_, AssistantRights::admin})
    if (to_string(rights) == name) return rights;
  return std::nullopt;
}

std::string_view to_string(BootPolicy policy) {
  return name_of(boot_names, policy);
}
std::optional<BootPolicy> boot_policy_from(std::string_view name) {
  return value_of(boot_names, name);
}
std::string_view to_string(ActiveState state) {
  return name_of(active_names, state);
}

std::string_view to_string(Holding::Kind kind) {
  switch (kind) {
    case Holding::Kind::managed: return "managed";
    case Holding::Kind::orphan: return "orphan";
    case Holding::Kind::foreign: return "foreign";
  }
  return "";
}

std::string_view to_string(Holding::Why why) {
  switch (why) {
    case Holding::Why::none: return "";
    case Holding::Why::unwanted: return "unwanted";
    case Holding::Why::undefined: return "undefined";
    case Holding::Why::escaped: return "escaped";
    case Holding::Why::unseen: return "unseen";
  }
  return "";
}

std::string to_string(const SourceLocation& location) {
  if (location.line == 0) return location.file;
  if (location.column == 0) return fmt::format("{}:{}", location.file, location.line);
  return fmt::format("{}:{}:{}", location.file, location.line, location.column);
}

std::vector<std::string> Service::added_words() const {
  auto words = inherited_args;
  words.insert(words.end(), extra_args.begin(), extra_args.end());
  return words;
}

const Secret* Service::variable(const std::string& variable) const {
  for (const auto* people : {&environment, &inherited_environment})
    if (const auto found = people->find(variable); found != people->end()) return &found->second;
  return nullptr;
}

std::string Service::unit_name() const {
  if (!unit.empty()) return unit;
  if (!router.empty()) return "gpumod-router-" + router + ".service";
  return "gpumod-" + id + ".service";
}

bool is_valid_id(std::string_view id) {
  if (id.empty() || id.size() > 64) return false;
  const auto alphanumeric = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); };
  if (!alphanumeric(id.front())) return false;
  return std::all_of(id.begin(), id.end(),
                     [&](char c) { return alphanumeric(c) || c == '.' || c == '_' || c == '-'; }) &&
         id.find("..") == std::string_view::npos;
}

/// The results are systemd's words (systemd.service, $SERVICE_RESULT), and the local supervisor's.
std::string how_it_ended(const UnitStatus& unit) {
  const auto& result = unit.result;
  const auto how =
      unit.killed_by_signal ? fmt::format("signal {}", unit.exit_code) : fmt::format("exit code {}", unit.exit_code);
  if (result == "oom-kill") return "the kernel ended it because memory ran out";
  if (result == "start-limit-hit") return "it ended too often in a short time";
  if (result == "timeout") return fmt::format("it took too long and was ended ({})", how);
  if (result == "watchdog") return fmt::format("it gave no sign of life and was ended ({})", how);
  if (result == "resources") return "what it needs could not be set up";
  if (result == "protocol") return "it did not start the way its unit says";
  if (result == "shim-lost") return "gpumod's process that looked after it was killed, and it ended with it";
  if (result == "core-dump") return fmt::format("it crashed ({})", how);
  if (unit.killed_by_signal) return fmt::format("it was ended by {}", how);
  if (unit.exit_code != 0 || result == "exit-code") return fmt::format("it ended with {}", how);
  return result.empty() || result == "success" ? "it ended by itself" : fmt::format("it ended: {}", result);
}

/// The results are systemd's words for jobs (org.freedesktop.systemd1, JobRemoved).
std::string why_not_started(const JobOutcome& job) {
  std::string_view why;
  if (job.result == "canceled") why = ": another order took its place";
  if (job.result == "timeout") why = ": its time for that was over";
  if (job.result == "dependency") why = ": a unit that it needs did not start";
  if (job.result == "skipped") why = ": a condition in its unit does not hold";
  return fmt::format("its unit could not be started{}", why);
}

}  // namespace gpumod
