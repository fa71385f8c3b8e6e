// What is under way, or was left half-done: who does what, since when, and what becomes of it. For the verbs that show
// it; it changes nothing.
#pragma once

#include <optional>

#include <boost/json/array.hpp>
#include <boost/json/value.hpp>

#include "verbs/context.h"
#include "verbs/drift.h"

namespace gpumod {

struct Unfinished {
  /// null when there is nothing;
  /// {"under_way":true,"id","verb","pid","since","seconds"}: "id" is null before the first step of its switch;
  /// {"under_way":false,"id","kind","text","hint"}: interrupted, in words, and what to do about it.
  boost::json::value described;
  std::optional<StoredSwitch> open;          ///< of the journal, under way or interrupted
  std::optional<Interruption> interruption;  ///< only of one that was interrupted
};

/// What else people should know of the state: that it cannot be read, or that a run over many switches was cut short.
boost::json::array notes_on_state(Context& context);

/// `goal`: what is stored.
Unfinished find_unfinished(Context& context, const std::optional<Goal>& goal, const Settings& settings);

/// What is said of an interrupted switch: what happened, and what to do about it.
struct InterruptedWords {
  std::string text;
  std::string hint;
};
InterruptedWords in_words(const StoredSwitch& stored, const Recovery& recovery);

/// What repair brings about: the stored goal, unless an interrupted switch is to be finished first. Unset: there is
/// nothing to go by.
std::optional<Goal> goal_of_repair(const std::optional<Goal>& stored, const std::optional<Recovery>& left);

/// What is wanted while a change is under way, or was interrupted: also what it is about to bring, so that nothing of it
/// passes for an orphan until it is done.
std::optional<Goal> goal_with_change(std::optional<Goal> stored, const std::optional<StoredSwitch>& change);

/// [{"service","kind","text"}]: how the goal differs from its mode.
boost::json::array describe_deviations(Context& context, const std::optional<Goal>& goal, const Catalog& catalog);

}  // namespace gpumod
