#include "verbs/describe.h"

#include <fmt/format.h>

#include "model/json.h"

namespace gpumod {

namespace json = boost::json;

json::object describe_declared(const Service& service) {
  return {{"id", service.id},
          {"name", service.name},
          {"engine", to_string(service.engine)},
          {"port", service.port ? json::value(service.port) : json::value(nullptr)},
          {"unit", service.unit_name()},
          {"adopted", !service.unit.empty()},
          {"router", service.router.empty() ? json::value(nullptr) : json::value(service.router)},
          {"vram", bytes_or_null(service.vram)},
          {"sleep", to_string(service.sleep)},
          {"source", to_string(service.source)}};
}

void describe_observed(json::object& line, const Service& service, const Snapshot& snapshot) {
  line["state"] = "unknown";
  if (const auto view = snapshot.services.find(service.id); view != snapshot.services.end()) {
    line["state"] = to_string(view->second.residency);
    line["detail"] = view->second.detail;
  }
  line["outdated"] = snapshot.outdated.contains(service.unit_name());
  line["pid"] = nullptr;
  if (const auto unit = snapshot.units.find(service.unit_name()); unit != snapshot.units.end()) {
    if (unit->second.main_pid > 0) line["pid"] = unit->second.main_pid;
    std::optional<Bytes> used;
    if (!snapshot.gpus.empty()) used = Bytes();
    for (const auto& gpu : snapshot.gpus) {
      const auto held = held_by_unit(snapshot, unit->first, gpu);
      used = used && held ? std::optional(*used + *held) : std::nullopt;
    }
    line["vram_used"] = bytes_or_null(used);
  } else {
    line["vram_used"] = nullptr;
  }
}

json::array describe_problems(const Catalog& catalog) {
  json::array lines;
  for (const auto& problem : catalog.problems)
    lines.push_back(json::object{{"severity", problem.severity == Severity::error ? "error" : "warning"},
                                 {"where", to_string(problem.where)},
                                 {"message", problem.message},
                                 {"hint", problem.hint}});
  return lines;
}

json::array describe_orphans(const Snapshot& snapshot, const Catalog& catalog) {
  std::set<std::string> declared;
  for (const auto& [id, service] : catalog.services)
    declared.insert(service.unit_name());
  json::array lines;
  for (const auto& [name, unit] : snapshot.units) {
    if (unit.gone() || declared.contains(name)) continue;
    const auto fault = catalog.service_faults.find(unit.tag);
    const bool broken = runs_without_its_file(unit, catalog);
    lines.push_back(
        json::object{{"unit", name},
                     {"tag", unit.tag},
                     {"state", to_string(unit.active)},
                     {"pids", json::value_from(unit.pids)},
                     {"broken_file", broken ? json::value(to_string(fault->second)) : json::value(nullptr)}});
  }
  return lines;
}

json::array describe_differences(const std::vector<Difference>& differences) {
  json::array lines;
  for (const auto& difference : differences)
    lines.push_back(json::object{{"service", difference.service},
                                 {"kind", to_string(difference.kind)},
                                 {"wanted", difference.wanted},
                                 {"is", to_string(difference.is)},
                                 {"text", difference.text},
                                 {"repair_mends", difference.repair_mends}});
  return lines;
}

namespace {

json::object describe_holding(const Holding& holding) {
  json::array processes;
  for (const auto& process : holding.processes)
    processes.push_back(json::object{{"pid", process.pid}, {"used", bytes_or_null(process.used)}});
  return {{"holder", to_string(holding.kind)},
          {"why", text_or_null(to_string(holding.why))},
          {"name", holding.name},
          {"services", json::value_from(holding.services)},
          {"unit", text_or_null(holding.unit)},
          {"user", text_or_null(holding.user)},
          {"used", holding.used.count()},
          {"complete", holding.complete},
          {"processes", std::move(processes)}};
}

json::object describe_account(const Account& account) {
  json::array holders;
  for (const auto& holding : account.holdings)
    holders.push_back(describe_holding(holding));
  return {{"total", bytes_or_null(account.total)},      {"reserved", bytes_or_null(account.reserved)},
          {"managed", account.managed.count()},         {"orphan", account.orphan.count()},
          {"foreign", account.foreign.count()},         {"unattributed", bytes_or_null(account.unattributed)},
          {"free", bytes_or_null(account.free)},        {"used", bytes_or_null(account.used)},
          {"overcounted", account.overcounted.count()}, {"holders", std::move(holders)}};
}

}  // namespace

json::object describe_ledger(const GpuLedger& ledger) {
  auto described = describe_account(ledger.account);
  json::array slices;
  for (const auto& instance : ledger.instances) {
    json::array devices;
    for (const auto& device : instance.devices)
      devices.push_back(
          json::object{{"uuid", device.uuid}, {"name", device.name}, {"compute_instance", device.compute_instance}});
    json::object slice{{"gpu_instance", instance.gpu_instance}, {"devices", std::move(devices)}};
    for (auto& [key, value] : describe_account(instance.account))
      slice[key] = std::move(value);
    slices.push_back(std::move(slice));
  }
  described["slices"] = std::move(slices);
  return described;
}

json::array describe_gpus(const Snapshot& snapshot, const std::vector<GpuLedger>& ledgers) {
  json::array lines;
  for (std::size_t i = 0; i < snapshot.gpus.size(); ++i) {
    const auto& gpu = snapshot.gpus[i];
    std::map<pid_t, const Holding*> holder_of;
    for (const auto& holding : ledgers.at(i).account.holdings)
      for (const auto& process : holding.processes)
        holder_of[process.pid] = &holding;
    json::array processes;
    for (const auto& process : gpu.processes) {
      const auto client = snapshot.clients.find(process.pid);
      const bool seen = client != snapshot.clients.end() && !client->second.command.empty();
      const auto& holding = *holder_of.at(process.pid);
      processes.push_back(json::object{{"pid", process.pid},
                                       {"used", bytes_or_null(process.used)},
                                       {"command", seen ? json::value(client->second.command) : json::value(nullptr)},
                                       {"user", seen ? json::value(client->second.user) : json::value(nullptr)},
                                       {"holder", to_string(holding.kind)},
                                       {"unit", text_or_null(holding.unit)}});
    }
    lines.push_back(json::object{{"index", gpu.index},
                                 {"uuid", gpu.uuid},
                                 {"name", gpu.name},
                                 {"mig", gpu.mig ? json::value(*gpu.mig) : json::value(nullptr)},
                                 {"total", bytes_or_null(gpu.total)},
                                 {"reserved", bytes_or_null(gpu.reserved)},
                                 {"free", bytes_or_null(gpu.free)},
                                 {"processes", std::move(processes)},
                                 {"ledger", describe_ledger(ledgers.at(i))}});
  }
  return lines;
}

}  // namespace gpumod
