// The log of one start, followed from before its unit is started until it is ready or lost. Lines are judged as they
// come: a cause that nobody survives ends the start at once, whatever its process, its parent or its unit's own restart
// loop still does. Reading the log only once the process has ended lost: an API server that waits for its dead engine,
// or a unit that restarts itself, would cost a whole attempt more.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engines/engine.h"
#include "host/unit_manager.h"

namespace gpumod {

/// What is worth keeping of a failed start's log: the line that gave the cause ("" for none) and the last ones, oldest
/// first, printable, none longer than a few hundred characters.
std::vector<std::string> lines_that_matter(const std::vector<LogLine>& lines, std::string_view cause);

class StartLog {
 public:
  explicit StartLog(Service service) : service_(std::move(service)) {}

  /// From now on. A log that cannot be followed is no error: the start is then judged by its end.
  static std::shared_ptr<StartLog> follow(UnitManager& units, const std::string& unit, Service service);

  void take(const LogLine& line);
  /// The run that is being started, once it is known: lines that other runs wrote count for nothing.
  void expect_run(std::string invocation);
  /// Called whenever a line of the server's own was taken, our own questions in its access log left out.
  void on_line(std::function<void()> callback) { callback_ = std::move(callback); }

  /// The first cause, as soon as some line proves that the start is lost.
  const std::optional<FailureCause>& verdict() const { return verdict_; }
  /// Of this run, oldest first; of a long log the beginning and the end.
  const std::vector<LogLine>& lines() const { return lines_; }

 private:
  bool of_this_run(const LogLine& line) const;
  void judge(const LogLine& line);

  Service service_;
  std::string invocation_;
  std::string our_question_;  ///< "GET /health": how servers write our asking down
  std::vector<LogLine> lines_;
  std::optional<FailureCause> verdict_;
  std::function<void()> callback_;
  Registration following_;
};

}  // namespace gpumod
