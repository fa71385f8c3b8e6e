#include "verbs/unfinished.h"

#include <boost/json.hpp>
#include <fmt/format.h>

#include "control/lock.h"
#include "verbs/homecoming.h"

namespace gpumod {

namespace json = boost::json;

namespace {

json::object describe_under_way(const MutationHolder& holder, const std::optional<StoredSwitch>& open) {
  // A row that is older than the holder is of a switch that was interrupted before.
  const bool its_own = open && open->began >= holder.since;
  return {{"under_way", true},
          {"id", its_own ? json::value(open->id) : json::value(nullptr)},
          {"verb", holder.about},
          {"pid", holder.pid},
          {"since", format_wall(holder.since)},
          {"seconds", std::chrono::duration_cast<std::chrono::seconds>(wall_now() - holder.since).count()}};
}

std::string_view what_repair_does(RecoveryDirection direction) {
  switch (direction) {
    case RecoveryDirection::forward: return "gpumod repair finishes it";
    case RecoveryDirection::back: return "gpumod repair restores what ran before";
    case RecoveryDirection::blank: return "gpumod repair stops what runs";
    case RecoveryDirection::discard: return "gpumod repair goes by what was wanted before it";
  }
  return "";
}

}  // namespace

InterruptedWords in_words(const StoredSwitch& stored, const Recovery& recovery) {
  InterruptedWords words{recovery.sentence, std::string(what_repair_does(recovery.direction))};
  const bool to_elsewhere = !stored.goal.exclusive || stored.goal.mode != stored.from;
  if (recovery.direction == RecoveryDirection::forward && !stored.from.empty() && to_elsewhere)
    words.hint += fmt::format("; gpumod mode switch {} takes it back", stored.from);
  words.hint += ".";
  return words;
}

std::optional<Goal> goal_of_repair(const std::optional<Goal>& stored, const std::optional<Recovery>& left) {
  if (!left) return stored;
  const bool onward = left->direction == RecoveryDirection::forward || left->direction == RecoveryDirection::blank;
  if (onward) return left->goal.exclusive ? left->goal : merged_goal(stored, left->goal);
  // What ran before is all there is to go by where nothing is stored.
  return stored ? stored : merged_goal(std::nullopt, left->goal);
}

json::array notes_on_state(Context& context) {
  json::array notes;
  if (!context.state_problem().empty()) notes.emplace_back(context.state_problem());
  if (const auto home = home_of_cut_run(context.paths()); home && !mutation_holder(context.paths()))
    notes.emplace_back(in_words(*home));
  return notes;
}

Unfinished find_unfinished(Context& context, const std::optional<Goal>& goal, const Settings& settings) {
  Unfinished found;
  auto holder = mutation_holder(context.paths());
  found.open = context.interrupted_switch().value_or(std::nullopt);
  const auto& open = found.open;
  // A row may have been opened by one that began since we looked.
  if (!holder && open) holder = mutation_holder(context.paths());
  if (holder) {
    found.described = describe_under_way(*holder, open);
  } else if (open) {
    const auto recovery = recovery_of(*open, settings);
    const auto words = in_words(*open, recovery);
    found.described = json::object{
        {"under_way", false}, {"id", open->id}, {"kind", open->kind}, {"text", words.text}, {"hint", words.hint}};
    found.interruption = Interruption{recovery.name, open->goal.exclusive ? open->goal : merged_goal(goal, open->goal),
                                      goal_of_repair(goal, recovery)};
  }
  return found;
}

std::optional<Goal> goal_with_change(std::optional<Goal> stored, const std::optional<StoredSwitch>& change) {
  if (!change) return stored;
  if (!stored) return change->goal;
  for (const auto& [id, residency] : change->goal.wanted)
    if (residency != Residency::stopped) stored->wanted[id] = residency;
  return stored;
}

json::array describe_deviations(Context& context, const std::optional<Goal>& goal, const Catalog& catalog) {
  json::array lines;
  if (deviations_of(goal, catalog, {}).empty()) return lines;  // the history need not be asked
  for (const auto& deviation : deviations_of(goal, catalog, context.changed_by_hand()))
    lines.push_back(
        json::object{{"service", deviation.service}, {"kind", to_string(deviation.kind)}, {"text", deviation.text}});
  return lines;
}

}  // namespace gpumod
