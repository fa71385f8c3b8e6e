#include "control/observe.h"

#include <algorithm>
#include <deque>
#include <set>

#include <fmt/format.h>
#include <unistd.h>

#include "base/text.h"
#include "control/launched.h"
#include "control/progress.h"
#include "engines/engine.h"
#include "host/containers.h"
#include "host/processes.h"

namespace gpumod {

namespace {

/// For a container's runtime to tell an id; it is asked only while a process of a container is on a GPU.
constexpr Duration container_timeout = 500ms;

/// Since when a process runs; nothing when it has ended.
std::optional<Duration> age_of(pid_t pid) {
  const auto info = process_info(pid);
  const auto uptime = read_pseudo_file("/proc/uptime");
  if (!info || !uptime) return std::nullopt;
  const double up = std::strtod(uptime->c_str(), nullptr);
  const double began = static_cast<double>(info->start_ticks) / static_cast<double>(::sysconf(_SC_CLK_TCK));
  return std::chrono::duration_cast<Duration>(std::chrono::duration<double>(std::max(0.0, up - began)));
}

Task<void> sample_gpus(Machine& machine, Snapshot& snapshot) {
  if (!machine.gpus) {
    snapshot.gpu_problem = machine.gpu_problem;
    co_return;
  }
  auto sample = co_await machine.gpus->sample();
  if (sample)
    snapshot.gpus = std::move(*sample);
  else
    snapshot.gpu_problem = std::move(sample).error();
}

Task<void> ask_for_id(std::string name, std::optional<std::string>& id) {
  id = co_await container_id(std::move(name), container_timeout);
}

/// The containers that services of these units declare, by their ids, each with its unit. All are asked for beside each
/// other: a runtime that hangs costs its time once. `only_unit`: null for all.
Task<std::map<std::string, std::string>> find_containers(const Catalog& catalog, const std::string* only_unit) {
  struct Declared {
    std::string unit;
    std::optional<std::string> id;
  };
  std::deque<Declared> declared;
  std::vector<Task<void>> asking;
  for (const auto& [id, service] : catalog.services) {
    if (!service.command() || service.command()->container.empty()) continue;
    if (only_unit && service.unit_name() != *only_unit) continue;
    declared.push_back({service.unit_name(), {}});
    asking.push_back(ask_for_id(service.command()->container, declared.back().id));
  }
  co_await run_all(std::move(asking));
  std::map<std::string, std::string> unit_of_container;
  for (auto& each : declared)
    if (each.id) unit_of_container[*each.id] = std::move(each.unit);
  co_return unit_of_container;
}

/// A container's processes are not below its unit but in a cgroup of their own, and NVML lists them by the host's pids
/// all the same. They are the unit's also once that has ended: a container that outlives it is no stranger's.
Task<void> claim_containers(const Catalog& catalog, const std::map<std::string, std::vector<pid_t>>& pids_of_container,
                            Snapshot& snapshot) {
  const auto unit_of_container = co_await find_containers(catalog, nullptr);
  for (const auto& [container, unit] : unit_of_container) {
    const auto found = pids_of_container.find(container);
    if (found == pids_of_container.end()) continue;
    for (const auto pid : found->second)
      snapshot.unit_of_pid[pid] = unit;
  }
}

/// Who the processes are that NVML lists, and whose they are where no unit of ours holds them.
Task<void> see_clients(Machine& machine, const Catalog& catalog, Snapshot& snapshot) {
  std::map<std::string, std::vector<pid_t>> pids_of_container;
  for (const auto& gpu : snapshot.gpus) {
    for (const auto& process : gpu.processes) {
      const auto [place, added] = snapshot.clients.try_emplace(process.pid);
      if (!added) continue;
      const auto info = process_info(process.pid);
      if (!info) continue;
      auto& client = place->second;
      client.command = printable(info->command);
      client.user = info->user;
      if (snapshot.unit_of_pid.contains(process.pid)) continue;
      client.tag = machine.units->mark_of(process.pid);
      if (const auto container = container_of_cgroup(info->control_group); client.tag.empty() && !container.empty())
        pids_of_container[container].push_back(process.pid);
    }
  }
  if (!pids_of_container.empty()) co_await claim_containers(catalog, pids_of_container, snapshot);
}

/// Who holds the ports of the catalogue. The processes of our units are looked at first, and only if they do not
/// account for every listener all others are.
void find_ports(const Catalog& catalog, Snapshot& snapshot) {
  std::map<std::uint16_t, std::set<std::string>> units_of_port;
  for (const auto& [id, service] : catalog.services)
    if (service.port != 0) units_of_port[service.port].insert(service.unit_name());
  std::vector<std::uint16_t> ports;
  for (const auto& [port, units] : units_of_port)
    ports.push_back(port);
  LikelyHolders ours;
  std::map<std::uint64_t, const std::string*> unit_of_group;
  for (const auto& [name, unit] : snapshot.units) {
    if (unit.control_group_id == 0) continue;
    unit_of_group[unit.control_group_id] = &name;
    ours.known.insert(unit.control_group_id);
  }
  for (const auto& [pid, unit] : snapshot.unit_of_pid)
    ours.pids.push_back(pid);

  for (const auto& listener : listeners_on(ports, ours)) {
    PortHolder holder;
    holder.port = listener.port;
    if (!listener.pids.empty()) holder.pid = listener.pids.front();
    for (const auto pid : listener.pids) {
      const auto found = snapshot.unit_of_pid.find(pid);
      if (found == snapshot.unit_of_pid.end()) continue;
      holder.unit = found->second;
      holder.pid = pid;
      break;
    }
    if (const auto found = unit_of_group.find(listener.control_group_id); found != unit_of_group.end()) {
      holder.unit = *found->second;
      holder.pid = snapshot.units[holder.unit].main_pid;
    }
    const auto& expected = units_of_port[listener.port];
    const bool as_declared = expected.size() == 1 && expected.contains(holder.unit);
    if (holder.pid != 0 && !as_declared) {
      if (const auto info = process_info(holder.pid)) {
        holder.command = info->command;
        holder.user = info->user;
      }
    }
    if (holder.user.empty()) holder.user = fmt::format("{}", listener.uid);
    snapshot.ports.push_back(std::move(holder));
  }
}

const PortHolder* holder_of(const Snapshot& snapshot, std::uint16_t port) {
  const auto found = std::find_if(snapshot.ports.begin(), snapshot.ports.end(),
                                  [&](const PortHolder& holder) { return holder.port == port; });
  return found == snapshot.ports.end() ? nullptr : &*found;
}

/// A unit that runs but does not answer (yet): starting while it is young, failed afterwards.
void not_answering(const Service& service, const UnitStatus& unit, const std::string& reason, ServiceView& view) {
  const auto age = unit.main_pid > 0 ? age_of(unit.main_pid) : std::nullopt;
  if (age && *age > slow_start_factor * service.startup_timeout) {
    view.residency = Residency::failed;
    view.detail = fmt::format("runs for {} but does not answer: {}", format_seconds(*age), reason);
  } else {
    view.residency = Residency::starting;
    view.detail = reason;
  }
}

Task<void> ask_server(Machine& machine, const Service& service, const UnitStatus& unit, ServiceView& view) {
  const Engine& engine = engine_for(service.engine);
  auto request = engine.readiness_request(service);
  if (request) {
    request->timeout = observe_timeout;
    const HttpRequest question = *request;
    const auto reply = co_await machine.http->request(question);
    if (!reply) {
      not_answering(service, unit, reply.error().message, view);
      co_return;
    }
    const auto verdict = engine.judge_readiness(service, *reply);
    if (verdict.state != ReadinessVerdict::State::ready) {
      if (verdict.state == ReadinessVerdict::State::failed) {
        view.residency = Residency::failed;
        view.detail = verdict.reason;
      } else {
        not_answering(service, unit, verdict.reason, view);
      }
      co_return;
    }
  }
  view.residency = Residency::running;
  auto residency_request = engine.residency_request(service);
  if (!residency_request) co_return;
  residency_request->timeout = observe_timeout;
  const HttpRequest question = *residency_request;
  const auto reply = co_await machine.http->request(question);
  if (!reply) {
    view.residency = Residency::failed;
    view.detail = reply.error().message;
    co_return;
  }
  const auto residency = engine.judge_residency(service, *reply);
  if (residency) {
    view.residency = *residency;
    if (*residency == Residency::failed) view.detail = engine.failure_reason(service, *reply);
  } else {
    view.residency = Residency::failed;
    view.detail = residency.error().message;
  }
}

Task<void> view_service(Machine& machine, const Service& service, const Snapshot& snapshot, ServiceView& view) {
  const auto found = snapshot.units.find(service.unit_name());
  if (found == snapshot.units.end() || found->second.gone()) {
    view.residency = Residency::stopped;
    if (found != snapshot.units.end() && found->second.active == ActiveState::failed) {
      view.residency = Residency::failed;
      view.detail = how_it_ended(found->second);
    }
    co_return;
  }
  const UnitStatus& unit = found->second;
  if (unit.restarting()) {
    view.residency = Residency::failed;
    view.detail = fmt::format("its unit restarts again and again ({}; {})", counted(unit.restarts, "restart"),
                              how_it_ended(unit));
    co_return;
  }
  if (unit.active == ActiveState::deactivating) {
    view.residency = Residency::stopping;
    co_return;
  }
  if (unit.active == ActiveState::inactive || unit.active == ActiveState::failed) {
    view.residency = Residency::failed;
    view.detail = fmt::format("its unit has ended, but {} of its processes survive", unit.pids.size());
    co_return;
  }
  if (service.port != 0) {
    const auto* holder = holder_of(snapshot, service.port);
    const bool in_container = service.command() && !service.command()->container.empty();
    if (holder && holder->unit != unit.name && holder->pid != 0 && !in_container) {
      view.residency = Residency::failed;
      view.detail =
          fmt::format("port {} is answered by pid {} ({}), not by it", service.port, holder->pid, holder->command);
      co_return;
    }
    if (!holder) {
      not_answering(service, unit,
                    snapshot.outdated.contains(unit.name)
                        ? fmt::format("it runs with older settings, and does not listen on port {}", service.port)
                        : fmt::format("nothing listens on port {}", service.port),
                    view);
      co_return;
    }
  }
  co_await ask_server(machine, service, unit, view);
}

Task<void> survey_units(Machine& machine, std::vector<std::string> units, SurveyDepth depth, Snapshot& snapshot,
                        Result<void>& outcome) {
  auto surveyed = co_await machine.units->survey(std::move(units), depth);
  if (!surveyed) {
    outcome = fail(surveyed.error());
    co_return;
  }
  for (auto& unit : *surveyed) {
    std::string name = unit.name;
    snapshot.units[std::move(name)] = std::move(unit);
  }
}

std::vector<std::string> units_of(const Catalog& catalog) {
  std::set<std::string> names;
  for (const auto& [id, service] : catalog.services)
    names.insert(service.unit_name());
  return {names.begin(), names.end()};
}

void join_units(Snapshot& snapshot) {
  for (const auto& [name, unit] : snapshot.units)
    for (const auto pid : unit.pids)
      snapshot.unit_of_pid[pid] = name;
}

/// Units, their processes, and what NVML says.
Task<Result<void>> look(Machine& machine, const Catalog& catalog, SurveyDepth depth, Snapshot& snapshot) {
  Result<void> outcome;
  std::vector<Task<void>> looking;
  looking.push_back(survey_units(machine, units_of(catalog), depth, snapshot, outcome));
  looking.push_back(sample_gpus(machine, snapshot));
  co_await run_all(std::move(looking));
  join_units(snapshot);
  co_return outcome;
}

}  // namespace

Task<std::set<std::string>> containers_of(const Catalog& catalog, std::string unit) {
  std::set<std::string> ids;
  const auto found = co_await find_containers(catalog, &unit);
  for (const auto& [id, owner] : found)
    ids.insert(id);
  co_return ids;
}

Task<Result<Snapshot>> observe_memory(Machine& machine, const Catalog& catalog, SurveyDepth depth) {
  Snapshot snapshot;
  const auto looked = co_await look(machine, catalog, depth, snapshot);
  if (!looked) co_return fail(looked.error());
  co_await see_clients(machine, catalog, snapshot);
  co_return snapshot;
}

Task<Result<std::map<pid_t, std::string>>> units_of_processes(Machine& machine, const Catalog& catalog,
                                                              std::vector<GpuSample> gpus) {
  Snapshot snapshot;
  snapshot.gpus = std::move(gpus);
  Result<void> outcome;
  co_await survey_units(machine, units_of(catalog), SurveyDepth::presence, snapshot, outcome);
  if (!outcome) co_return fail(outcome.error());
  join_units(snapshot);
  co_await see_clients(machine, catalog, snapshot);
  co_return std::move(snapshot.unit_of_pid);
}

Task<Result<Snapshot>> observe(Machine& machine, const Catalog& catalog, SurveyDepth depth) {
  Snapshot snapshot;
  const auto looked = co_await look(machine, catalog, depth, snapshot);
  if (!looked) co_return fail(looked.error());
  find_ports(catalog, snapshot);
  for (const auto& [name, unit] : snapshot.units)
    if (is_outdated(machine.paths, catalog, unit)) snapshot.outdated.insert(name);

  std::vector<Task<void>> asking;
  for (const auto& [id, service] : catalog.services) {
    auto& view = snapshot.services[id];
    view.id = id;
    view.unit = service.unit_name();
    asking.push_back(view_service(machine, service, snapshot, view));
  }
  asking.push_back(see_clients(machine, catalog, snapshot));  // last: the servers think about their answers meanwhile
  co_await run_all(std::move(asking));
  co_return snapshot;
}

}  // namespace gpumod
