#include "control/launch.h"

#include <algorithm>
#include <cerrno>

#include <boost/json.hpp>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/text.h"
#include "control/interpreter.h"
#include "control/model_check.h"
#include "engines/engine.h"
#include "host/processes.h"
#include "host/run.h"

namespace gpumod {

namespace fs = std::filesystem;

namespace {

/// The PATH that programs are looked up in: ours, and where people's own installers put things.
std::string search_path(const Paths& paths) {
  auto path = environment_variable("PATH");
  if (path.empty()) path = "/usr/local/bin:/usr/bin:/bin";
  return path + ":" + (paths.home / ".local/bin").string();
}

}  // namespace

const EngineSettings* engine_settings(const Catalog& catalog, EngineKind kind) {
  const auto found = catalog.settings.engines.find(kind);
  return found == catalog.settings.engines.end() ? nullptr : &found->second;
}

NamedBinary named_binary(const Catalog& catalog, const Service& service) {
  const auto* settings = engine_settings(catalog, service.engine);
  if (!service.binary.empty())
    return {service.binary.string(), fmt::format("binary: in {}", to_string(service.source))};
  if (settings && !settings->binary.empty())
    return {settings->binary.string(), fmt::format("engines.{}.binary in gpumod.yaml", to_string(service.engine))};
  const auto usual = engine_for(service.engine).binary_name(service);
  if (usual.empty() && service.command() && !service.command()->cmd.empty())
    return {service.command()->cmd.front(), fmt::format("cmd: in {}", to_string(service.source))};
  return {usual, ""};
}

/// Service, then settings, then PATH.
Result<fs::path> binary_of(const Paths& paths, const Catalog& catalog, const Service& service) {
  const auto named = named_binary(catalog, service);
  auto found = find_program(named.name, search_path(paths));
  if (found) return *found;
  if (named.said_in.empty() && !service.command())
    return fail(ErrorCode::refused, fmt::format("service '{}': {} was not found in PATH", service.id, named.name),
                fmt::format("Install it, or say where it is: engines.{}.binary in gpumod.yaml, or binary: in {}.",
                            to_string(service.engine), to_string(service.source)));
  return fail(ErrorCode::refused,
              fmt::format("service '{}': {} ({})", service.id, found.error().message, named.said_in),
              "Install it, or correct the path.");
}

namespace {

/// vLLM made numbers of CUDA_VISIBLE_DEVICES, and died of a UUID ("invalid literal for int() with base 10"), until
/// vllm#45026: 0.22 still does (vllm#13815, #20939, #41848), 0.24 is the first that was seen to take one. Which one is
/// installed beside a wrapper script, or in a container, is not known.
bool takes_uuids(const Service& service, const fs::path& binary) {
  return !service.vllm() || is_at_least(installed_package_version(binary, "vllm"), 0, 24);
}

/// As CUDA_VISIBLE_DEVICES takes them: by UUID, which means the same GPU when another one is lost or hidden. Where the
/// engine may refuse that by index, which CUDA_DEVICE_ORDER=PCI_BUS_ID makes the driver's. A slice of MIG has no index.
std::vector<std::string> cuda_devices(const Service& service, const fs::path& binary,
                                      const std::vector<GpuSample>& gpus) {
  std::vector<std::string> devices;
  const bool by_uuid = gpus.empty() || takes_uuids(service, binary);
  for (const auto& gpu : gpus) {
    if (!gpu.is_instance()) {
      devices.push_back(!by_uuid || gpu.uuid.empty() ? fmt::format("{}", gpu.index) : gpu.uuid);
      continue;
    }
    const auto named = std::find_if(gpu.slices.begin(), gpu.slices.end(), [&](const GpuSlice& slice) {
      const auto& wanted = service.gpu.devices;
      return std::find(wanted.begin(), wanted.end(), slice.uuid) != wanted.end();
    });
    devices.push_back(named == gpu.slices.end() ? gpu.uuid : named->uuid);
  }
  return devices;
}

/// Writes the preset of a router that needs one; the path, or "" when it needs none.
Result<fs::path> write_router_preset(const Machine& machine, const std::string& unit,
                                     const std::vector<const Service*>& members) {
  const auto text = TRY(router_preset(members));
  if (!text) return fs::path();
  const auto directory = machine.paths.runtime / "routers";
  TRY(make_directories(directory, 0700));
  const auto path = directory / (unit + ".ini");
  TRY(write_file_atomically(path, *text, 0600));
  return path;
}

}  // namespace

Result<UnitSpec> unit_spec_for(const Machine& machine, const Catalog& catalog, const std::string& unit,
                               const std::vector<GpuSample>& gpus) {
  const auto members = catalog.services_of_unit(unit);
  if (members.empty()) return fail(ErrorCode::not_found, fmt::format("no service of the catalogue runs in {}", unit));
  const Service& service = *members.front();
  LaunchContext context;
  context.binary = TRY(binary_of(machine.paths, catalog, service));
  context.cuda_devices = cuda_devices(service, context.binary, gpus);
  context.settings = engine_settings(catalog, service.engine);
  context.unit = unit;
  context.router_members = members;
  if (service.in_router()) context.router_preset = TRY(write_router_preset(machine, unit, members));
  if (const auto* command = service.command(); command && !command->cmd_stop.empty()) {
    auto stop = find_program(command->cmd_stop.front(), search_path(machine.paths));
    if (!stop)
      return fail(ErrorCode::refused, fmt::format("service '{}': cmd_stop: {}", service.id, stop.error().message));
    context.stop_binary = *stop;
  }
  return engine_for(service.engine).launch(service, context);
}

namespace {

struct Preflight {
  Machine& machine;
  const Catalog& catalog;
  std::vector<Error> problems;

