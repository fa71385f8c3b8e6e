#include "fit/ledger.h"

#include <algorithm>

#include <fmt/format.h>

#include "base/text.h"

namespace gpumod {

namespace {

using Kind = Holding::Kind;
using Why = Holding::Why;

/// Never negative and never more than there is: figures that cannot be true do not spread.
Bytes within(Bytes amount, Bytes most) {
  return std::clamp(amount, Bytes(), std::max(Bytes(), most));
}

class Bookkeeper {
 public:
  Bookkeeper(const Snapshot& snapshot, const std::map<ServiceId, Service>& services, const std::optional<Goal>& goal)
      : snapshot_(snapshot), services_(services), goal_(goal) {}

  Account account_of(const GpuMemory& memory, const std::vector<GpuProcess>& processes) const {
    Account account = gpumod::account_of(memory);
    account.holdings = holdings_of(processes);
    for (const auto& holding : account.holdings)
      part_of(account, holding.kind) += holding.used;
    if (!account.used) return account;
    const Bytes explained = account.managed + account.orphan + account.foreign;
    account.unattributed = std::max(Bytes(), *account.used - explained);
    account.overcounted = std::max(Bytes(), explained - *account.used);
    return account;
  }

 private:
  static Bytes& part_of(Account& account, Kind kind) {
    return kind == Kind::managed ? account.managed : kind == Kind::orphan ? account.orphan : account.foreign;
  }

  std::vector<Holding> holdings_of(const std::vector<GpuProcess>& processes) const {
    std::map<pid_t, std::optional<Bytes>> each;  // a process that is listed twice holds its memory once
    for (const auto& process : processes) {
      auto& used = each[process.pid];
      used = std::max(used, process.used);  // an empty optional is less than any figure
    }
    std::map<std::string, Holding> joined;
    for (const auto& [pid, used] : each) {
      auto [key, found] = holding_of(pid);
      auto& holding = joined.try_emplace(std::move(key), std::move(found)).first->second;
      holding.processes.push_back({pid, used});
      holding.used += std::max(Bytes(), used.value_or(Bytes()));
      holding.complete = holding.complete && used;
    }
    std::vector<Holding> holdings;
    for (auto& [key, holding] : joined)
      holdings.push_back(std::move(holding));
    std::stable_sort(holdings.begin(), holdings.end(),
                     [](const Holding& a, const Holding& b) { return a.used > b.used; });
    return holdings;
  }

  /// The holding that a process belongs to, without figures, and what it has in common with the others of it.
  std::pair<std::string, Holding> holding_of(pid_t pid) const {
    if (const auto unit = snapshot_.unit_of_pid.find(pid); unit != snapshot_.unit_of_pid.end())
      return {"unit " + unit->second, of_unit(unit->second)};
    const auto seen = snapshot_.clients.find(pid);
    const GpuClient client = seen == snapshot_.clients.end() ? GpuClient{} : seen->second;
    if (!client.tag.empty()) return {"tag " + client.tag, escaped(client)};
    Holding stranger;
    stranger.user = client.user;
    stranger.name = client.command;
    if (!client.command.empty()) return {fmt::format("foreign {}/{}", client.user, client.command), stranger};
    stranger.why = Why::unseen;
    stranger.name = fmt::format("pid {}", pid);
    return {stranger.name, stranger};
  }

  Holding of_unit(const std::string& unit) const {
    Holding holding;
    holding.unit = unit;
    std::vector<ServiceId> members;
    for (const auto& [id, service] : services_)
      if (service.unit_name() == unit) members.push_back(id);
    holding.services = those_who_hold(members);
    holding.name = members.empty() ? printable(unit) : join(holding.services, " + ");
    const bool wanted =
        !goal_ || std::any_of(members.begin(), members.end(), [&](const auto& id) { return wants(id); });
    holding.kind = members.empty() || !wanted ? Kind::orphan : Kind::managed;
    holding.why = members.empty() ? Why::undefined : !wanted ? Why::unwanted : Why::none;
    return holding;
  }

