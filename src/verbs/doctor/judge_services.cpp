// What the services need: files that are right, programs and models that are there, ports that are free; and how what
// runs differs from what should.

#include <algorithm>

#include <fmt/format.h>

#include "base/text.h"
#include "verbs/doctor/judge.h"

namespace gpumod {

namespace {

std::string quoted(const std::vector<ServiceId>& services) {
  std::vector<std::string> names;
  for (const auto& id : services)
    names.push_back(fmt::format("'{}'", id));
  return join(names, ", ");
}

/// How long a load takes at least, where that is longer than the service may take to start.
struct SlowLoad {
  ServiceId service;
  Duration takes{};
};
std::optional<SlowLoad> slow_load(const DoctorFacts& facts, const WeightsFacts& model, Bytes per_second) {
  if (!facts.catalog) return std::nullopt;
  const Duration takes = std::chrono::seconds(model.size.count() / per_second.count());
  for (const auto& id : model.services) {
    const auto service = facts.catalog->services.find(id);
    if (service != facts.catalog->services.end() && takes > service->second.startup_timeout) return SlowLoad{id, takes};
  }
  return std::nullopt;
}

void judge_model(const DoctorFacts& facts, const WeightsFacts& model, Check& check) {
  constexpr Bytes network_speed = Bytes::mib(110), disk_speed = Bytes::mib(150);  // of a gigabit, of a disk that turns
  const auto path = model.path.string();
  if (!model.disk) return check.fail(fmt::format("{}: {}", path, model.disk.error().message), model.disk.error().hint);
  if (model.size == Bytes()) {
    if (!model.may_download)
      check.fail(fmt::format("the model of {} is not there: {}", quoted(model.services), path),
                 "Download it, or correct the path; gpumod model list shows where each one should be.");
    return;
  }
  const bool turns = model.disk->rotational == true;
  if (model.remote.empty() && !turns) return;
  const auto where =
      model.remote.empty() ? std::string("a disk that turns") : fmt::format("the network ({})", model.remote);
  const auto slow = slow_load(facts, model, model.remote.empty() ? disk_speed : network_speed);
  const auto text = fmt::format("{} lies on {}", path, where);
  if (slow)
    check.warn(fmt::format("{}: reading its {} takes some {}, and '{}' may take less to start", text,
                           to_string(model.size), format_seconds(slow->takes), slow->service),
               fmt::format("Move it to an SSD, or raise startup_timeout of '{}'.", slow->service));
  else
    check.note(text);
}

/// Models that are larger than the host's memory are read from the disk at every switch.
void judge_page_cache(const DoctorFacts& facts, Check& check) {
  if (!facts.catalog || !facts.memory || facts.memory->total == Bytes()) return;
  for (const auto& [id, mode] : facts.catalog->modes) {
    Bytes sum;
    for (const auto& model : facts.models) {
      const bool belongs = std::any_of(model.services.begin(), model.services.end(), [&](const ServiceId& service) {
        return std::find(mode.services.begin(), mode.services.end(), service) != mode.services.end();
      });
      if (belongs) sum += model.size;
    }
    if (sum > facts.memory->total)
      check.note(
          fmt::format("the models of mode {} ({}) do not fit into host memory ({}): each switch reads them from the "
                      "disk again",
                      id, to_string(sum), to_string(facts.memory->total)));
  }
}

}  // namespace

Check judge_models(const DoctorFacts& facts) {
  Check check{"disk.models", "Disk", "Models", "A model that is missing or slow to read makes a switch fail."};
  if (!facts.catalog) {
    check.skip(facts.catalog.error().message);
    return check;
  }
  Bytes sum;
  for (const auto& model : facts.models) {
    judge_model(facts, model, check);
    sum += model.size;
  }
  judge_page_cache(facts, check);
  if (check.findings.empty())
    check.ok(facts.models.empty() ? "no service names one"
                                  : fmt::format("{}, {}", counted(facts.models.size(), "model"), to_string(sum)));
  return check;
}

Check judge_programs(const DoctorFacts& facts) {
  Check check{"engines.programs", "Engines", "Programs", "A service whose program is missing cannot start."};
  if (!facts.catalog) check.skip(facts.catalog.error().message);
  for (const auto& program : facts.programs) {
    if (program.environment_lost()) continue;  // the next check says it better
    if (program.problem)
      check.fail(program.problem->message, program.problem->hint);
    else
      check.ok(fmt::format("{}{}{}", program.path, program.version.empty() ? "" : " ", program.version));
  }
  if (check.findings.empty()) check.ok(facts.programs.empty() ? "no service needs one" : "see the Python environments");
  return check;
}

Check judge_environments(const DoctorFacts& facts) {
  Check check{"engines.environments", "Engines", "Python environments",
              "An update of the system's Python breaks each virtual environment that was made with the older one."};
  const auto again = [](const ProgramFacts& program) {
    return fmt::format("Make it anew: python3 -m venv --clear {}, then install into it again.", program.environment);
  };
  std::size_t sound = 0;
  for (const auto& program : facts.programs) {
    if (program.environment.empty()) continue;
    const auto& python = program.environment_python;
    if (program.environment_lost())
      check.fail(fmt::format("{} has lost its Python: {} cannot start", program.environment, quoted(program.services)),
                 again(program));
    else if (python.starts_with("python3.") && !program.packages_for.empty() && !program.packages_for.contains(python))
      check.fail(fmt::format("{} holds packages for {}, and its Python is {} now: {} cannot start", program.environment,
                             *program.packages_for.begin(), python, quoted(program.services)),
                 again(program));
    else
      ++sound;
  }
  if (check.findings.empty()) check.ok(sound == 0 ? "none is used" : counted(sound, "environment"));
  return check;
}

Check judge_catalog(const DoctorFacts& facts) {
  constexpr std::size_t most = 5;
  Check check{"files.catalogue", "Configuration", "Your files", "What a file says wrong, a switch cannot do."};
  if (!facts.catalog) {
    check.fail(facts.catalog.error().message, facts.catalog.error().hint);
    return check;
  }
  const Catalog& catalog = *facts.catalog;
  std::size_t left_out = 0;
  for (const auto severity : {Severity::error, Severity::warning}) {
    for (const auto& problem : catalog.problems) {
      if (problem.severity != severity) continue;
      if (check.findings.size() >= most) {
        ++left_out;
        continue;
      }
      const auto text = fmt::format("{}: {}", to_string(problem.where), problem.message);
      if (severity == Severity::error)
        check.fail(text, problem.hint);
      else
        check.warn(text, problem.hint);
    }
  }
  if (left_out > 0)
    check.note(fmt::format("and {}", counted(left_out, "more problem")), "gpumod config check lists all.");
  for (const auto& file : catalog.open_env_files)
    check.fixes.push_back({Fix::Kind::restrict_mode, file.string(), 0600});
  if (catalog.services.empty() && catalog.broken_services.empty())
    check.note("no service is defined yet", "gpumod init finds engines and models, and writes a first configuration.");
  if (check.findings.empty())
    check.ok(fmt::format("{}, {}", counted(catalog.services.size(), "service"), counted(catalog.modes.size(), "mode")));
  return check;
}

namespace {

bool is_wanted(const DoctorFacts& facts, const ServiceId& id) {
  return facts.state && facts.state->goal && facts.state->goal->wanted.contains(id);
}

std::string holder_of(const PortHolder& holder) {
  if (holder.pid == 0) return fmt::format("a process of {}", holder.user.empty() ? "another user" : holder.user);
  return fmt::format("pid {} ({}{}{})", holder.pid, holder.command, holder.user.empty() ? "" : ", ", holder.user);
}

void judge_port(const DoctorFacts& facts, const Service& service, Check& check) {
  for (const auto& holder : facts.seen->snapshot.ports) {
    if (holder.port != service.port || !holder.unit.empty()) continue;
    // What listens for a container is the container's runtime, or the container itself.
    if (service.command() && !service.command()->container.empty()) continue;
    const auto text = fmt::format("port {} of '{}' is taken by {}", service.port, service.id, holder_of(holder));
    const auto mend = holder.pid == 0
                          ? fmt::format("`sudo ss -ltnp sport = :{}` names it. End it, or change port: in {}.",
                                        service.port, to_string(service.source))
                          : fmt::format("End it, or change port: in {}.", to_string(service.source));
    if (is_wanted(facts, service.id))
      check.fail(text, mend);
    else
      check.warn(text, mend);
    return;
  }
}

}  // namespace

Check judge_ports(const DoctorFacts& facts) {
  Check check{"files.ports", "Configuration", "Ports", "A service whose port somebody else has cannot start."};
  if (!facts.catalog || !facts.seen) {
    check.skip(!facts.catalog ? facts.catalog.error().message : facts.seen.error().message);
    return check;
  }
  std::set<std::uint16_t> free, ours;
  std::vector<std::string> may_be_given_away;
  for (const auto& [id, service] : facts.catalog->services) {
    if (service.port == 0) continue;
    judge_port(facts, service, check);
    const auto& held = facts.seen->snapshot.ports;
    const bool taken =
        std::any_of(held.begin(), held.end(), [&](const PortHolder& holder) { return holder.port == service.port; });
    (taken ? ours : free).insert(service.port);
    if (facts.memory && service.port >= facts.memory->first_own_port && service.port <= facts.memory->last_own_port)
      may_be_given_away.push_back(fmt::format("{} ('{}')", service.port, id));
  }
  if (!may_be_given_away.empty())
    check.note(fmt::format("the kernel may give {} to an outgoing connection just before a start",
                           join(may_be_given_away, ", ")),
               fmt::format("Choose ports below {}.", facts.memory->first_own_port));
  if (check.findings.empty()) check.ok(fmt::format("{} free, {} in use by services", free.size(), ours.size()));
  return check;
}

Check judge_switch(const DoctorFacts& facts) {
  Check check{"runs.switch", "What runs", "Switches", "A switch that was cut off leaves services half-way."};
  if (!facts.state) {
    check.fail(facts.state.error().message, facts.state.error().hint);
    return check;
  }
  const auto& state = *facts.state;
  if (!state.problem.empty())
    check.warn(state.problem, "What runs is taken for the goal; the next switch begins a new file.");
  if (!state.interrupted.empty()) check.fail(state.interrupted, state.what_to_do);
  if (!state.under_way.empty())
    check.note(fmt::format("under way: {}", state.under_way), "gpumod mode cancel takes it back.");
  if (check.findings.empty()) check.ok("none is under way or was interrupted");
  return check;
}

Check judge_orphans(const DoctorFacts& facts) {
  Check check{"runs.orphans", "What runs", "Orphans", "What nobody wants any more keeps its memory and its port."};
  if (!facts.seen || !facts.catalog) {
    check.skip(!facts.seen ? facts.seen.error().message : facts.catalog.error().message);
    return check;
  }
  for (const auto& [name, unit] : facts.seen->snapshot.units)
    if (runs_without_its_file(unit, *facts.catalog))
      check.warn(fmt::format("{} is {}, and the file of '{}' is broken", name, to_string(unit.active), unit.tag),
                 fmt::format("Correct {}, or gpumod service stop {}.",
                             to_string(facts.catalog->service_faults.at(unit.tag)), unit.tag));
    else if (!unit.gone() && facts.catalog->services_of_unit(name).empty())
      check.warn(fmt::format("{} is {}, and no file defines it", name, to_string(unit.active)),
                 "gpumod repair stops it, and so does each mode switch.");
  for (const auto& gpu : facts.seen->ledgers)
    for (const auto& holding : gpu.account.holdings)
      if (holding.why == Holding::Why::escaped && !holding.processes.empty())
        check.warn(fmt::format("pid {} has left the unit of '{}' and holds {} of GPU {}", holding.processes.front().pid,
                               join(holding.services, "', '"), to_string(holding.used), gpu.index),
                   fmt::format("kill {}", holding.processes.front().pid));
  if (check.findings.empty()) check.ok("none");
  return check;
}

Check judge_goal(const DoctorFacts& facts) {
  Check check{"runs.goal", "What runs", "What should run", "You asked for it."};
  if (!facts.seen || !facts.state) {
    check.skip(!facts.seen ? facts.seen.error().message : facts.state.error().message);
    return check;
  }
  for (const auto& difference : facts.seen->differences) {
    using Kind = Difference::Kind;
    if (difference.kind == Kind::interrupted) continue;  // of the switch that was cut off
    const bool broken = difference.kind == Kind::dead || difference.kind == Kind::port;
    const std::string mend = difference.repair_mends
                                 ? "gpumod repair brings it to what you asked for; --dry-run shows how."
                                 : "gpumod status shows what is to be done first.";
    if (broken)
      check.fail(difference.text, mend);
    else
      check.warn(difference.text, mend);
  }
  if (!check.findings.empty()) return check;
  if (!facts.state->interrupted.empty() || !facts.state->under_way.empty()) {
    check.skip("a switch has not ended");
    return check;
  }
  const auto& goal = facts.state->goal;
  check.ok(!goal ? "nothing was asked for yet" : goal->mode.empty() ? "runs" : fmt::format("mode {} runs", goal->mode));
  return check;
}

std::vector<Check> judge(const DoctorFacts& facts) {
  struct Judgement {
    const char* id;
    Check (*of)(const DoctorFacts&);
  };
  constexpr Judgement all[] = {
      {"gpu.driver", judge_driver},
      {"gpu.memory", judge_gpu_memory},
      {"gpu.persistence", judge_persistence},
      {"gpu.suspend", judge_suspend},
      {"gpu.checkpoint", judge_checkpoint},
      {"units.manager", judge_manager},
      {"units.linger", judge_linger},
      {"units.journal", judge_journal},
      {"units.adopted", judge_adopted},
      {"units.cgroups", judge_cgroups},
      {"units.limits", judge_limits},
      {"memory.pressure", judge_pressure},
      {"memory.guards", judge_guards},
      {"memory.sleep", judge_sleep_memory},
      {"memory.shared", judge_shared_memory},
      {"disk.folders", judge_folders},
      {"disk.models", judge_models},
      {"engines.programs", judge_programs},
      {"engines.environments", judge_environments},
      {"files.catalogue", judge_catalog},
      {"files.ports", judge_ports},
      {"runs.switch", judge_switch},
      {"runs.orphans", judge_orphans},
      {"runs.goal", judge_goal},
  };
  std::vector<Check> checks;
  for (const auto& judgement : all) {
    try {
      checks.push_back(judgement.of(facts));
    } catch (const std::exception& problem) {
      Check broken{judgement.id, "Broken checks", judgement.id, "This is a defect of gpumod."};
      broken.skip(fmt::format("this check broke: {}", problem.what()));
      checks.push_back(std::move(broken));
    }
  }
  return checks;
}

}  // namespace gpumod