  void add(Error problem) { problems.push_back(std::move(problem)); }
};

/// Disks can be slow, and other steps wait on the loop meanwhile.
Task<void> check_model(Preflight& check, const Service& service, fs::path binary) {
  std::vector<Error> problems;
  const auto added = additions_of(check.catalog, service);
  const auto& home = check.machine.paths.home;
  const std::function<void()> look = [&] { problems = model_problems(service, added, home, binary); };
  co_await run_blocking(look);
  for (auto& problem : problems)
    check.add(std::move(problem));
}

Task<void> check_unit_names(Preflight& check, const Service& service) {
  if (!service.unit.empty()) {
    const std::string adopted = service.unit;
    const auto status = co_await check.machine.units->status(adopted);
    if (status && !status->exists)
      check.add(
          {ErrorCode::refused,
           fmt::format("service '{}': the unit {} does not exist", service.id, service.unit),
           fmt::format("Install it (systemctl --user list-unit-files shows what is there), or remove unit: from {}.",
                       to_string(service.source)),
           {}});
    if (status)
      for (auto& problem : adopted_unit_problems(check.machine.paths, service, status->fragment))
        check.add(std::move(problem));
    co_return;
  }
  if (check.machine.units->kind() != "systemd") co_return;
  const std::string theirs = service.id + ".service";
  const auto status = co_await check.machine.units->status(theirs);
  if (status && status->exists && !status->fragment.empty())
    check.add(
        {ErrorCode::refused,
         fmt::format("service '{}': there is already a unit {} of yours ({})", service.id, theirs, status->fragment),
         fmt::format("Adopt it: add 'unit: {}' to {}. Or, if it is something else, rename the service's id.", theirs,
                     to_string(service.source)),
         {}});
}

/// The --help text of a binary, kept by path, size and time of change: asking some of them takes seconds.
Task<std::string> help_of(Machine& machine, fs::path binary, std::vector<std::string> arguments, Duration patience) {
  struct stat info {};
  if (::stat(binary.c_str(), &info) != 0) co_return "";
  std::string key =
      fmt::format("{}-{}-{}-{}", binary.string(), info.st_mtim.tv_sec, info.st_size, join(arguments, " "));
  const auto file = machine.paths.cache / "help" / fmt::format("{:016x}.txt", std::hash<std::string>()(key));
  if (auto cached = read_file(file, 4 << 20)) co_return *cached;
  arguments.insert(arguments.begin(), binary.string());
  const auto outcome = co_await run_program(std::move(arguments), patience);
  if (!outcome || outcome->timed_out) co_return "";
  if (make_directories(file.parent_path(), 0700)) (void)write_file_atomically(file, outcome->output, 0600);
  co_return outcome->output;
}

Task<void> check_flags(Preflight& check, const Service& service, const UnitSpec& spec) {
  if (service.command()) co_return;  // people's own program
  // vLLM imports all of PyTorch before it prints its --help: asked once for each build, and only where people wrote
  // arguments of their own. What gpumod itself passes has been vLLM's for years.
  const auto* settings = engine_settings(check.catalog, service.engine);
  if (service.vllm() && service.extra_args.empty() && (!settings || settings->extra_args.empty())) co_return;
  const Duration patience = service.vllm() ? 90s : 10s;
  for (const auto& arguments : engine_for(service.engine).help_arguments(service)) {
    const fs::path binary = spec.argv.front();
    const auto help = co_await help_of(check.machine, binary, arguments, patience);
    const auto unknown = unknown_flags(spec.argv, help);
    for (const auto& flag : unknown)
      check.add({ErrorCode::refused,
                 fmt::format("service '{}': {} does not know the option {}", service.id, spec.argv.front(), flag.flag),
                 flag.nearest.empty()
                     ? fmt::format("Correct extra_args in {}.", to_string(service.source))
                     : fmt::format("Did you mean {}? See extra_args in {}.", flag.nearest, to_string(service.source)),
                 {}});
    if (help.find("--") != std::string::npos) co_return;
  }
}

Task<void> check_service(Preflight& check, const Service& service) {
  co_await check_unit_names(check, service);
  if (!service.unit.empty()) co_return;  // people's own unit: what it runs is theirs
  const auto spec = unit_spec_for(check.machine, check.catalog, service.unit_name(), {});
  const fs::path binary = spec ? spec->argv.front() : std::string();
  co_await check_model(check, service, binary);
  if (!spec) {
    check.add(spec.error());
    co_return;
  }
  if (auto lost = lost_interpreter(spec->argv.front())) {
    lost->message = fmt::format("service '{}': {}", service.id, lost->message);
    check.add(std::move(*lost));
    co_return;
  }
  // What a program of people's own, or its container, makes of `host` is its affair.
  if (!service.command() && is_foreign_address(service.host))
    check.add({ErrorCode::refused,
               fmt::format("service '{}': {} is no address of this machine", service.id, service.host),
               fmt::format("Correct `host:` in {}; 127.0.0.1 is for this machine alone, 0.0.0.0 for everybody.",
                           to_string(service.source)),
               {}});
  co_await check_flags(check, service, *spec);
}

/// The journal of a switch, its recording, and what SQLite needs beside them.
constexpr std::uint64_t room_for_state = 512 * 1024;
/// What a service needs to be started at all: its supervisor's state, the first lines of its log, a router's preset.
constexpr std::uint64_t room_for_start = 64 * 1024;

Result<void> check_room_in(const fs::path& directory, std::uint64_t needed, std::string_view variable) {
  struct statvfs info {};
  if (::statvfs(directory.c_str(), &info) != 0 || info.f_blocks == 0) return {};  // then nothing is known of its size
  const auto free = std::uint64_t{::geteuid() == 0 ? info.f_bfree : info.f_bavail} * info.f_frsize;
  if (free >= needed) return {};
  Error full = unwritable("", ENOSPC);
  full.message = fmt::format("no room in {}: {} bytes free, {} are needed", directory.string(), free, needed);
  return fail(or_elsewhere(std::move(full), variable));
}

/// A disk that is full in the middle of a switch stops it half-way.
Result<void> check_room(const Paths& paths, std::size_t starts) {
  TRY(check_room_in(paths.runtime, room_for_start * starts, "GPUMOD_RUNTIME_DIR"));
  return check_room_in(paths.state, room_for_state, "GPUMOD_STATE_DIR");
}

}  // namespace

Task<Result<void>> preflight(Machine& machine, const Catalog& catalog, std::vector<ServiceId> services) {
  if (services.empty()) co_return Result<void>();  // to stop needs little
  if (const auto room = check_room(machine.paths, services.size()); !room) co_return fail(room.error());
  Preflight check{machine, catalog, {}};
  for (const auto& id : services)
    if (const auto found = catalog.services.find(id); found != catalog.services.end())
      co_await check_service(check, found->second);
  if (check.problems.empty()) co_return Result<void>();
  Error error = check.problems.front();
  boost::json::array all;
  for (const auto& problem : check.problems)
    all.push_back({{"message", problem.message}, {"hint", problem.hint}});
  if (check.problems.size() > 1)
    error.message += fmt::format(" (and {})", counted(check.problems.size() - 1, "more problem"));
  error.code = ErrorCode::refused;
  error.details = boost::json::object{{"problems", std::move(all)}};
  co_return fail(std::move(error));
}

}  // namespace gpumod
