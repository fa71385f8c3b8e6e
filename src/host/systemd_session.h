// Our standing with the systemd user manager: the connection, the jobs we wait for, the units somebody watches.
//
// A connection is lost when the manager re-executes itself (a package upgrade does that) or ends. What was pending
// fails; the next call connects again, and watched units are taken up again by themselves. Everything here is held by
// shared_ptr in every coroutine that uses it, so a UnitManager may go while calls of it are under way.
#pragma once

#include <deque>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "base/paths.h"
#include "host/sd_bus.h"
#include "host/systemd_unit.h"
#include "host/unit_manager.h"

namespace gpumod {

/// Every call to systemd has this deadline; job waits have none, because a unit may rightly take long to start, but ask
/// from time to time whether the job still exists.
inline constexpr Duration systemd_call_timeout = 20s;

class SystemdSession : public std::enable_shared_from_this<SystemdSession> {
 public:
  SystemdSession(Loop& event_loop, Paths where) : loop(event_loop), paths(std::move(where)) {}

  /// The connection, made anew if it was lost. Errors: environment.
  Result<std::shared_ptr<Bus>> connection();
  /// The same, and from now on the manager sends its signals over it: for whoever waits for a job or watches a unit.
  /// Without this a survey is not told of what it will not wait for.
  Result<std::shared_ptr<Bus>> connection_with_signals();

  /// A job's result, if it has ended: the signal may come before the reply that names the job.
  std::optional<std::string> job_result(const std::string& job) const;

  struct Watch {
    std::string name;
    std::function<void(const UnitStatus&)> callback;
    Registration listening;
    UnitStatus picture;  ///< what the signals have said so far
    std::deque<UnitStatus> undelivered;
    std::optional<UnitStatus> delivered;
    bool delivering = false;
    bool released = false;
  };
  Registration watch(const std::string& name, std::function<void(const UnitStatus&)> callback);

  /// What was last seen of a unit: its cgroup and pids outlive the unit itself, which systemd forgets once it is
  /// stopped.
  struct Seen {
    std::string control_group;
    std::set<pid_t> pids;
    std::uint64_t ticks = 0;  ///< since boot: a process that started later is not the one we saw
  };
  void remember(const UnitStatus& status);

  Loop& loop;
  const Paths paths;
  std::map<std::string, Seen> seen;
  std::set<Signal*> job_waiters;  ///< woken at each ended job, and when the connection is lost

 private:
  void lost();
  Result<void> subscribe();
  void listen(const std::shared_ptr<Watch>& watch);
  void changed(const std::shared_ptr<Watch>& watch);
  static Task<void> deliver(std::shared_ptr<SystemdSession> session, std::shared_ptr<Watch> watch);
  static Task<void> take_up_again(std::weak_ptr<SystemdSession> weak);

  std::shared_ptr<Bus> bus_;
  bool subscribed_ = false;  ///< over bus_
  Registration job_removed_;
  std::deque<std::pair<std::string, std::string>> ended_jobs_;  ///< (path, result), the newest last
  std::list<std::shared_ptr<Watch>> watches_;
};

/// Waits for the job's end, however long it takes. Errors: environment when the manager is lost or silent.
Task<Result<JobOutcome>> wait_for_job(std::shared_ptr<SystemdSession> session, std::shared_ptr<Bus> bus,
                                      std::string job, std::string unit);

/// Whether survey looks for units of ours beyond those named.
enum class Discovery { named_only, everything_ours };
Task<Result<std::vector<UnitStatus>>> survey_units(std::shared_ptr<SystemdSession> session,
                                                   std::vector<std::string> names, Discovery discovery,
                                                   SurveyDepth depth);
Task<Result<UnitStatus>> unit_status(std::shared_ptr<SystemdSession> session, std::string name);

}  // namespace gpumod
