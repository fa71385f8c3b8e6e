#include "verbs/doctor/gather.h"

#include <algorithm>

#include <boost/json.hpp>
#include <fmt/format.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/text.h"
#include "control/additions.h"
#include "control/interpreter.h"
#include "control/launch.h"
#include "control/lock.h"
#include "control/model_check.h"
#include "control/observe.h"
#include "fit/ledger.h"
#include "host/cgroup.h"
#include "host/journal.h"
#include "host/run.h"
#include "host/sd_bus.h"
#include "host/systemd_unit.h"
#include "model/json.h"
#include "verbs/doctor/look_within.h"
#include "verbs/doctor/models.h"
#include "verbs/unfinished.h"
#include "verbs/verb.h"

namespace gpumod {

namespace fs = std::filesystem;
namespace json = boost::json;

namespace {

/// Cold, without persistence mode, each GPU takes the driver up to three seconds.
constexpr Duration driver_patience = 10s;
constexpr Duration manager_patience = 2s;
constexpr Duration program_patience = 5s;
constexpr Duration disk_patience = 2s;

Error not_in_time(const std::string& what, Duration limit, std::string hint) {
  return Error{ErrorCode::environment,
               fmt::format("{} did not answer within {}", what, format_seconds(limit)),
               std::move(hint),
               {}};
}

/// Looks that have not come back. People are told of them when it takes long.
class Waiting {
 public:
  explicit Waiting(Loop& loop) : none_(loop) {}

  /// Counts from now on.
  Task<void> on(std::string name, Task<void> look) {
    names_.insert(name);
    return wait(*this, std::move(name), std::move(look));
  }
  Task<void> tell(Context& context) { return tell_late(*this, context); }

 private:
  static Task<void> wait(Waiting& self, std::string name, Task<void> look) {
    co_await std::move(look);
    self.names_.erase(self.names_.find(name));
    if (self.names_.empty()) self.none_.set();
  }
  static Task<void> tell_late(Waiting& self, Context& context) {
    constexpr Duration long_enough = 1s;
    const bool all_there = co_await self.none_.wait(now() + long_enough);
    if (all_there) co_return;
    const std::set<std::string> once(self.names_.begin(), self.names_.end());
    const std::vector<std::string> late(once.begin(), once.end());
    context.notice(fmt::format("still waiting for {}", join(late, ", ")));
  }

