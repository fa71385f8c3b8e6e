// The local supervisor: a unit manager made of files and shims. It keeps no state between two calls but who wants to be
// called back: every answer is read from the state files and checked against the living processes, so that a command
// that only looks and a worker that starts something never see two truths. Formats in local_state.h, the shim's life in
// shim.h, whose processes are whose in local_processes.h.
#include <algorithm>
#include <cerrno>
#include <set>

#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/text.h"
#include "host/local.h"
#include "host/local_launch.h"
#include "host/local_log.h"
#include "host/local_processes.h"
#include "host/local_state.h"
#include "host/local_watch.h"
#include "host/processes.h"

#if defined(__GNUC__) && !defined(__clang__)
// Sanitizer builds inline Asio's operator new into coroutines but not its operator delete, and GCC 12 takes that for a
// mismatch.
#pragma GCC diagnostic ignored "-Wmismatched-new-delete"
#endif

namespace gpumod::local {

namespace fs = std::filesystem;

namespace {

/// How long the kernel may take to end processes after SIGKILL (a driver may hold them in the kernel meanwhile).
constexpr Duration kill_patience = 30s;

using Marked = std::map<std::string, std::vector<pid_t>>;

/// What the files say, once checked against the processes.
struct Run {
  std::optional<RunState> state;  ///< of this boot; none: it never ran, or was reset
  bool shim_alive = false;

  bool lost() const { return state && !shim_alive && state->phase != Phase::ended; }
};

class LocalSupervisor final : public UnitManager {
 public:
  LocalSupervisor(Paths paths, std::string mark, std::string boot, std::vector<std::string> shim_command,
                  std::unique_ptr<Watcher> watcher)
      : paths_(std::move(paths)),
        units_(paths_.runtime / "local"),
        mark_(std::move(mark)),
        boot_(std::move(boot)),
        shim_command_(std::move(shim_command)),
        watcher_(std::move(watcher)) {}

  std::string_view kind() const override { return "local"; }
  Task<Result<std::vector<UnitStatus>>> survey(std::vector<std::string> names, SurveyDepth depth) override;
  Task<Result<UnitStatus>> status(std::string name) override;
  std::string mark_of(pid_t pid) const override {
    return environment_of(pid, home_variable) == mark_ ? environment_of(pid, service_variable).value_or("") : "";
  }
  Task<Result<StartOutcome>> start(UnitSpec spec) override;
  Task<Result<StartOutcome>> start_existing(std::string name) override;
  Task<Result<JobOutcome>> stop(std::string name) override;
  Task<Result<void>> kill(std::string name, int signal) override;
  Task<Result<void>> reset_failed(std::string name) override;
  Task<Result<void>> reload() override { co_return Result<void>(); }  // it has no unit files
  Task<Result<std::vector<pid_t>>> wait_gone(std::string name, std::vector<pid_t> pids, TimePoint deadline) override;
  Registration on_change(const std::string& name, std::function<void(const UnitStatus&)> callback) override;
  Task<Result<std::vector<LogLine>>> log_tail(std::string name, std::string invocation, std::size_t limit) override;
  Result<Registration> follow_log(const std::string& name, std::function<void(const LogLine&)> callback,
                                  Duration lag) override;

 private:
  struct ChangeWatch;

  fs::path directory_of(const std::string& name) const { return units_ / name; }
  Run look(const std::string& name) const;
  std::string tag_of(const std::string& name, const Run& run) const;
  UnitStatus describe(const std::string& name, const Run& run, const Marked& marked) const;
  UnitStatus observe(const std::string& name) const;
  std::vector<std::string> known_units() const;
  Result<LaunchSpec> launch_spec(const UnitSpec& spec) const;
  Task<bool> end_survivors(std::string tag, Duration patience);
  void changed(const std::shared_ptr<ChangeWatch>& watch);
  void watch_shim(const std::shared_ptr<ChangeWatch>& watch);

