// The GPUs themselves: which there are, which processes are on them and whose those are, and all of it while it
// changes.

#include <charconv>
#include <set>

#include <fmt/format.h>

#include "base/text.h"
#include "control/observe.h"
#include "fit/ledger.h"
#include "model/json.h"
#include "verbs/describe.h"
#include "verbs/handlers.h"
#include "verbs/unfinished.h"

namespace gpumod {

namespace json = boost::json;

namespace {

Error no_gpu(const std::vector<GpuInventory::Missing>& missing) {
  if (missing.empty())
    return Error{
        ErrorCode::environment, "the NVIDIA driver runs, but sees no GPU", "See what `nvidia-smi -L` says.", {}};
  return Error{ErrorCode::environment,
               fmt::format("the NVIDIA driver sees no GPU that works: GPU {}: {}", missing.front().index,
                           missing.front().problem),
               "See what `nvidia-smi` says, and `dmesg | grep NVRM`.",
               {}};
}

json::object describe_room(const GpuMemory& memory) {
  const auto account = account_of(memory);
  return {{"total", bytes_or_null(account.total)},
          {"reserved", bytes_or_null(account.reserved)},
          {"used", bytes_or_null(account.used)},
          {"free", bytes_or_null(account.free)}};
}

void add_members(json::object& to, json::object members) {
  for (auto& [key, value] : members)
    to[key] = std::move(value);
}

json::value truth_or_null(const std::optional<bool>& truth) {
  return truth ? json::value(*truth) : json::value(nullptr);
}

json::object describe_card(const GpuSample& gpu, const GpuInventory& inventory) {
  json::object line{{"index", gpu.index}, {"name", printable(gpu.name)}, {"uuid", gpu.uuid}};
  add_members(line, describe_room(gpu.memory()));
  line["persistence"] = nullptr;
  for (const auto& card : inventory.cards)
    if (card.index == gpu.index) line["persistence"] = truth_or_null(card.persistence);
  line["mig"] = truth_or_null(gpu.mig);
  json::array slices;
  for (const auto& slice : gpu.slices) {
    json::object described{{"uuid", slice.uuid},
                           {"name", printable(slice.name)},
                           {"gpu_instance", slice.gpu_instance},
                           {"compute_instance", slice.compute_instance}};
    add_members(described, describe_room(slice));
    slices.push_back(std::move(described));
  }
  line["slices"] = std::move(slices);
  return line;
}

/// The GPUs' memory and whose it is, at one moment.
struct Look {
  Snapshot snapshot;
  std::vector<GpuLedger> ledgers;
};

/// Catalogue and goal are read anew by a context of their own, so that a watch sees what people change meanwhile; the
/// machine stays open. Errors: environment when there is no GPU, too.
Task<Result<Look>> look_at_memory(Context& context) {
  const auto machine = context.machine();
  if (!machine) co_return fail(machine.error());
  if ((*machine)->gpu_problem) co_return fail(*(*machine)->gpu_problem);
  Context fresh(context.loop(), context.paths(), {});
  const auto catalog = fresh.catalog();
  if (!catalog) co_return fail(catalog.error());
  auto snapshot = co_await observe_memory(**machine, **catalog);
  if (!snapshot) co_return fail(snapshot.error());
  if (snapshot->gpu_problem) co_return fail(*snapshot->gpu_problem);
  const std::vector<GpuInventory::Missing> none;
  if (snapshot->gpus.empty()) co_return fail(no_gpu(none));
  auto goal = fresh.stored_goal();
  if (!goal) co_return fail(goal.error());
  const auto change = fresh.interrupted_switch().value_or(std::nullopt);
  Look look;
  look.ledgers = ledgers_of(*snapshot, (*catalog)->services, goal_with_change(std::move(*goal), change));
  look.snapshot = std::move(*snapshot);
  co_return look;
}

/// One line a process of the account, of a MIG instance with the device that it is on. `told`: those that have a line.
void add_processes(json::array& lines, const GpuSample& gpu, const Account& account, const Snapshot& snapshot,
                   std::set<pid_t>& told) {
  for (const auto& holding : account.holdings) {
    for (const auto& process : holding.processes) {
      if (!told.insert(process.pid).second) continue;
      const auto* slice = slice_of(gpu, process.pid);
      const auto client = snapshot.clients.find(process.pid);
      const bool seen = client != snapshot.clients.end() && !client->second.command.empty();
      lines.push_back(json::object{{"gpu", gpu.index},
                                   {"slice", slice ? json::value(slice->uuid) : json::value(nullptr)},
                                   {"pid", process.pid},
                                   {"user", seen ? json::value(client->second.user) : json::value(nullptr)},
                                   {"command", seen ? json::value(client->second.command) : json::value(nullptr)},
                                   {"holder", to_string(holding.kind)},
                                   {"why", text_or_null(to_string(holding.why))},
                                   {"services", json::value_from(holding.services)},
                                   {"unit", text_or_null(holding.unit)},
                                   {"used", bytes_or_null(process.used)}});
    }
  }
}

json::array describe_ledgers(const std::vector<GpuLedger>& ledgers) {
  json::array lines;
  for (const auto& ledger : ledgers)
    lines.push_back(json::object{{"index", ledger.index},
                                 {"uuid", ledger.uuid},
                                 {"name", printable(ledger.name)},
                                 {"mig", truth_or_null(ledger.mig)},
                                 {"ledger", describe_ledger(ledger)}});
  return lines;
}

Result<Duration> interval_of(const Request& request) {
  if (!request.contains("interval")) return Duration(1s);
  const auto words = text_of(request, "interval");
  double amount = 0;
  const auto [end, problem] = std::from_chars(words.data(), words.data() + words.size(), amount);
  if (problem != std::errc() || end != words.data() + words.size() || !(amount >= 0.1 && amount <= 3600))
    return fail(ErrorCode::usage, fmt::format("--interval is '{}'", printable(words)),
                "It is a number of seconds from 0.1 to 3600.");
  return std::chrono::duration_cast<Duration>(std::chrono::duration<double>(amount));
}

}  // namespace

Answer gpu_list(Context&, Request) {
  const auto monitor = open_nvml();
  if (!monitor) co_return fail(monitor.error());
  const auto gpus = co_await (*monitor)->sample();
  if (!gpus) co_return fail(gpus.error());
  const auto inventory = co_await (*monitor)->inventory();
  if (!inventory) co_return fail(inventory.error());
  if (gpus->empty()) co_return fail(no_gpu(inventory->missing));
  json::array lines, missing;
  for (const auto& gpu : *gpus)
    lines.push_back(describe_card(gpu, *inventory));
  for (const auto& gpu : inventory->missing)
    missing.push_back(json::object{{"index", gpu.index}, {"problem", gpu.problem}});
  co_return json::value(json::object{{"driver", printable((*monitor)->driver_version())},
                                     {"gpus", std::move(lines)},
                                     {"missing", std::move(missing)}});
}

Answer gpu_processes(Context& context, Request) {
  const auto look = co_await look_at_memory(context);
  if (!look) co_return fail(look.error());
  json::array lines;
  for (std::size_t i = 0; i < look->ledgers.size(); ++i) {
    const auto& ledger = look->ledgers[i];
    const auto& gpu = look->snapshot.gpus[i];
    std::set<pid_t> told;
    for (const auto& instance : ledger.instances)
      add_processes(lines, gpu, instance.account, look->snapshot, told);
    add_processes(lines, gpu, ledger.account, look->snapshot, told);
  }
  co_return json::value(json::object{{"processes", std::move(lines)}});
}

/// Each change as {"event": "gpus", "time", "gpus"}, until the caller goes. What cannot be read for a while is told in
/// the same way, as "problem"; only a first look that fails ends it.
Answer gpu_watch(Context& context, Request request) {
  const auto interval = interval_of(request);
  if (!interval) co_return fail(interval.error());
  json::object told;
  for (;;) {
    const auto look = co_await look_at_memory(context);
    if (!look && told.empty()) co_return fail(look.error());
    json::object seen;
    if (look)
      seen["gpus"] = describe_ledgers(look->ledgers);
    else
      seen["problem"] = to_json(look.error());
    if (seen != told) {
      told = std::move(seen);
      json::object event{{"event", "gpus"}, {"time", format_wall(wall_now())}};
      add_members(event, told);
      context.progress()(std::move(event));
    }
    // NVML tells of no change of memory: nothing else could be waited for.
    const bool over = co_await context.ending().wait(now() + *interval);
    if (over) co_return json::value(nullptr);
  }
}

}  // namespace gpumod
