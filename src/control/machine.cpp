#include "control/machine.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"

namespace gpumod {

Result<Machine> open_machine(Loop& loop, const Paths& paths, const Settings& settings, WithGpus with_gpus) {
  TRY(ensure_runtime_directory(paths));
  Machine machine;
  machine.loop = &loop;
  machine.paths = paths;
  auto kind = settings.unit_manager;
  const auto override = environment_variable("GPUMOD_UNIT_MANAGER");
  if (override == "systemd") kind = UnitManagerKind::systemd;
  if (override == "local") kind = UnitManagerKind::local;
  if (!override.empty() && override != "systemd" && override != "local")
    return fail(ErrorCode::usage, fmt::format("GPUMOD_UNIT_MANAGER is '{}'", override),
                "It can be 'systemd' or 'local'.");
  // Never chosen silently: a service that one manager runs is invisible to the other.
  machine.units =
      kind == UnitManagerKind::local ? TRY(open_local_supervisor(loop, paths)) : TRY(connect_systemd(loop, paths));
  machine.http = make_http_client(loop);
  if (with_gpus == WithGpus::no) {
    machine.gpu_problem = Error{ErrorCode::environment, "the GPUs were not looked at", {}, {}};
    return machine;
  }
  auto gpus = open_nvml();
  if (gpus)
    machine.gpus = std::move(*gpus);
  else
    machine.gpu_problem = gpus.error();
  return machine;
}

Result<void> ensure_runtime_directory(const Paths& paths) {
  TRY(make_own_directory(paths.runtime, "GPUMOD_RUNTIME_DIR"));
  struct stat info {};
  if (::lstat(paths.runtime.c_str(), &info) != 0)
    return fail(system_error(paths.runtime.string(), errno, ErrorCode::environment));
  if (!S_ISDIR(info.st_mode) || info.st_uid != ::geteuid() || (info.st_mode & 0022) != 0)
    return fail(
        ErrorCode::environment,
        fmt::format("the runtime directory {} is not a directory that only you can write to", paths.runtime.string()),
        "Remove it, or set XDG_RUNTIME_DIR or GPUMOD_RUNTIME_DIR to a directory of yours.");
  return {};
}

}  // namespace gpumod