  Paths paths_;
  fs::path units_;
  std::string mark_;  ///< the value of GPUMOD_LOCAL
  std::string boot_;
  std::vector<std::string> shim_command_;
  std::unique_ptr<Watcher> watcher_;
};

Run LocalSupervisor::look(const std::string& name) const {
  Run run;
  const auto directory = directory_of(name);
  for (int attempt = 0; attempt < 2; ++attempt) {
    auto state = read_state(directory);
    if (!state && state.error().code != ErrorCode::not_found)
      log_warning("{}: {}", state_path(directory).string(), state.error().message);
    if (!state || state->boot != boot_ || state->unit != name) return Run{};
    run.state = std::move(*state);
    run.shim_alive = is_alive(run.state->shim);
    // A shim that ended between our two looks has left its last word meanwhile: read again before calling it lost.
    if (!run.lost()) break;
  }
  return run;
}

std::string LocalSupervisor::tag_of(const std::string& name, const Run& run) const {
  if (run.state) return run.state->tag;
  std::string_view tag = name;
  constexpr std::string_view prefix = "gpumod-";
  constexpr std::string_view suffix = ".service";
  if (tag.starts_with(prefix)) tag.remove_prefix(prefix.size());
  if (tag.ends_with(suffix)) tag.remove_suffix(suffix.size());
  return std::string(tag);
}

UnitStatus LocalSupervisor::describe(const std::string& name, const Run& run, const Marked& marked) const {
  UnitStatus status;
  status.name = name;
  status.sub_state = "dead";
  std::set<pid_t> pids;
  if (const auto survivors = marked.find(tag_of(name, run)); survivors != marked.end()) {
    pids.insert(survivors->second.begin(), survivors->second.end());
    status.tag = survivors->first;
  }
  if (run.state) {
    const auto& state = *run.state;
    if (run.shim_alive) {
      const auto descendants = live_descendants(state.shim.pid);
      pids.insert(descendants.begin(), descendants.end());
      pids.erase(state.shim.pid);
    }
    status.tag = state.tag;
    status.invocation = state.invocation;
    status.result = state.phase == Phase::ended ? state.result : "success";
    status.exit_code = state.exit_code;
    status.killed_by_signal = state.killed_by_signal;
    if (!state.main_ended && is_alive(state.main)) status.main_pid = state.main.pid;
    switch (state.phase) {
      case Phase::starting:
        status.active = ActiveState::activating;
        status.sub_state = "start";
        break;
      case Phase::running:
        status.active = ActiveState::active;
        status.sub_state = "running";
        // Its main process has ended, and the shim has not said so yet: whoever is left of it is about to be ended.
        if (status.main_pid == 0) {
          status.active = ActiveState::deactivating;
          status.sub_state = "stop-sigterm";
        }
        break;
      case Phase::stop_command:
        status.active = ActiveState::deactivating;
        status.sub_state = "stop";
        break;
      case Phase::stop_sigterm:
        status.active = ActiveState::deactivating;
        status.sub_state = "stop-sigterm";
        break;
      case Phase::stop_sigkill:
        status.active = ActiveState::deactivating;
        status.sub_state = "stop-sigkill";
        break;
      case Phase::ended: {
        const bool well = state.result == "success";
        status.active = well ? ActiveState::inactive : ActiveState::failed;
        status.sub_state = well ? "dead" : "failed";
        break;
      }
    }
    if (run.lost()) {
      status.active = ActiveState::failed;
      status.sub_state = "failed";
      status.result = "shim-lost";
    }
  }
  status.pids.assign(pids.begin(), pids.end());
  status.exists = run.state.has_value() || !status.pids.empty();
  status.transient = status.exists;
  return status;
}

UnitStatus LocalSupervisor::observe(const std::string& name) const {
  const Run run = look(name);
  // With a living shim every process is below it, and the long way through all of /proc can be saved.
  return describe(name, run, run.shim_alive ? Marked{} : marked_processes(mark_));
}

std::vector<std::string> LocalSupervisor::known_units() const {
  std::vector<std::string> names;
  std::error_code problem;
  for (fs::directory_iterator entry(units_, problem), end; !problem && entry != end; entry.increment(problem))
    if (auto name = entry->path().filename().string(); is_unit_name(name)) names.push_back(std::move(name));
  return names;
}

Task<Result<std::vector<UnitStatus>>> LocalSupervisor::survey(std::vector<std::string> names, SurveyDepth) {
  const Marked marked = marked_processes(mark_);
  std::set<std::string> asked(names.begin(), names.end());
  std::map<std::string, UnitStatus> found;
  std::set<std::string> tags;
  const auto add = [&](const std::string& name) {
    if (name == "gpumod.service" || name == "gpumod.socket" || found.contains(name)) return;
    const Run run = look(name);
    auto status = describe(name, run, marked);
    tags.insert(tag_of(name, run));
    // What ended well and is not asked for is of no interest: systemd forgets such units too.
    if (asked.contains(name) || status.active != ActiveState::inactive || !status.pids.empty())
      found.emplace(name, std::move(status));
  };
  for (const auto& name : asked)
    add(name);
  for (const auto& name : known_units())
    add(name);
  for (const auto& [tag, pids] : marked)
    if (!tags.contains(tag)) add(fmt::format("gpumod-{}.service", tag));
  std::vector<UnitStatus> statuses;
  for (auto& [name, status] : found)
    statuses.push_back(std::move(status));
  co_return statuses;
}

Task<Result<UnitStatus>> LocalSupervisor::status(std::string name) {
  co_return observe(name);
}

Result<LaunchSpec> LocalSupervisor::launch_spec(const UnitSpec& spec) const {
  if (!is_unit_name(spec.name))
    return fail(ErrorCode::failed, fmt::format("'{}' is not a name for a unit", printable(spec.name)));
  for (const auto* argv : {&spec.argv, &spec.stop_argv})
    if (!argv->empty() && !fs::path(argv->front()).is_absolute())
      return fail(ErrorCode::failed,
                  fmt::format("{}: the program '{}' is not an absolute path", spec.name, argv->front()));
  if (spec.argv.empty()) return fail(ErrorCode::failed, fmt::format("{}: there is no program to start", spec.name));
  LaunchSpec launch;
  launch.unit = spec.name;
  launch.tag = spec.tag;
  launch.invocation = new_invocation();
  launch.directory = directory_of(spec.name);
  launch.argv = spec.argv;
  launch.environment = service_environment(spec, paths_.home, mark_);
  launch.working_directory = spec.working_directory;
  if (launch.working_directory.empty()) {
    std::error_code problem;
    launch.working_directory = fs::is_directory(paths_.home, problem) ? paths_.home : fs::path("/");
  }
  launch.stop_argv = spec.stop_argv;
  launch.stop_timeout = spec.stop_timeout;
  return launch;
}

Task<Result<UnitManager::StartOutcome>> LocalSupervisor::start(UnitSpec spec) {
  auto launch = launch_spec(spec);
  if (!launch) co_return fail(launch.error());
  const auto made = make_directories(launch->directory);
  if (!made) co_return fail(made.error());

  const UnitStatus before = observe(spec.name);
  const auto busy = [&](std::string_view what, ErrorCode code = ErrorCode::failed) {
    return fail(code, fmt::format("{} {}", spec.name, what), "Stop it first, then start it.");
  };
  if (before.active == ActiveState::deactivating) co_return busy("is still stopping");
  if (before.active == ActiveState::activating) co_return busy("is already starting", ErrorCode::busy);
  if (before.active == ActiveState::active) co_return busy(fmt::format("runs already (process {})", before.main_pid));
  if (!before.pids.empty())
    co_return busy(fmt::format("has processes left from an earlier run ({})", fmt::join(before.pids, ", ")));

  StartOutcome outcome;
  outcome.invocation = launch->invocation;
  auto command = shim_command_;
  command.push_back(spec.name);
  const auto report = co_await launch_shim(std::move(command), std::move(*launch));
  if (!report) co_return fail(report.error());
  switch (report->kind) {
    case LaunchReport::Kind::started: outcome.job = JobOutcome{true, "done"}; break;
    case LaunchReport::Kind::program_failed: outcome.job = JobOutcome{false, "failed"}; break;
    case LaunchReport::Kind::busy: co_return fail(ErrorCode::busy, report->message, "Try again when that one is done.");
    case LaunchReport::Kind::failed:
      co_return fail(ErrorCode::failed, fmt::format("{}: {}", spec.name, report->message), report->hint);
  }
  co_return outcome;
}

Task<Result<UnitManager::StartOutcome>> LocalSupervisor::start_existing(std::string name) {
  co_return fail(
      ErrorCode::environment, fmt::format("{} is a systemd unit, and the local supervisor cannot start those", name),
      "Set unit_manager: systemd where a user manager runs, or take `unit:` out of the service so that gpumod "
      "starts it itself.");
}

/// SIGTERM, then SIGKILL, for processes whose shim is gone. True when none is left.
Task<bool> LocalSupervisor::end_survivors(std::string tag, Duration patience) {
  const TimePoint kill_at = now() + patience;
  const TimePoint give_up_at = kill_at + kill_patience;
  for (bool first = true; now() < give_up_at; first = false) {
    const auto marked = marked_processes(mark_);
    const auto pids = marked.find(tag);
    if (pids == marked.end()) co_return true;
    const bool killing = now() >= kill_at;
    std::vector<Fd> waiting;
    for (const pid_t pid : pids->second) {
      Fd pidfd = open_marked_process(pid, mark_, tag);
      if (!pidfd) continue;
      if (killing) {
        send_signal(pidfd, SIGKILL);
      } else if (first) {
        send_signal(pidfd, SIGTERM);
        send_signal(pidfd, SIGCONT);
      }
      waiting.push_back(std::move(pidfd));
    }
    const TimePoint deadline = killing ? give_up_at : kill_at;
    for (const auto& pidfd : waiting) {
      const auto ended = co_await wait_process_end(pidfd, deadline);
      if (!ended) co_return false;
    }
  }
  const auto left = marked_processes(mark_);
  co_return !left.contains(tag);
}

Task<Result<JobOutcome>> LocalSupervisor::stop(std::string name) {
  const Run run = look(name);
  const Duration patience = run.state ? run.state->stop_timeout : Duration(20s);
  if (run.shim_alive) {
    if (const Fd shim = open_process(run.state->shim)) {
      send_signal(shim, SIGTERM);
      send_signal(shim, SIGCONT);
      // stop_argv and SIGTERM may each take the whole stop_timeout.
      const TimePoint deadline = now() + patience * 2 + kill_patience;
      const auto ended = co_await wait_process_end(shim, deadline);
      if (!ended) co_return fail(ended.error());
      if (!*ended) co_return JobOutcome{false, "timeout"};
    }
  }
  const bool none_left = co_await end_survivors(tag_of(name, run), patience);
  co_return none_left ? JobOutcome{true, "done"} : JobOutcome{false, "timeout"};
}

Task<Result<void>> LocalSupervisor::kill(std::string name, int signal) {
  const Run run = look(name);
  const auto tag = tag_of(name, run);
  const UnitStatus status = observe(name);
  if (!status.exists) co_return fail(ErrorCode::not_found, fmt::format("there is no unit {}", name));
  for (const pid_t pid : status.pids) {
    if (run.shim_alive && signal_descendant(run.state->shim.pid, pid, signal)) continue;
    if (const Fd pidfd = open_marked_process(pid, mark_, tag)) send_signal(pidfd, signal);
  }
  co_return Result<void>();
}

Task<Result<void>> LocalSupervisor::reset_failed(std::string name) {
  const auto directory = directory_of(name);
  const Fd lock(::open(lock_path(directory).c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW));
  // Held: a shim lives, and the state is its own.
  if (!lock || ::flock(lock.get(), LOCK_EX | LOCK_NB) != 0) co_return Result<void>();
  if (::unlink(state_path(directory).c_str()) != 0 && errno != ENOENT)
    co_return fail(system_error(fmt::format("remove {}", state_path(directory).string()), errno));
  co_return Result<void>();
}

Task<Result<std::vector<pid_t>>> LocalSupervisor::wait_gone(std::string name, std::vector<pid_t> pids,
                                                            TimePoint deadline) {
  for (;;) {
    const Run run = look(name);
    const UnitStatus seen = observe(name);
    std::set<pid_t> wanted(pids.begin(), pids.end());
    wanted.insert(seen.pids.begin(), seen.pids.end());
    std::vector<std::pair<pid_t, Fd>> alive;
    for (const pid_t pid : wanted)
      if (auto pidfd = open_pidfd(pid); pidfd && !has_ended(*pidfd)) alive.emplace_back(pid, std::move(*pidfd));
    const bool nobody_left = alive.empty();
    // The shim ends right after the last of its processes; then the unit can be started again.
    if (nobody_left && run.shim_alive)
      if (Fd shim = open_process(run.state->shim)) alive.emplace_back(run.state->shim.pid, std::move(shim));
    if (alive.empty()) co_return std::vector<pid_t>();
    for (const auto& [pid, pidfd] : alive) {
      const auto ended = co_await wait_process_end(pidfd, deadline);
      if (!ended) co_return fail(ended.error());
    }
    if (nobody_left) co_return std::vector<pid_t>();
    std::vector<pid_t> left;
    for (const auto& [pid, pidfd] : alive)
      if (!has_ended(pidfd)) left.push_back(pid);
    if (!left.empty()) co_return left;
    // All of them ended: look again, they may have left children.
  }
}

struct LocalSupervisor::ChangeWatch {
  std::string name;
  std::function<void(const UnitStatus&)> callback;
  UnitStatus last;
  ProcessKey shim;
  Registration directory;
  Registration process;
};

void LocalSupervisor::watch_shim(const std::shared_ptr<ChangeWatch>& watch) {
  const Run run = look(watch->name);
  if (!run.shim_alive || run.state->shim == watch->shim) return;
  Fd pidfd = open_process(run.state->shim);
  if (!pidfd) return;
  watch->shim = run.state->shim;
  watch->process = watcher_->process(std::move(pidfd), [this, weak = std::weak_ptr(watch)] {
    if (const auto still = weak.lock()) changed(still);
  });
}

void LocalSupervisor::changed(const std::shared_ptr<ChangeWatch>& watch) {
  watch_shim(watch);
  const UnitStatus seen = observe(watch->name);
  const auto differs = [&](const UnitStatus& a, const UnitStatus& b) {
    return a.active != b.active || a.sub_state != b.sub_state || a.result != b.result || a.restarts != b.restarts ||
           a.invocation != b.invocation;
  };
  if (!differs(seen, watch->last)) return;
  watch->last = seen;
  watch->callback(seen);
}

Registration LocalSupervisor::on_change(const std::string& name, std::function<void(const UnitStatus&)> callback) {
  auto watch = std::make_shared<ChangeWatch>();
  watch->name = name;
  watch->callback = std::move(callback);
  const auto made = is_unit_name(name)
                        ? make_directories(directory_of(name))
                        : fail(ErrorCode::failed, fmt::format("'{}' is not a unit name", printable(name)));
  auto directory =
      !made ? Result<Registration>(fail(made.error()))
            : watcher_->directory(directory_of(name), [this, weak = std::weak_ptr(watch)](std::string_view file) {
                if (!file.empty() && file != "state.json") return;
                if (const auto still = weak.lock()) changed(still);
              });
  if (!directory) {
    log_warning("cannot watch {}: {}", name, directory.error().message);
    return {};
  }
  watch->directory = std::move(*directory);
  // Looked at after the watch stands, so that nothing can change unseen in between.
  watch->last = observe(name);
  watch_shim(watch);
  return Registration([watch]() mutable { watch.reset(); });
}

Task<Result<std::vector<LogLine>>> LocalSupervisor::log_tail(std::string name, std::string invocation,
                                                             std::size_t limit) {
  if (!is_unit_name(name)) co_return std::vector<LogLine>();
  if (invocation.empty())
    if (const Run run = look(name); run.state) invocation = run.state->invocation;
  co_return read_log_tail(directory_of(name), std::move(invocation), limit);
}

Result<Registration> LocalSupervisor::follow_log(const std::string& name, std::function<void(const LogLine&)> callback,
                                                 Duration) {
  if (!is_unit_name(name)) return fail(ErrorCode::failed, fmt::format("'{}' is not a unit name", printable(name)));
  const auto directory = directory_of(name);
  TRY(make_directories(directory));
  auto follower = std::make_shared<LogFollower>(directory);
  auto alive = std::make_shared<bool>(true);
  auto registration =
      TRY(watcher_->directory(directory, [follower, alive, callback = std::move(callback)](std::string_view file) {
        if (!file.empty() && file != "log") return;
        for (const auto& line : follower->read_new()) {
          if (!*alive) return;
          callback(line);
        }
      }));
  return Registration([alive, inner = std::make_shared<Registration>(std::move(registration))] {
    *alive = false;
    inner->release();
  });
}

/// Where the directory may lie in /tmp, somebody else may have made it first.
Result<void> check_private(const fs::path& directory) {
  struct stat info {};
  if (::lstat(directory.c_str(), &info) != 0)
    return fail(system_error(fmt::format("stat {}", directory.string()), errno));
  if (!S_ISDIR(info.st_mode) || info.st_uid != ::geteuid() || (info.st_mode & S_IWOTH) != 0)
    return fail(ErrorCode::environment,
                fmt::format("{} is not a directory of ours that strangers cannot write to", directory.string()),
                "Remove it, or set GPUMOD_RUNTIME_DIR to a directory of your own.");
  return {};
}

}  // namespace

Result<std::unique_ptr<UnitManager>> open_supervisor(Loop& loop, const Paths& paths,
                                                     std::vector<std::string> shim_command) {
  TRY(make_own_directory(paths.runtime / "local", "GPUMOD_RUNTIME_DIR"));
  TRY(check_private(paths.runtime));
  TRY(check_private(paths.runtime / "local"));
  // One spelling of the directory, whatever links lead to it: it marks our processes.
  std::error_code problem;
  const auto mark = fs::canonical(paths.runtime, problem);
  if (problem) return fail(ErrorCode::environment, fmt::format("{}: {}", paths.runtime.string(), problem.message()));
  auto boot = TRY(boot_id());
  auto watcher = TRY(Watcher::create(loop));
  return std::unique_ptr<UnitManager>(std::make_unique<LocalSupervisor>(paths, mark.string(), std::move(boot),
                                                                        std::move(shim_command), std::move(watcher)));
}

}  // namespace gpumod::local

namespace gpumod {

Result<std::unique_ptr<UnitManager>> open_local_supervisor(Loop& loop, const Paths& paths) {
  // The link, not the path behind it: an upgrade may have replaced our file meanwhile.
  return local::open_supervisor(loop, paths, {"/proc/self/exe", "shim"});
}

}  // namespace gpumod