  Holding escaped(const GpuClient& client) const {
    Holding holding;
    holding.kind = Kind::orphan;
    holding.why = Why::escaped;
    holding.user = client.user;
    for (const auto& [id, service] : services_)
      if (id == client.tag || service.router == client.tag) holding.services.push_back(id);
    holding.name = printable(client.tag);
    return holding;
  }

  /// Of the services that share a unit, those that have something in it: the models that a router has loaded. Where
  /// their servers were not asked, those that are wanted.
  std::vector<ServiceId> those_who_hold(const std::vector<ServiceId>& members) const {
    const auto pick = [&](auto holds) {
      std::vector<ServiceId> picked;
      std::copy_if(members.begin(), members.end(), std::back_inserter(picked), holds);
      return picked;
    };
    auto loaded = pick([&](const ServiceId& id) {
      const auto view = snapshot_.services.find(id);
      return view != snapshot_.services.end() && view->second.residency != Residency::stopped &&
             view->second.residency != Residency::unloaded;
    });
    if (!loaded.empty()) return loaded;
    if (!snapshot_.services.empty()) return members;  // asked, and none has: it is their common process that holds it
    auto wanted = pick([&](const ServiceId& id) { return wants(id); });
    return wanted.empty() ? members : wanted;
  }

  bool wants(const ServiceId& id) const {
    if (!goal_) return false;
    const auto wanted = goal_->wanted.find(id);
    return wanted != goal_->wanted.end() && wanted->second != Residency::stopped;
  }

  const Snapshot& snapshot_;
  const std::map<ServiceId, Service>& services_;
  const std::optional<Goal>& goal_;
};

/// Devices of one GPU instance share its memory: counted for each of them, one would hold the other's.
std::vector<InstanceLedger> instances_of(const GpuSample& gpu, const Bookkeeper& bookkeeper) {
  std::map<int, std::vector<const GpuSlice*>> by_instance;
  for (const auto& slice : gpu.slices)
    by_instance[slice.gpu_instance].push_back(&slice);
  std::vector<InstanceLedger> instances;
  for (const auto& [number, slices] : by_instance) {
    InstanceLedger instance;
    instance.gpu_instance = number;
    std::vector<GpuProcess> processes;
    GpuMemory memory;
    for (const auto* slice : slices) {
      instance.devices.push_back({slice->uuid, slice->name, slice->compute_instance});
      processes.insert(processes.end(), slice->processes.begin(), slice->processes.end());
      if (!memory.total || !memory.free) memory = *slice;  // any of them that answers
    }
    instance.account = bookkeeper.account_of(memory, processes);
    instances.push_back(std::move(instance));
  }
  return instances;
}

}  // namespace

Account account_of(const GpuMemory& memory) {
  Account account;
  static_cast<GpuMemory&>(account) = memory;
  if (!memory.total || !memory.free) return account;
  account.free = within(*memory.free, *memory.total);
  const Bytes taken = *memory.total - *account.free;
  if (memory.reserved) account.reserved = within(*memory.reserved, taken);
  account.used = taken - account.reserved.value_or(Bytes());
  return account;
}

std::vector<GpuLedger> ledgers_of(const Snapshot& snapshot, const std::map<ServiceId, Service>& services,
                                  const std::optional<Goal>& goal) {
  const Bookkeeper bookkeeper(snapshot, services, goal);
  std::vector<GpuLedger> ledgers;
  for (const auto& gpu : snapshot.gpus) {
    GpuLedger ledger;
    ledger.index = gpu.index;
    ledger.uuid = gpu.uuid;
    ledger.name = gpu.name;
    ledger.mig = gpu.mig;
    ledger.account = bookkeeper.account_of(gpu.memory(), gpu.processes);
    ledger.instances = instances_of(gpu, bookkeeper);
    ledgers.push_back(std::move(ledger));
  }
  return ledgers;
}

}  // namespace gpumod
