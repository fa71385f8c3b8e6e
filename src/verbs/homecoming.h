// A run over several switches, a quality run or a bench, ends where it began, also when its worker is killed on the way:
// the goal it began with is kept in a file of the state folder until it was restored. Whoever brings things to order takes
// it from there.
#pragma once

#include <optional>
#include <string>

#include "base/paths.h"
#include "base/result.h"
#include "model/snapshot.h"

namespace gpumod {

struct Home {
  std::string kind;  ///< the verb that is to come back to it
  Goal goal;
};

/// Durable when it returns. Only for the holder of the mutation lock, as the next.
Result<void> remember_home(const Paths& paths, const Home& home);
void forget_home(const Paths& paths);
/// Nothing as well where it cannot be read.
std::optional<Home> home_of_cut_run(const Paths& paths);
/// "'qa run' was cut short; before it, mode code ran", with what to do.
std::string in_words(const Home& home);

}  // namespace gpumod
