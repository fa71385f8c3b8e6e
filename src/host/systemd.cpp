// The systemd user manager behind the UnitManager seam: transient units of ours, people's own units untouched.
//
// Only units that a caller names are started, stopped or signalled. All operations are free coroutines over a shared
// session, so that they outlive the object they were called on.
#include <algorithm>

#include <fmt/format.h>
#include <string.h>
#include <systemd/sd-bus.h>

#include "base/log.h"
#include "host/journal.h"
#include "host/local_state.h"
#include "host/processes.h"
#include "host/systemd_env_file.h"
#include "host/systemd_session.h"
#include "host/unit_manager.h"

namespace gpumod {

namespace {

using Session = std::shared_ptr<SystemdSession>;

template <typename... Values>
Result<BusMessage> manager_call(Bus& bus, const char* member, const char* signature, Values... values) {
  auto request = TRY(bus.method(manager_path, manager_interface, member));
  if (const int r = sd_bus_message_append(request.get(), signature, values...); r < 0)
    return fail(ErrorCode::failed, fmt::format("prepare {} for systemd: {}", member, ::strerror(-r)));
  return request;
}

std::filesystem::path environment_folder(const SystemdSession& session) {
  return session.paths.runtime / "env";
}

void remove_environment_file(const SystemdSession& session, const std::string& unit) {
  std::error_code ignored;
  std::filesystem::remove(environment_file_path(environment_folder(session), unit), ignored);
}

/// A unit as it stands just before a start.
struct Standing {
  UnitRow row;
  std::string fragment;
  bool transient = false;
  bool needs_reload = false;
};

Task<Result<Standing>> standing_of(std::shared_ptr<Bus> bus, std::string name) {
  const auto path = unit_object_path(name);
  const auto prepare = [&]() -> Result<std::vector<BusMessage>> {
    std::vector<BusMessage> list;
    list.push_back(TRY(manager_call(*bus, "ListUnitsByNames", "as", 1, name.c_str())));
    list.push_back(TRY(get_request(*bus, path, unit_interface, "FragmentPath")));
    list.push_back(TRY(get_request(*bus, path, unit_interface, "Transient")));
    list.push_back(TRY(get_request(*bus, path, unit_interface, "NeedDaemonReload")));
    return list;
  };
  auto requests = prepare();
  if (!requests) co_return fail(std::move(requests).error());
  const auto replies = co_await call_all(bus, std::move(*requests), systemd_call_timeout);
  if (!replies[0]) co_return fail(replies[0].error());
  auto rows = read_unit_rows(replies[0]->get());
  if (!rows) co_return fail(std::move(rows).error());
  if (rows->empty()) co_return fail(ErrorCode::failed, fmt::format("systemd says nothing about {}", name));
  Standing standing;
  standing.row = std::move(rows->front());
  standing.fragment = variant_string(replies[1]).value_or("");
  standing.transient = variant_bool(replies[2]).value_or(false);
  standing.needs_reload = variant_bool(replies[3]).value_or(false);
  co_return standing;
}

/// What is wrong with a unit that cannot be started at all.
Result<void> check_startable(const Standing& standing, const std::string& name) {
  const auto& load = standing.row.load;
  if (load == "masked")
    return fail(ErrorCode::configuration, fmt::format("{} is masked, so systemd refuses to start it", name),
                fmt::format("Run `systemctl --user unmask {}`.", name));
  if (load == "not-found") return fail(ErrorCode::not_found, fmt::format("there is no unit {}", name));
  if (load != "loaded")
    return fail(ErrorCode::configuration, fmt::format("systemd cannot load {} ({})", name, load),
                fmt::format("Run `systemctl --user status {}` to see what is wrong with {}.", name,
                            standing.fragment.empty() ? "it" : standing.fragment));
  return {};
}

/// The job that a reply names, waited for, and what then can be said.
Task<Result<UnitManager::StartOutcome>> finish_start(Session session, std::shared_ptr<Bus> bus, std::string name,
                                                     BusMessage reply) {
  const char* job = nullptr;
  if (sd_bus_message_read(reply.get(), "o", &job) <= 0)
    co_return fail(ErrorCode::failed, fmt::format("systemd's answer about starting {} names no job", name));
  std::string job_path(job);
  auto ended = co_await wait_for_job(session, bus, std::move(job_path), name);
  if (!ended) co_return fail(std::move(ended).error());
  UnitManager::StartOutcome outcome;
  outcome.job = std::move(*ended);
  if (auto request = get_request(*bus, unit_object_path(name), unit_interface, "InvocationID")) {
    const auto id = co_await call(bus, std::move(*request), systemd_call_timeout);
    outcome.invocation = variant_id(id).value_or("");
  }
  co_return outcome;
}

Task<Result<UnitManager::StartOutcome>> start_loaded(Session session, std::shared_ptr<Bus> bus, std::string name,
                                                     Standing standing) {
  if (auto startable = check_startable(standing, name); !startable) co_return fail(std::move(startable).error());
  if (standing.needs_reload)
    log_warning(
        "{} changed on disk since systemd read it: the old version is started. Run `systemctl --user daemon-reload`.",
        name);
  const bool failed = standing.row.active == "failed";
  const auto prepare = [&]() -> Result<std::vector<BusMessage>> {
    std::vector<BusMessage> list;
    if (failed) list.push_back(TRY(manager_call(*bus, "ResetFailedUnit", "s", name.c_str())));
    list.push_back(TRY(manager_call(*bus, "StartUnit", "ss", name.c_str(), "replace")));
    return list;
  };
  auto requests = prepare();
  if (!requests) co_return fail(std::move(requests).error());
  auto replies = co_await call_all(bus, std::move(*requests), systemd_call_timeout);
  if (!replies.back()) co_return fail(std::move(replies.back()).error());
  co_return co_await finish_start(std::move(session), std::move(bus), std::move(name), std::move(*replies.back()));
}

Task<Result<UnitManager::StartOutcome>> start_existing_unit(Session session, std::string name) {
  if (auto sane = check_unit_name(name); !sane) co_return fail(std::move(sane).error());
  auto connected = session->connection_with_signals();
  if (!connected) co_return fail(std::move(connected).error());
  auto standing = co_await standing_of(*connected, name);
  if (!standing) co_return fail(std::move(standing).error());
  co_return co_await start_loaded(session, *connected, name, std::move(*standing));
}

/// StartTransientUnit, again if the remains of a former run are in the way: systemd forgets a unit only some time after
/// reset-failed, and says so with UnitRemoved.
Task<Result<BusMessage>> create_transient(Session session, std::shared_ptr<Bus> bus, UnitSpec spec,
                                          std::filesystem::path environment_file, bool remains) {
  Signal forgotten(session->loop);
  Registration listening;
  constexpr int attempts = 5;
  for (int attempt = 1;; ++attempt) {
    const auto prepare = [&]() -> Result<std::vector<BusMessage>> {
      std::vector<BusMessage> list;
      if (remains) list.push_back(TRY(manager_call(*bus, "ResetFailedUnit", "s", spec.name.c_str())));
      list.push_back(TRY(transient_request(*bus, spec, environment_file)));
      return list;
    };
    auto requests = prepare();
    if (!requests) co_return fail(std::move(requests).error());
    auto replies = co_await call_all(bus, std::move(*requests), systemd_call_timeout);
    auto& reply = replies.back();
    if (reply) co_return std::move(*reply);
    if (bus_error_name(reply.error()) != "org.freedesktop.systemd1.UnitExists" || attempt == attempts)
      co_return fail(std::move(reply).error());
    remains = true;
    if (attempt == 1) {
      auto registered = bus->on_signal(manager_path, manager_interface, "UnitRemoved",
                                       [&forgotten, name = spec.name](sd_bus_message* signal) {
                                         const char* removed = nullptr;
                                         if (sd_bus_message_read(signal, "s", &removed) > 0 && name == removed)
                                           forgotten.set();
                                       });
      if (!registered) co_return fail(std::move(registered).error());
      listening = std::move(*registered);
    } else {
      co_await forgotten.wait(now() + 500ms);
      forgotten.reset();
    }
  }
}

Task<Result<UnitManager::StartOutcome>> start_unit(Session session, UnitSpec spec) {
  if (auto sane = check_unit_name(spec.name); !sane) co_return fail(std::move(sane).error());
  auto connected = session->connection_with_signals();
  if (!connected) co_return fail(std::move(connected).error());
  const auto bus = *connected;
  auto standing = co_await standing_of(bus, spec.name);
  if (!standing) co_return fail(std::move(standing).error());

  const auto& row = standing->row;
  if (row.load == "masked") co_return fail(check_startable(*standing, spec.name).error());
  const bool has_fragment = !standing->fragment.empty() && !standing->transient;
  if (has_fragment) {
    log_warning("{} exists as {}: that is started, not what the catalogue describes", spec.name, standing->fragment);
    auto outcome = co_await start_loaded(session, bus, spec.name, std::move(*standing));
    if (outcome) outcome->used_fragment = true;
    co_return outcome;
  }
  if (row.active != "inactive" && row.active != "failed")
    co_return fail(ErrorCode::failed, fmt::format("{} is already {} ({})", spec.name, row.active, row.sub),
                   "Stop it first: a running unit keeps the command line it was started with.");

  std::filesystem::path file;
  remove_environment_file(*session, spec.name);
  if (!spec.environment.empty()) {
    // It syncs the file, and the runtime directory may be on a slow disk. What the helper thread uses is its own: the
    // loop may end before the disk answers.
    struct Writing {
      std::filesystem::path folder;
      UnitSpec spec;
      Result<std::filesystem::path> written;
    };
    const auto writing = std::make_shared<Writing>();
    writing->folder = environment_folder(*session);
    writing->spec = spec;
    const std::function<void()> write = [writing] {
      writing->written = write_environment_file(writing->folder, writing->spec.name, writing->spec.environment);
    };
    co_await run_blocking(write);
    if (!writing->written) co_return fail(std::move(writing->written).error());
    file = std::move(*writing->written);
  }
  const bool remains = row.active == "failed";
  auto reply = co_await create_transient(session, bus, spec, file, remains);
  if (!reply) {
    remove_environment_file(*session, spec.name);
    co_return fail(std::move(reply).error());
  }
  auto outcome = co_await finish_start(session, bus, spec.name, std::move(*reply));
  if (outcome && !outcome->job.ok) remove_environment_file(*session, spec.name);
  co_return outcome;
}

Task<Result<JobOutcome>> stop_unit(Session session, std::string name) {
  if (auto sane = check_unit_name(name); !sane) co_return fail(std::move(sane).error());
  auto connected = session->connection_with_signals();
  if (!connected) co_return fail(std::move(connected).error());
  const auto bus = *connected;
  auto request = manager_call(*bus, "StopUnit", "ss", name.c_str(), "replace");
  if (!request) co_return fail(std::move(request).error());
  auto reply = co_await call(bus, std::move(*request), systemd_call_timeout);
  JobOutcome stopped{true, "done"};
  if (reply) {
    const char* job = nullptr;
    if (sd_bus_message_read(reply->get(), "o", &job) <= 0)
      co_return fail(ErrorCode::failed, fmt::format("systemd's answer about stopping {} names no job", name));
    std::string job_path(job);
    auto ended = co_await wait_for_job(session, bus, std::move(job_path), name);
    if (!ended) co_return fail(std::move(ended).error());
    stopped = std::move(*ended);
  } else if (reply.error().code != ErrorCode::not_found) {
    co_return fail(std::move(reply).error());
  }
  // Only now: ExecStop reads the file as well.
  if (stopped.ok) remove_environment_file(*session, name);
  co_return stopped;
}

Task<Result<void>> kill_unit(Session session, std::string name, int signal) {
  if (auto sane = check_unit_name(name); !sane) co_return fail(std::move(sane).error());
  auto connected = session->connection();
  if (!connected) co_return fail(std::move(connected).error());
  auto request = manager_call(**connected, "KillUnit", "ssi", name.c_str(), "all", signal);
  if (!request) co_return fail(std::move(request).error());
  auto reply = co_await call(*connected, std::move(*request), systemd_call_timeout);
  if (!reply) co_return fail(std::move(reply).error());
  co_return Result<void>();
}

/// A unit that is not there has not failed: ok.
Task<Result<void>> reset_failed_unit(Session session, std::string name) {
  if (auto sane = check_unit_name(name); !sane) co_return fail(std::move(sane).error());
  auto connected = session->connection();
  if (!connected) co_return fail(std::move(connected).error());
  auto request = manager_call(**connected, "ResetFailedUnit", "s", name.c_str());
  if (!request) co_return fail(std::move(request).error());
  auto reply = co_await call(*connected, std::move(*request), systemd_call_timeout);
  if (!reply && reply.error().code != ErrorCode::not_found) co_return fail(std::move(reply).error());
  co_return Result<void>();
}

/// Returns when every unit file has been read.
Task<Result<void>> reload_manager(Session session) {
  auto connected = session->connection();
  if (!connected) co_return fail(std::move(connected).error());
  auto request = (*connected)->method(manager_path, manager_interface, "Reload");
  if (!request) co_return fail(std::move(request).error());
  auto reply = co_await call(*connected, std::move(*request), systemd_call_timeout);
  if (!reply) co_return fail(std::move(reply).error());
  co_return Result<void>();
}

// --- proof of an end
// --------------------------------------------------------------------------------------------------

struct Process {
  pid_t pid = 0;
  Fd pidfd;
};

/// The processes among `pids` that live and are those we saw, not later ones that got the same number.
std::vector<Process> open_processes(const std::vector<pid_t>& pids, const SystemdSession::Seen& seen) {
  std::vector<Process> open;
  for (const pid_t pid : pids) {
    auto pidfd = open_pidfd(pid);
    if (!pidfd) continue;
    const auto info = process_info(pid);
    if (info && seen.pids.contains(pid) && info->start_ticks > seen.ticks) continue;
    open.push_back({pid, std::move(*pidfd)});
  }
  return open;
}

Task<Result<std::vector<pid_t>>> wait_until_gone(Session session, std::string name, std::vector<pid_t> pids,
                                                 TimePoint deadline) {
  const auto known = session->seen.find(name);
  const auto before = known == session->seen.end() ? SystemdSession::Seen{} : known->second;
  auto open = open_processes(pids, before);
  // The manager knows the cgroup while the unit is loaded; afterwards what was seen does, or the processes themselves.
  std::string group = before.control_group;
  const auto status = co_await unit_status(session, name);
  if (status && !status->control_group.empty()) group = status->control_group;
  for (const auto& process : open)
    if (const auto info = process_info(process.pid);
        group.empty() && info && unit_of_cgroup(info->control_group) == name)
      group = info->control_group;

  std::set<pid_t> alive;
  for (const auto& process : open) {
    const auto ended = co_await wait_process_end(process.pidfd, deadline);
    if (!ended) co_return fail(ended.error());
    if (!*ended) alive.insert(process.pid);
  }
  if (!group.empty()) {
    const auto empty = co_await wait_cgroup_empty(group, deadline);
    if (!empty) co_return fail(empty.error());
    if (!*empty)
      for (const pid_t pid : cgroup_pids(group))
        alive.insert(pid);
  }
  co_return std::vector<pid_t>(alive.begin(), alive.end());
}

// --- logs
// -------------------------------------------------------------------------------------------------------------

/// What the manager still knows of the run that is asked for.
Task<Result<JournalQuery>> describe_run(Session session, JournalQuery query) {
  auto connected = session->connection();
  if (!connected) co_return fail(std::move(connected).error());
  const auto bus = *connected;
  const auto path = unit_object_path(query.unit);
  const auto prepare = [&]() -> Result<std::vector<BusMessage>> {
    std::vector<BusMessage> list;
    list.push_back(TRY(manager_call(*bus, "ListUnitsByNames", "as", 1, query.unit.c_str())));
    list.push_back(TRY(get_request(*bus, path, unit_interface, "InvocationID")));
    list.push_back(TRY(get_request(*bus, path, service_interface, "ExecMainPID")));
    // Taken before the process is made; the timestamps of the state changes come after its first line may be written.
    list.push_back(TRY(get_request(*bus, path, unit_interface, "ConditionTimestamp")));
    return list;
  };
  auto requests = prepare();
  if (!requests) co_return fail(std::move(requests).error());
  const auto replies = co_await call_all(bus, std::move(*requests), systemd_call_timeout);
  if (!replies[0]) co_return fail(replies[0].error());
  auto rows = read_unit_rows(replies[0]->get());
  if (!rows) co_return fail(std::move(rows).error());
  const auto current = variant_id(replies[1]).value_or("");
  if (query.invocation.empty()) query.invocation = current;
  if (rows->empty() || current.empty()) {
    query.ended = true;  // already forgotten: perhaps only just now
    co_return query;
  }
  if (query.invocation != current) co_return query;
  const auto& row = rows->front();
  const bool between_runs = row.sub == "auto-restart" || row.sub == "auto-restart-queued";
  query.failed = row.active == "failed" || between_runs;
  query.ended = query.failed || row.active == "inactive";
  query.main_pid = static_cast<pid_t>(variant_number(replies[2]).value_or(0));
  if (const auto us = variant_number(replies[3]).value_or(0); us > 0)
    query.started = WallTime(std::chrono::microseconds(us));
  co_return query;
}

Task<Result<std::vector<LogLine>>> read_log(Session session, std::string name, std::string invocation,
                                            std::size_t limit) {
  if (auto sane = check_unit_name(name); !sane) co_return fail(std::move(sane).error());
  JournalQuery query;
  query.unit = name;
  query.invocation = invocation;
  query.limit = limit;
  // Without the manager the journal still knows the runs by their ids.
  auto described = co_await describe_run(session, query);
  if (described) query = std::move(*described);
  const auto lines = std::make_shared<Result<std::vector<LogLine>>>();
  const std::function<void()> read = [lines, query] { *lines = read_journal(query); };
  co_await run_blocking(read);
  co_return std::move(*lines);
}

// --- the seam
// ---------------------------------------------------------------------------------------------------------

class SystemdManager final : public UnitManager {
 public:
  explicit SystemdManager(Session session) : session_(std::move(session)) {}