  std::multiset<std::string> names_;
  Signal none_;
};

// --- the driver

/// Asked by a process of its own: whoever calls into a driver that hangs cannot even be killed.
Task<void> ask_driver(DoctorFacts& facts) {
  const auto self = own_executable();
  if (!self) {
    facts.answer = fail(self.error());
    co_return;
  }
  std::vector<std::string> question{self->string(), "gpu", "list", "--json"};
  const auto outcome = co_await run_program(std::move(question), driver_patience);
  if (!outcome) {
    facts.answer = fail(outcome.error());
  } else if (outcome->timed_out) {
    facts.driver_silent = true;
    facts.answer = fail(not_in_time("the NVIDIA driver", driver_patience, {}));
  } else {
    facts.answer = driver_answer_in(outcome->output);
  }
}

// --- the machine

struct Box {
  DriverFacts driver;
  MemoryFacts memory;
  LibraryFacts nvml, cuda;
  Bytes shared;
};

Bytes size_of_shared_memory() {
  struct statvfs room {};
  if (::statvfs("/dev/shm", &room) != 0) return {};
  return Bytes(static_cast<std::int64_t>(room.f_blocks) * static_cast<std::int64_t>(room.f_frsize));
}

Task<void> look_at_box(Context& context, fs::path root, DoctorFacts& facts) {
  std::function<Box()> look = [root] {
    Box box;
    box.driver = driver_facts(root);
    box.memory = memory_facts(root);
    box.nvml = library_facts(nvml_file(), nullptr);
    box.cuda = library_facts("libcuda.so.1", "cuCheckpointProcessCheckpoint");
    box.shared = size_of_shared_memory();
    return box;
  };
  auto late = not_in_time("the kernel", disk_patience, {});
  const auto box = co_await look_within<Box>(context.loop(), disk_patience, std::move(look), std::move(late));
  if (!box) {
    facts.driver = fail(box.error());
    facts.memory = fail(box.error());
    co_return;
  }
  facts.driver = box->driver;
  facts.memory = box->memory;
  facts.nvml = box->nvml;
  facts.cuda = box->cuda;
  facts.shared_memory = box->shared;
}

// --- the unit manager

Limit limit_of(const Result<BusMessage>& soft, const Result<BusMessage>& hard) {
  return {variant_number(soft).value_or(UINT64_MAX), variant_number(hard).value_or(UINT64_MAX)};
}

void read_controllers(const std::string& group, ManagerFacts& manager) {
  if (group.empty()) return;
  const auto folder = cgroup_directory(group);
  if (!folder) return;
  const auto text = read_pseudo_file((*folder / "cgroup.controllers").string());
  if (!text) return;
  manager.own_hierarchy = true;
  manager.controllers = controllers_in(*text);
}

Task<void> ask_manager(Context& context, DoctorFacts& facts) {
  if (facts.local) {
    ManagerFacts own;
    own.nofile = own_limit(RLIMIT_NOFILE);
    own.memlock = own_limit(RLIMIT_MEMLOCK);
    facts.manager = own;
    co_return;
  }
  const auto bus = Bus::connect_user_manager(context.loop());
  if (!bus) {
    facts.manager = fail(bus.error());
    co_return;
  }
  std::vector<BusMessage> questions;
  for (const char* property : {"Version", "ControlGroup", "DefaultLimitNOFILESoft", "DefaultLimitNOFILE",
                               "DefaultLimitMEMLOCKSoft", "DefaultLimitMEMLOCK", "DefaultOOMScoreAdjust"}) {
    auto question = get_request(**bus, manager_path, manager_interface, property);
    if (question) questions.push_back(std::move(*question));
  }
  constexpr std::size_t asked = 7;
  if (questions.size() < asked) {
    facts.manager = fail(ErrorCode::environment, "the connection to the systemd user manager was lost");
    co_return;
  }
  const auto replies = co_await call_all(*bus, std::move(questions), manager_patience);
  if (!replies[0]) {
    facts.manager = fail(replies[0].error());
    co_return;
  }
  ManagerFacts manager;
  manager.version = variant_string(replies[0]).value_or("");
  manager.nofile = limit_of(replies[2], replies[3]);
  manager.memlock = limit_of(replies[4], replies[5]);
  if (const auto score = variant_number(replies[6])) manager.oom_score_adjust = static_cast<int>(*score);
  read_controllers(variant_string(replies[1]).value_or(""), manager);
  facts.manager = std::move(manager);
}

// --- folders and models

FolderFacts look_at_folder(const std::string& purpose, const fs::path& path, const fs::path& root) {
  FolderFacts folder;
  folder.purpose = purpose;
  std::error_code missing;
  const auto real = fs::canonical(path, missing);  // people link to where they keep such things
  folder.path = missing ? path : real;
  struct stat info {};
  if (::stat(path.c_str(), &info) == 0) {
    folder.there = true;
    folder.is_folder = S_ISDIR(info.st_mode);
    folder.ours = info.st_uid == ::geteuid();
    folder.mode = info.st_mode & 07777;
  }
  folder.disk = disk_facts(path, root);
  folder.can_be_made = ::access(folder.disk.existing.c_str(), W_OK | X_OK) == 0;
  return folder;
}

Task<void> look_at_folders(Context& context, fs::path root, DoctorFacts& facts) {
  const std::pair<const char*, fs::path> folders[] = {{"configuration", context.paths().config},
                                                      {"state", context.paths().state},
                                                      {"runtime", context.paths().runtime}};
  for (const auto& [name, place] : folders) {
    const std::string purpose = name;
    const fs::path path = place;
    std::function<FolderFacts()> look = [purpose, path, root] { return look_at_folder(purpose, path, root); };
    auto late = not_in_time(path.string(), disk_patience, {});
    auto folder = co_await look_within<FolderFacts>(context.loop(), disk_patience, std::move(look), std::move(late));
    FolderFacts lost;
    lost.purpose = purpose;
    lost.path = path;
    if (!folder) lost.problem = folder.error().message;
    facts.folders.push_back(folder ? std::move(*folder) : std::move(lost));
  }
}

Task<void> look_at_models(Context& context, fs::path root, DoctorFacts& facts) {
  if (!facts.catalog) co_return;
  const fs::path home = context.paths().home;
  const Catalog catalog = *facts.catalog;
  std::function<std::vector<ModelToFind>()> name = [catalog, home] {
    return models_to_find(catalog, home, MountTable::of_this_machine());
  };
  auto late = not_in_time("the disk of your files", disk_patience, "See `mount`, and whether its server is there.");
  auto wanted =
      co_await look_within<std::vector<ModelToFind>>(context.loop(), disk_patience, std::move(name), std::move(late));
  if (!wanted) {
    WeightsFacts lost;
    lost.path = home;
    lost.disk = fail(wanted.error());
    facts.models.push_back(std::move(lost));
    co_return;
  }
  auto finding = find_models(context.loop(), std::move(*wanted), look_for_model(home, root), disk_patience);
  facts.models = co_await std::move(finding);
}

// --- programs

/// What a llama-server and a uvicorn say; "" of all others.
std::string version_in(std::string_view output) {
  for (const auto line : split_lines(output))
    for (const std::string_view before : {"version: ", "Running uvicorn "})
      if (line.starts_with(before)) return printable(trim(line.substr(before.size())).substr(0, 40));
  return {};
}

struct FoundProgram {
  ProgramFacts facts;
  EngineKind engine = EngineKind::command;
  bool asked = true;  // unless it only runs with libraries of its own, which its service names
};

std::vector<FoundProgram> find_programs(const Catalog& catalog, const Paths& paths) {
  std::vector<FoundProgram> programs;
  for (const auto& [id, service] : catalog.services) {
    if (!service.unit.empty()) continue;  // what people's own unit starts is theirs
    const auto binary = binary_of(paths, catalog, service);
    FoundProgram program{binary ? program_facts(*binary) : ProgramFacts(), service.engine};
    if (!binary) program.facts.problem = binary.error();
    const auto added = additions_of(catalog, service);
    program.asked = !added.environment.contains("LD_LIBRARY_PATH") && !added.environment.contains("LD_PRELOAD");
    program.facts.services = {id};
    const auto known = std::find_if(programs.begin(), programs.end(), [&](const FoundProgram& other) {
      return binary && other.facts.path == program.facts.path;
    });
    if (known != programs.end()) {
      known->facts.services.push_back(id);
      continue;
    }
    // Asked itself, a vllm imports for many seconds before it says its version.
    if (service.vllm() && binary) program.facts.version = installed_package_version(*binary, "vllm");
    programs.push_back(std::move(program));
  }
  return programs;
}

Task<void> ask_program(ProgramFacts& program, EngineKind engine) {
  if (program.problem || program.environment_lost() || engine == EngineKind::vllm) co_return;
  if (engine == EngineKind::command) co_return;  // people's own program: what it takes is not known
  std::vector<std::string> question{program.path, "--version"};
  const auto outcome = co_await run_program(std::move(question), program_patience);
  if (!outcome) {
    program.problem = outcome.error();
  } else if (outcome->timed_out || outcome->exit_code != 0) {
    const auto words = trim(outcome->output);
    const auto first = printable(words.substr(0, words.find('\n')).substr(0, 200));
    program.problem = Error{ErrorCode::environment,
                            fmt::format("{} does not run: {}", program.path,
                                        outcome->timed_out ? "it does not answer --version"
                                        : first.empty()    ? fmt::format("it ends with {}", outcome->exit_code)
                                                           : first),
                            "Install it again; after an update of the driver or the system, build it anew.",
                            {}};
  } else {
    program.version = version_in(outcome->output);
  }
}

Task<void> look_at_programs(Context& context, DoctorFacts& facts) {
  if (!facts.catalog) co_return;
  const Catalog catalog = *facts.catalog;
  const Paths paths = context.paths();
  std::function<std::vector<FoundProgram>()> look = [catalog, paths] { return find_programs(catalog, paths); };
  auto late = not_in_time("the disk of the programs", disk_patience, "See `mount`, and whether its server is there.");
  auto found =
      co_await look_within<std::vector<FoundProgram>>(context.loop(), disk_patience, std::move(look), std::move(late));
  if (!found) {
    ProgramFacts lost;
    lost.problem = found.error();
    facts.programs.push_back(std::move(lost));
    co_return;
  }
  for (auto& program : *found)
    facts.programs.push_back(std::move(program.facts));
  std::vector<Task<void>> asking;
  for (std::size_t i = 0; i < found->size(); ++i)
    if ((*found)[i].asked) asking.push_back(ask_program(facts.programs[i], (*found)[i].engine));
  co_await run_all(std::move(asking));
}

// --- what runs

Result<StoredFacts> read_state(Context& context, const Settings& settings) {
  const auto goal = context.stored_goal();
  if (!goal) return fail(goal.error());
  StoredFacts state;
  state.goal = *goal;
  state.problem = context.state_problem();
  if (const auto holder = mutation_holder(context.paths())) {
    state.under_way =
        fmt::format("{} (pid {}, for {})", holder->about, holder->pid, format_seconds(wall_now() - holder->since));
  } else if (const auto left = context.interrupted_switch(); left && *left) {
    const auto words = in_words(**left, recovery_of(**left, settings));
    state.interrupted = words.text;
    state.what_to_do = words.hint;
  }
  return state;
}

/// After the driver and the unit manager have answered, so that looking at what runs cannot hang in them.
Task<void> see_what_runs(Context& context, DoctorFacts& facts) {
  if (!facts.catalog || !facts.manager) {
    facts.seen =
        facts.catalog ? fail(ErrorCode::environment, "the unit manager does not answer") : fail(facts.catalog.error());
    co_return;
  }
  const Catalog& catalog = *facts.catalog;
  auto machine =
      open_machine(context.loop(), context.paths(), catalog.settings, facts.answer ? WithGpus::yes : WithGpus::no);
  if (!machine) {
    facts.seen = fail(machine.error());
    co_return;
  }
  auto snapshot = co_await observe(*machine, catalog);
  if (!snapshot) {
    facts.seen = fail(snapshot.error());
    co_return;
  }
  if (!facts.answer) snapshot->gpu_problem = facts.answer.error();
  SeenFacts seen;
  const auto goal = facts.state ? facts.state->goal : std::nullopt;
  const auto unfinished = find_unfinished(context, goal, catalog.settings);
  seen.ledgers = ledgers_of(*snapshot, catalog.services, goal_with_change(goal, unfinished.open));
  if (facts.state && !unfinished.described.is_object() && facts.state->problem.empty()) {
    const auto evidence = co_await context.evidence_of_squeeze(*snapshot);
    seen.differences = differences_of(goal, *snapshot, catalog, {}, evidence);
  }
  seen.snapshot = std::move(*snapshot);
  facts.seen = std::move(seen);
}

bool is_local(const Settings& settings) {
  const auto override = environment_variable("GPUMOD_UNIT_MANAGER");
  return override.empty() ? settings.unit_manager == UnitManagerKind::local : override == "local";
}

}  // namespace

Result<DriverAnswer> driver_answer_in(std::string_view text) {
  boost::system::error_code problem;
  const auto parsed = json::parse(text, problem);
  const auto* object = problem ? nullptr : parsed.if_object();
  if (!object)
    return fail(ErrorCode::failed, "the question to the driver broke off", "See what `gpumod gpu list` says.");
  if (const auto* error = object->if_contains("error")) return fail(error_from_json(*error));
  const auto members = [&](std::string_view key) {
    const auto* array = object->if_contains(key);
    return array && array->is_array() ? array->get_array() : json::array();
  };
  const auto number = [](const json::object& line, std::string_view key) {
    const auto* value = line.if_contains(key);
    return value && value->is_int64() ? static_cast<int>(value->get_int64()) : 0;
  };
  DriverAnswer answer;
  answer.version = text_of(*object, "driver");
  for (const auto& gpu : members("gpus")) {
    if (!gpu.is_object()) continue;
    DriverAnswer::Card card{number(gpu.get_object(), "index"), text_of(gpu.get_object(), "name"), std::nullopt};
    const auto* persistence = gpu.get_object().if_contains("persistence");
    if (persistence && persistence->is_bool()) card.persistence = persistence->get_bool();
    answer.cards.push_back(std::move(card));
  }
  for (const auto& gpu : members("missing"))
    if (gpu.is_object())
      answer.missing.push_back({number(gpu.get_object(), "index"), text_of(gpu.get_object(), "problem")});
  return answer;
}

ProgramFacts program_facts(const fs::path& binary) {
  ProgramFacts program;
  program.path = binary.string();
  program.problem = lost_interpreter(binary);
  std::error_code problem, ignored;
  // People link programs of an environment into ~/.local/bin.
  auto environment = binary.parent_path().parent_path();
  if (!fs::exists(environment / "pyvenv.cfg", ignored))
    environment = fs::canonical(binary, ignored).parent_path().parent_path();
  if (!fs::exists(environment / "pyvenv.cfg", ignored)) return program;
  program.environment = environment.string();
  const auto python = fs::canonical(environment / "bin" / "python", problem);
  if (!problem) program.environment_python = python.filename().string();
  for (fs::directory_iterator each(environment / "lib", problem), end; !problem && each != end; each.increment(problem))
    if (each->path().filename().string().starts_with("python") &&
        fs::is_directory(each->path() / "site-packages", ignored))
      program.packages_for.insert(each->path().filename().string());
  return program;
}

Task<DoctorFacts> gather(Context& context, fs::path root) {
  DoctorFacts facts;
  facts.answer = fail(ErrorCode::failed, "the driver was not asked");
  const auto catalog = context.catalog();
  if (catalog)
    facts.catalog = **catalog;
  else
    facts.catalog = fail(catalog.error());
  const Settings settings = facts.catalog ? facts.catalog->settings : Settings();
  facts.user = own_user();
  facts.local = is_local(settings);
  facts.lingers = lingers(facts.user, root);
  facts.journal_hidden = system_journal_is_hidden(root);
  facts.state = read_state(context, settings);

  Waiting waiting(context.loop());
  std::vector<Task<void>> looking;
  looking.push_back(waiting.on("the NVIDIA driver", ask_driver(facts)));
  looking.push_back(waiting.on("the kernel", look_at_box(context, root, facts)));
  looking.push_back(waiting.on("the unit manager", ask_manager(context, facts)));
  looking.push_back(waiting.on("the disk of your folders", look_at_folders(context, root, facts)));
  looking.push_back(waiting.on("programs to say their version", look_at_programs(context, facts)));
  looking.push_back(waiting.on("the disk of the models", look_at_models(context, root, facts)));
  looking.push_back(waiting.tell(context));
  co_await run_all(std::move(looking));
  co_await see_what_runs(context, facts);
  co_return facts;
}

}  // namespace gpumod
