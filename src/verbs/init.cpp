// init: looks around, shows what it would write, and writes it after consent. Never over what is there.

#include <algorithm>

#include <boost/json.hpp>
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/text.h"
#include "host/box.h"
#include "host/gpu_monitor.h"
#include "host/processes.h"
#include "host/unit_manager.h"
#include "verbs/handlers.h"
#include "verbs/propose.h"

namespace gpumod {

namespace fs = std::filesystem;
namespace json = boost::json;

namespace {

struct Around {
  std::string unit_manager;  ///< "systemd" or "local"
  json::value gpus;          ///< their number, or null
  std::optional<Bytes> largest_gpu;
  std::vector<std::string> advice;
};

/// Who will run the services: what people decided, or what answers.
void find_unit_manager(Context& context, const Catalog& catalog, Around& around) {
  const auto override = environment_variable("GPUMOD_UNIT_MANAGER");
  if (override == "local" || override == "systemd") {
    around.unit_manager = override;
  } else if (catalog.settings.unit_manager == UnitManagerKind::local) {
    around.unit_manager = "local";
  } else if (const auto reached = connect_systemd(context.loop(), context.paths())) {
    around.unit_manager = "systemd";
  } else {
    around.unit_manager = "local";
    around.advice.push_back(
        fmt::format("Services run under gpumod's own supervisor here: {}.", reached.error().message));
  }
  if (around.unit_manager == "systemd" && !lingers(own_user(), "/"))
    around.advice.push_back(
        "Services end when you log out of this machine's last session. To keep them: loginctl enable-linger");
}

Task<void> find_gpus(Around& around) {
  auto monitor = open_nvml();
  if (!monitor) {
    around.advice.push_back(
        fmt::format("No NVIDIA GPU can be seen ({}): services run, but gpumod cannot count their memory.",
                    monitor.error().message));
    co_return;
  }
  const auto sample = co_await (*monitor)->sample();
  if (!sample) {
    around.advice.push_back(fmt::format("The GPUs cannot be read: {}.", sample.error().message));
    co_return;
  }
  around.gpus = sample->size();
  for (const auto& gpu : *sample)
    if (gpu.total && (!around.largest_gpu || *gpu.total > *around.largest_gpu)) around.largest_gpu = gpu.total;
}

/// Ports near those we would give away that somebody listens on.
std::set<std::uint16_t> busy_ports() {
  std::vector<std::uint16_t> asked;
  for (std::uint16_t port = 7070; port < 7170; ++port)
    asked.push_back(port);
  std::set<std::uint16_t> busy;
  for (const auto& listener : listeners_on(asked))
    busy.insert(listener.port);
  return busy;
}

/// Fails when the file is there, however it came there.
Result<void> write_new_file(const fs::path& path, std::string_view text) {
  TRY(make_directories(path.parent_path(), 0700));
  const Fd file(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!file) return fail(system_error(fmt::format("create {}", path.string()), errno));
  while (!text.empty()) {
    const ssize_t n = ::write(file.get(), text.data(), text.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      const int problem = errno;
      ::unlink(path.c_str());
      return fail(system_error(fmt::format("write {}", path.string()), problem));
    }
    text.remove_prefix(static_cast<std::size_t>(n));
  }
  return {};
}

bool is_there(const fs::path& path) {
  std::error_code ignored;
  const auto type = fs::symlink_status(path, ignored).type();
  return type != fs::file_type::not_found && type != fs::file_type::none;
}

json::object describe(const Findings& findings, const Around& around) {
  json::array engines, models, hub, units;
  for (const auto& each : findings.engines)
    engines.push_back({{"engine", to_string(each.engine)},
                       {"binary", each.binary.string()},
                       {"version", each.version},
                       {"problem", each.problem}});
  for (const auto& each : findings.models)
    models.push_back(
        {{"path", each.path.string()}, {"bytes", each.size.count()}, {"kind", to_string(each.guess.kind)}});
  for (const auto& each : findings.hub)
    hub.push_back({{"id", each.id}, {"kind", to_string(each.kind)}});
  for (const auto& each : findings.units)
    units.push_back({{"name", each.name}, {"path", each.path.string()}, {"engine", to_string(each.guess.engine)}});
  return {{"engines", std::move(engines)}, {"models", std::move(models)},         {"hub", std::move(hub)},
          {"units", std::move(units)},     {"unit_manager", around.unit_manager}, {"gpus", around.gpus}};
}

/// The next steps come last, where people look.
json::array all_advice(const json::array& files, const Around& around, const Proposal& proposal,
                       const fs::path& config) {
  json::array advice;
  const auto add = [&](const std::string& line) { advice.push_back(json::value(line)); };
  for (const auto& file : files)
    if (file.at("exists").as_bool())
      add(fmt::format("{} is there already and stays as it is.", file.at("path").as_string().c_str()));
  for (const char* old : {"GPUMOD_PRESETS_DIR", "GPUMOD_MODES_DIR"})
    if (const auto folder = environment_variable(old); !folder.empty())
      add(fmt::format("{} ({}) is not read any more: put those files, or a link to their folder, below {}.", old,
                      folder, config.string()));
  for (const auto& line : around.advice)
    add(line);
  for (const auto& line : proposal.advice)
    add(line);
  return advice;
}

}  // namespace

Answer initialise(Context& context, Places places, bool apply) {
  Paths making = context.paths();
  making.config_named = false;  // it is here that such a folder is made
  const auto catalog = load_catalog(making);
  if (!catalog) co_return fail(catalog.error());
  Around around;
  if (context.paths().config_named && !is_there(making.config))
    around.advice.push_back(
        fmt::format("GPUMOD_CONFIG_DIR is {}, which was not there before: is that where the "
                    "configuration belongs?",
                    making.config.string()));
  find_unit_manager(context, *catalog, around);
  co_await find_gpus(around);
  for (const auto& [kind, settings] : catalog->settings.engines)
    if (kind == EngineKind::llamacpp && settings.binary.is_absolute())
      places.program_folders.insert(places.program_folders.begin(), settings.binary.parent_path());
  auto findings = co_await look_around(std::move(places));
  if (!findings) co_return fail(findings.error());

  const auto& config = context.paths().config;
  Ground ground;
  ground.catalog = &*catalog;
  ground.exists = [&config](const std::string& relative) { return is_there(config / relative); };
  ground.settings_file = (config / "gpumod.yaml").string();
  ground.unit_manager = around.unit_manager;
  if (around.gpus.is_uint64()) ground.gpus = static_cast<int>(around.gpus.as_uint64());
  ground.largest_gpu = around.largest_gpu;
  ground.busy_ports = busy_ports();
  const auto proposal = propose(*findings, ground);

  json::array files, written;
  for (const auto& file : proposal.files) {
    const auto path = config / file.path;
    const bool exists = is_there(path);
    files.push_back({{"path", path.string()}, {"text", exists ? "" : file.text}, {"exists", exists}});
    if (exists || !apply) continue;
    if (const auto done = write_new_file(path, file.text); !done) {
      Error error = done.error();
      error.message += fmt::format("; {} written before",
                                   written.size() == 1 ? "1 file was" : counted(written.size(), "file") + " were");
      error.details = json::object{{"written", std::move(written)}};
      co_return fail(std::move(error));
    }
    written.push_back(json::value(path.string()));
  }
  auto advice = all_advice(files, around, proposal, config);
  co_return json::value(json::object{{"found", describe(*findings, around)},
                                     {"files", std::move(files)},
                                     {"written", std::move(written)},
                                     {"advice", std::move(advice)}});
}

Answer init(Context& context, Request request) {
  if (request.contains("models") && list_of(request, "models").empty())
    co_return fail(ErrorCode::usage, "--models names no folder", "Give it the folder that the GGUF files lie in.");
  std::error_code problem;
  auto here = fs::current_path(problem);
  if (problem) here = context.paths().home;  // the folder was removed under our feet
  auto places = usual_places(context.paths(), here, list_of(request, "models"), text_of(request, "llama-server"));
  const bool apply = flag_of(request, "apply") || flag_of(request, "yes");
  co_return co_await initialise(context, std::move(places), apply);
}

}  // namespace gpumod