  std::string_view kind() const override { return "systemd"; }
  Task<Result<std::vector<UnitStatus>>> survey(std::vector<std::string> names, SurveyDepth depth) override {
    return survey_units(session_, std::move(names), Discovery::everything_ours, depth);
  }
  Task<Result<UnitStatus>> status(std::string name) override { return unit_status(session_, std::move(name)); }
  std::string mark_of(pid_t pid) const override {
    // What a local supervisor started is none of this manager's, whoever asks.
    if (environment_of(pid, local::home_variable)) return {};
    return environment_of(pid, local::service_variable).value_or("");
  }
  Task<Result<StartOutcome>> start(UnitSpec spec) override { return start_unit(session_, std::move(spec)); }
  Task<Result<StartOutcome>> start_existing(std::string name) override {
    return start_existing_unit(session_, std::move(name));
  }
  Task<Result<JobOutcome>> stop(std::string name) override { return stop_unit(session_, std::move(name)); }
  Task<Result<void>> kill(std::string name, int signal) override {
    return kill_unit(session_, std::move(name), signal);
  }
  Task<Result<void>> reset_failed(std::string name) override { return reset_failed_unit(session_, std::move(name)); }
  Task<Result<void>> reload() override { return reload_manager(session_); }
  Task<Result<std::vector<pid_t>>> wait_gone(std::string name, std::vector<pid_t> pids, TimePoint deadline) override {
    return wait_until_gone(session_, std::move(name), std::move(pids), deadline);
  }
  Registration on_change(const std::string& name, std::function<void(const UnitStatus&)> callback) override {
    return session_->watch(name, std::move(callback));
  }
  Task<Result<std::vector<LogLine>>> log_tail(std::string name, std::string invocation, std::size_t limit) override {
    return read_log(session_, std::move(name), std::move(invocation), limit);
  }
  Result<Registration> follow_log(const std::string& name, std::function<void(const LogLine&)> callback,
                                  Duration lag) override {
    TRY(check_unit_name(name));
    return follow_journal(session_->loop, name, std::move(callback), lag);
  }

 private:
  Session session_;
};

}  // namespace

Result<std::unique_ptr<UnitManager>> connect_systemd(Loop& loop, const Paths& paths) {
  auto session = std::make_shared<SystemdSession>(loop, paths);
  TRY(session->connection());
  return std::make_unique<SystemdManager>(std::move(session));
}

}  // namespace gpumod
