#include "host/systemd_session.h"

#include <algorithm>

#include <fmt/format.h>
#include <string.h>
#include <systemd/sd-bus.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "host/cgroup.h"
#include "host/processes.h"

namespace gpumod {

namespace {

constexpr std::size_t ended_jobs_kept = 256;

std::uint64_t ticks_since_boot() {
  timespec time{};
  ::clock_gettime(CLOCK_BOOTTIME, &time);
  const auto per_second = static_cast<std::uint64_t>(::sysconf(_SC_CLK_TCK));
  return static_cast<std::uint64_t>(time.tv_sec) * per_second +
         static_cast<std::uint64_t>(time.tv_nsec) * per_second / 1'000'000'000;
}

bool differs(const UnitStatus& a, const UnitStatus& b) {
  return a.active != b.active || a.sub_state != b.sub_state || a.result != b.result || a.restarts != b.restarts;
}

}  // namespace

Result<std::shared_ptr<Bus>> SystemdSession::connection() {
  if (bus_ && bus_->alive()) return bus_;
  bus_ = TRY(Bus::connect_user_manager(loop));
  subscribed_ = false;
  ended_jobs_.clear();
  bus_->on_lost([weak = weak_from_this()] {
    if (const auto self = weak.lock()) self->lost();
  });
  if (!watches_.empty()) TRY(subscribe());
  return bus_;
}

Result<std::shared_ptr<Bus>> SystemdSession::connection_with_signals() {
  auto bus = TRY(connection());
  TRY(subscribe());
  return bus;
}

Result<void> SystemdSession::subscribe() {
  if (subscribed_) return {};
  const auto weak = weak_from_this();
  auto job_removed = TRY(bus_->on_signal(manager_path, manager_interface, "JobRemoved", [weak](sd_bus_message* signal) {
    const auto self = weak.lock();
    std::uint32_t id = 0;
    const char *path = nullptr, *unit = nullptr, *result = nullptr;
    if (!self || sd_bus_message_read(signal, "uoss", &id, &path, &unit, &result) <= 0) return;
    self->ended_jobs_.emplace_back(path, result);
    if (self->ended_jobs_.size() > ended_jobs_kept) self->ended_jobs_.pop_front();
    for (auto* waiter : self->job_waiters)
      waiter->set();
  }));
  // Matches first, then Subscribe, then any job: the manager handles a connection's messages in order.
  bus_->send(TRY(bus_->method(manager_path, manager_interface, "Subscribe")));
  job_removed_ = std::move(job_removed);
  subscribed_ = true;
  for (const auto& watch : watches_)
    listen(watch);
  return {};
}

void SystemdSession::lost() {
  for (auto* waiter : job_waiters)
    waiter->set();
  if (!watches_.empty()) loop.spawn(take_up_again(weak_from_this()));
}

/// Nothing tells when a manager is back; so this asks, ever more rarely, as long as somebody watches a unit.
Task<void> SystemdSession::take_up_again(std::weak_ptr<SystemdSession> weak) {
  for (Duration pause = 100ms;; pause = std::min<Duration>(pause * 2, 5s)) {
    co_await wait_for(pause);
    const auto self = weak.lock();
    if (!self || self->watches_.empty()) co_return;
    if (auto bus = self->connection(); !bus) continue;
    const auto watches = self->watches_;
    for (const auto& watch : watches) {
      auto status = co_await unit_status(self, watch->name);
      if (!status || watch->released) continue;
      watch->picture = std::move(*status);
      self->changed(watch);
    }
    co_return;
  }
}

std::optional<std::string> SystemdSession::job_result(const std::string& job) const {
  for (const auto& [path, result] : ended_jobs_)
    if (path == job) return result;
  return std::nullopt;
}

void SystemdSession::remember(const UnitStatus& status) {
  if (status.control_group.empty()) return;
  seen[status.name] = {status.control_group, {status.pids.begin(), status.pids.end()}, ticks_since_boot()};
}

// --- watching
// ---------------------------------------------------------------------------------------------------------

Registration SystemdSession::watch(const std::string& name, std::function<void(const UnitStatus&)> callback) {
  auto watch = std::make_shared<Watch>();
  watch->name = name;
  watch->callback = std::move(callback);
  watch->picture.name = name;
  if (connection_with_signals()) listen(watch);
  watches_.push_back(watch);
  return Registration([weak = weak_from_this(), watch] {
    watch->released = true;
    watch->listening.release();
    if (const auto self = weak.lock()) self->watches_.remove(watch);
  });
}

void SystemdSession::listen(const std::shared_ptr<Watch>& watch) {
  const auto on_signal = [weak = weak_from_this(), weak_watch = std::weak_ptr(watch)](sd_bus_message* signal) {
    const auto self = weak.lock();
    const auto target = weak_watch.lock();
    if (!self || !target || target->released) return;
    if (apply_properties_changed(signal, target->picture)) self->changed(target);
  };
  auto listening =
      bus_->on_signal(unit_object_path(watch->name), "org.freedesktop.DBus.Properties", "PropertiesChanged", on_signal);
  if (listening)
    watch->listening = std::move(*listening);
  else
    log_warning("{}: changes of {} will not be seen", listening.error().message, watch->name);
}

void SystemdSession::changed(const std::shared_ptr<Watch>& watch) {
  const auto* last = !watch->undelivered.empty() ? &watch->undelivered.back()
                     : watch->delivered          ? &*watch->delivered
                                                 : nullptr;
  if (last && !differs(*last, watch->picture)) return;
  watch->undelivered.push_back(watch->picture);
  if (!watch->delivering) loop.spawn(deliver(shared_from_this(), watch));
  watch->delivering = true;
}

/// In order, one after the other: each state as the signal told it, with the cgroup and pids that no signal tells.
Task<void> SystemdSession::deliver(std::shared_ptr<SystemdSession> session, std::shared_ptr<Watch> watch) {
  while (!watch->released && !watch->undelivered.empty()) {
    auto status = std::move(watch->undelivered.front());
    watch->undelivered.pop_front();
    watch->delivered = status;
    const auto now_seen = co_await unit_status(session, watch->name);
    status.exists = true;
    if (now_seen) {
      status.exists = now_seen->exists;
      status.transient = now_seen->transient;
      status.fragment = now_seen->fragment;
      status.control_group = now_seen->control_group;
      status.tag = now_seen->tag;
      status.pids = now_seen->pids;
    }
    if (!watch->released) watch->callback(status);
  }
  watch->delivering = false;
}

// --- jobs
// -------------------------------------------------------------------------------------------------------------

Task<Result<JobOutcome>> wait_for_job(std::shared_ptr<SystemdSession> session, std::shared_ptr<Bus> bus,
                                      std::string job, std::string unit) {
  constexpr Duration doubt_after = 15s;
  Signal ended(session->loop);
  session->job_waiters.insert(&ended);
  const Registration forget([&] { session->job_waiters.erase(&ended); });
  bool vanished = false;
  for (;;) {
    if (auto result = session->job_result(job)) {
      JobOutcome outcome{*result == "done", *result};
      co_return outcome;
    }
    if (!bus->alive())
      co_return fail(ErrorCode::environment,
                     fmt::format("the connection to the systemd user manager was lost while it worked on {}", unit),
                     "Look at the unit's state again: the job may have gone on.");
    if (vanished)
      co_return fail(ErrorCode::failed, fmt::format("systemd forgot its job for {} without saying how it ended", unit),
                     "Look at the unit's state again.");
    ended.reset();
    const bool woken = co_await ended.wait(now() + doubt_after);
    if (woken) continue;
    auto request = get_request(*bus, job, "org.freedesktop.systemd1.Job", "State");
    if (!request) continue;
    const auto state = co_await call(bus, std::move(*request), systemd_call_timeout);
    if (!state && state.error().code == ErrorCode::environment && bus->alive()) co_return fail(state.error());
    vanished = !state && bus->alive();
  }
}

// --- survey
// -----------------------------------------------------------------------------------------------------------

namespace {

Result<BusMessage> by_names_request(Bus& bus, const std::vector<std::string>& names) {
  auto request = TRY(bus.method(manager_path, manager_interface, "ListUnitsByNames"));
  int r = sd_bus_message_open_container(request.get(), 'a', "s");
  for (const auto& name : names)
    if (r >= 0) r = sd_bus_message_append_basic(request.get(), 's', name.c_str());
  if (r >= 0) r = sd_bus_message_close_container(request.get());
  if (r < 0) return fail(ErrorCode::failed, fmt::format("prepare ListUnitsByNames: {}", ::strerror(-r)));
  return request;
}

Result<BusMessage> all_services_request(Bus& bus) {
  auto request = TRY(bus.method(manager_path, manager_interface, "ListUnitsByPatterns"));
  const int r = sd_bus_message_append(request.get(), "asas", 0, 1, "*.service");
  if (r < 0) return fail(ErrorCode::failed, fmt::format("prepare ListUnitsByPatterns: {}", ::strerror(-r)));
  return request;
}

Result<std::vector<BusMessage>> list_requests(Bus& bus, const std::vector<std::string>& names, Discovery discovery) {
  std::vector<BusMessage> requests;
  requests.push_back(TRY(by_names_request(bus, names)));
  if (discovery == Discovery::everything_ours) requests.push_back(TRY(all_services_request(bus)));
  return requests;
}

/// A unit whose details are asked for. A stranger is first asked for its tag alone.
struct Candidate {
  UnitStatus status;
  UnitRow row;
  SurveyDepth depth = SurveyDepth::everything;
  bool deferred = false;  ///< a look at its cgroup comes first: it may tell all that would be asked
};

UnitStatus status_of_row(const UnitRow& row) {
  UnitStatus status;
  status.name = row.name;
  status.exists = row.exists();
  status.active = active_state_of(row.active);
  status.sub_state = row.sub;
  return status;
}

Task<void> fill_details(std::shared_ptr<Bus> bus, std::vector<Candidate>& candidates) {
  struct Asked {
    UnitStatus* status;
    std::vector<std::size_t> properties;
  };
  std::vector<BusMessage> requests;
  std::vector<Asked> asked;
  std::vector<std::string> in_transition;
  std::vector<UnitStatus*> listed_again;
  for (auto& candidate : candidates) {
    if (!candidate.status.exists || candidate.deferred) continue;
    auto query = detail_query(*bus, candidate.row.path, candidate.status, candidate.depth);
    std::move(query.requests.begin(), query.requests.end(), std::back_inserter(requests));
    asked.push_back({&candidate.status, std::move(query.properties)});
    if (candidate.status.active == ActiveState::active || candidate.status.active == ActiveState::inactive) continue;
    in_transition.push_back(candidate.row.name);
    listed_again.push_back(&candidate.status);
  }
  // A unit on its way from one state to another may have gone on since the first listing: its state is asked again,
  // together with the rest, so that the picture is of one moment.
  if (!in_transition.empty())
    if (auto again = by_names_request(*bus, in_transition)) requests.push_back(std::move(*again));
  const auto replies = co_await call_all(bus, std::move(requests), systemd_call_timeout);
  std::size_t first = 0;
  for (const auto& [status, properties] : asked) {
    read_details(properties, replies, first, *status);
    first += properties.size();
  }
  if (first == replies.size() || !replies[first]) co_return;
  const auto rows = read_unit_rows(replies[first]->get());
  if (!rows || rows->size() != listed_again.size()) co_return;
  for (std::size_t i = 0; i < rows->size(); ++i) {
    listed_again[i]->active = active_state_of((*rows)[i].active);
    listed_again[i]->sub_state = (*rows)[i].sub;
  }
}

std::string group_told_by_kernel(const Candidate& candidate) {
  const auto pid = candidate.status.main_pid;
  return pid > 0 ? group_of_unit(control_group_of(pid), candidate.row.name) : std::string();
}

/// Units that run have their cgroups beside each other, and one process is all that most of them have: that is the main
/// one, and needs no asking. So systemd is asked for the main process of the first alone, and of those that the look at
/// their cgroups leaves unclear.
void defer_the_usual(std::vector<Candidate>& candidates) {
  bool first = true;
  for (auto& candidate : candidates)
    if (asks_little(candidate.status, candidate.depth)) candidate.deferred = !std::exchange(first, false);
}

Task<void> name_main_processes(std::shared_ptr<Bus> bus, std::vector<Candidate>& candidates,
                               const std::vector<CgroupMembers>& members) {
  std::vector<Candidate> unclear;
  std::vector<std::size_t> places;
  for (std::size_t i = 0; i < candidates.size(); ++i) {
    if (!std::exchange(candidates[i].deferred, false)) continue;
    if (members[i].pids.size() == 1) {
      candidates[i].status.main_pid = members[i].pids.front();
      continue;
    }
    places.push_back(i);
    unclear.push_back(candidates[i]);
  }
  if (unclear.empty()) co_return;
  co_await fill_details(std::move(bus), unclear);
  for (std::size_t i = 0; i < places.size(); ++i)
    candidates[places[i]] = std::move(unclear[i]);
}

/// The processes of all units, and the cgroup of those whose main process alone was asked for. Such a unit's cgroup is
/// the one of its name that lists its main process. It is looked for beside the last one found, then asked of the
/// kernel; where both fail (the process has ended meanwhile, or lives elsewhere), systemd tells.
Task<void> find_processes(std::shared_ptr<Bus> bus, std::vector<Candidate>& candidates) {
  std::string slice;
  std::vector<std::string> groups;
  for (auto& candidate : candidates) {
    auto& group = candidate.status.control_group;
    if (asks_little(candidate.status, candidate.depth)) {
      group = slice.empty() ? group_told_by_kernel(candidate) : slice + candidate.row.name;
      if (!group.empty()) slice = group.substr(0, group.size() - candidate.row.name.size());
    }
    groups.push_back(group);
  }
  auto members = cgroup_members(groups);
  co_await name_main_processes(bus, candidates, members);

  std::vector<Candidate> doubtful;
  std::vector<std::size_t> places;
  for (std::size_t i = 0; i < candidates.size(); ++i) {
    auto& candidate = candidates[i];
    auto& status = candidate.status;
    if (!asks_little(status, candidate.depth)) continue;
    if (std::binary_search(members[i].pids.begin(), members[i].pids.end(), status.main_pid)) continue;
    status.control_group = group_told_by_kernel(candidate);
    if (status.control_group.empty()) {
      places.push_back(i);
      doubtful.push_back(candidate);
      doubtful.back().depth = SurveyDepth::everything;
    } else {
      members[i] = cgroup_members({status.control_group}).front();
    }
  }
  if (!doubtful.empty()) co_await fill_details(std::move(bus), doubtful);
  for (std::size_t i = 0; i < places.size(); ++i) {
    candidates[places[i]] = std::move(doubtful[i]);
    members[places[i]] = cgroup_members({candidates[places[i]].status.control_group}).front();
  }
  for (std::size_t i = 0; i < candidates.size(); ++i) {
    candidates[i].status.pids = std::move(members[i].pids);
    candidates[i].status.control_group_id = members[i].id;
  }
}

}  // namespace

Task<Result<std::vector<UnitStatus>>> survey_units(std::shared_ptr<SystemdSession> session,
                                                   std::vector<std::string> names, Discovery discovery,
                                                   SurveyDepth depth) {
  std::erase_if(names, [](const auto& name) { return is_daemon_unit(name); });
  for (const auto& name : names)
    if (auto sane = check_unit_name(name); !sane) co_return fail(std::move(sane).error());
  auto connected = session->connection();
  if (!connected) co_return fail(std::move(connected).error());
  const auto bus = *connected;

  auto lists = list_requests(*bus, names, discovery);
  if (!lists) co_return fail(std::move(lists).error());
  const auto listed = co_await call_all(bus, std::move(*lists), systemd_call_timeout);
  for (const auto& reply : listed)
    if (!reply) co_return fail(reply.error());

  auto named = read_unit_rows(listed[0]->get());
  if (!named) co_return fail(std::move(named).error());
  if (named->size() != names.size())
    co_return fail(ErrorCode::failed,
                   fmt::format("systemd told of {} units when asked for {}", named->size(), names.size()));
  std::vector<Candidate> candidates;
  std::set<std::string> known;
  for (std::size_t i = 0; i < names.size(); ++i) {
    const auto& row = (*named)[i];
    known.insert(row.name);  // the real name, where people used an alias
    candidates.push_back({status_of_row(row), row, depth});
    candidates.back().status.name = names[i];
  }

  std::vector<Candidate> strangers;
  if (discovery == Discovery::everything_ours) {
    auto all = read_unit_rows(listed[1]->get());
    if (!all) co_return fail(std::move(all).error());
    for (const auto& row : *all) {
      if (known.contains(row.name) || is_daemon_unit(row.name) || !row.exists()) continue;
      if (is_named_ours(row.name))
        candidates.push_back({status_of_row(row), row, SurveyDepth::everything});
      else if (row.active != "inactive")
        strangers.push_back({status_of_row(row), row, SurveyDepth::everything});
    }
  }

  // The strangers' tags travel together with the details of ours: one round trip.
  std::vector<BusMessage> tag_requests;
  for (const auto& stranger : strangers)
    if (auto request = get_request(*bus, stranger.row.path, service_interface, "Environment"))
      tag_requests.push_back(std::move(*request));
  std::vector<Result<BusMessage>> tags;
  std::vector<Task<void>> both;
  const auto ask_tags = [](std::shared_ptr<Bus> over, std::vector<BusMessage> requests,
                           std::vector<Result<BusMessage>>& replies) -> Task<void> {
    replies = co_await call_all(std::move(over), std::move(requests), systemd_call_timeout);
  };
  defer_the_usual(candidates);
  both.push_back(fill_details(bus, candidates));
  both.push_back(ask_tags(bus, std::move(tag_requests), tags));
  co_await run_all(std::move(both));

  std::vector<Candidate> tagged;
  for (std::size_t i = 0; i < strangers.size() && i < tags.size(); ++i)
    if (!tag_in_environment(tags[i]).empty()) tagged.push_back(std::move(strangers[i]));
  co_await fill_details(bus, tagged);
  std::move(tagged.begin(), tagged.end(), std::back_inserter(candidates));
  co_await find_processes(bus, candidates);
  if (!bus->alive())
    co_return fail(ErrorCode::environment, "the connection to the systemd user manager was lost during a survey",
                   "Check `systemctl --user status`; the next command connects again.");

  std::vector<UnitStatus> statuses;
  for (auto& candidate : candidates) {
    session->remember(candidate.status);
    statuses.push_back(std::move(candidate.status));
  }
  co_return statuses;
}

Task<Result<UnitStatus>> unit_status(std::shared_ptr<SystemdSession> session, std::string name) {
  if (auto sane = check_unit_name(name); !sane) co_return fail(std::move(sane).error());
  std::vector<std::string> names;
  names.push_back(std::move(name));
  auto statuses =
      co_await survey_units(std::move(session), std::move(names), Discovery::named_only, SurveyDepth::everything);
  if (!statuses) co_return fail(std::move(statuses).error());
  co_return std::move(statuses->front());
}

}  // namespace gpumod
