#include "faults.h"

namespace gpumod::simulation {

namespace {

constexpr std::array<std::string_view, fault_count> names{
    "release_late",        "release_partial", "zombie_listed",   "survivor",       "unkillable",     "lying_health",
    "wrong_model",         "port_taken",      "start_job_fails", "dies_in_start",  "dies_transient", "never_ready",
    "dies_later",          "journal_silent",  "dbus_late",       "dbus_never",     "crash",          "power_cut",
    "journal_write_fails", "disk_full",       "second_writer",   "clock_jump",     "foreign_moves",  "foreign_grabs",
    "stale_event",         "stray_event",     "gpu_unreadable",  "unload_ignored", "keeps_memory",   "request_fails",
    "load_fails",          "cancel",          "restart_loop",    "hand",           "observe_fails",  "preflight_fails"};

}  // namespace

std::string_view to_string(Fault fault) {
  return names[static_cast<std::size_t>(fault)];
}

Weather::Weather(Random& random) {
  const int kind = random.below(100);
  if (kind < 12) return;
  const int faults = kind < 45 ? 1 : kind < 75 ? 2 : kind < 93 ? 4 : 9;
  for (int i = 0; i < faults; ++i)
    draw(static_cast<Fault>(random.below(fault_count)), random);
  fine_ = false;
}

bool Weather::only(Fault fault) const {
  for (std::size_t other = 0; other < permille_.size(); ++other)
    if ((permille_[other] > 0) != (other == static_cast<std::size_t>(fault))) return false;
  return true;
}

void Weather::draw(Fault fault, Random& random) {
  static constexpr std::array chances{60, 200, 450, 800};
  permille_[static_cast<std::size_t>(fault)] = chances[static_cast<std::size_t>(random.below(4))];
  // Some strike only where another has struck.
  switch (fault) {
    case Fault::unkillable: return draw(Fault::survivor, random);
    case Fault::journal_silent: return draw(random.percent(50) ? Fault::dies_later : Fault::dies_in_start, random);
    case Fault::stale_event: return draw(Fault::dies_transient, random);
    case Fault::restart_loop: return draw(Fault::dies_later, random);
    default: return;
  }
}

}  // namespace gpumod::simulation
