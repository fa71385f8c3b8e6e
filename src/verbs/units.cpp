// unit show, install, remove: the systemd unit of a service as a file, for people who want to start it by hand.

#include <algorithm>

#include <boost/json.hpp>
#include <fmt/format.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/text.h"
#include "control/launch.h"
#include "control/unit_files.h"
#include "host/systemd_env_file.h"
#include "verbs/handlers.h"
#include "verbs/unit_text.h"

namespace gpumod {

namespace fs = std::filesystem;
namespace json = boost::json;

namespace {

constexpr std::size_t unit_file_limit = 1 << 20;

fs::path environment_folder(const Paths& paths) {
  return paths.state / "units";
}

/// The unit as a file, and what has to lie beside it.
struct UnitFiles {
  std::string unit;
  fs::path path;
  std::string text;
  fs::path environment_file;
  std::string environment;
  fs::path preset;  ///< of a router that needs one
  std::string preset_text;
};

/// A router's preset lies in the runtime directory, which a reboot empties: a unit that stays needs one that stays.
Result<void> keep_preset(const Paths& paths, UnitSpec& spec, UnitFiles& files) {
  const auto volatile_folder = (paths.runtime / "routers").string() + "/";
  for (auto& word : spec.argv) {
    if (!word.starts_with(volatile_folder)) continue;
    files.preset_text = TRY(read_file(word, unit_file_limit));
    files.preset = environment_folder(paths) / fs::path(word).filename();
    word = files.preset.string();
  }
  return {};
}

Result<UnitFiles> files_of(const Paths& paths, const Catalog& catalog, const Service& service) {
  Machine machine;  // only its folders are needed: showing a unit asks neither systemd nor a GPU
  machine.paths = paths;
  if (service.in_router()) TRY(ensure_runtime_directory(paths));  // its preset is written there
  auto spec = TRY(unit_spec_for(machine, catalog, service.unit_name(), {}));
  UnitFiles files;
  files.unit = spec.name;
  files.path = unit_folder(paths) / spec.name;
  files.environment_file = environment_file_path(environment_folder(paths), spec.name);
  files.environment = TRY(environment_file_text(spec.environment));
  TRY(keep_preset(paths, spec, files));
  std::vector<std::string> remarks{
      fmt::format("It is made of {}. After a change there: gpumod unit install {}", service.source.file, service.id),
      fmt::format("To be rid of it: gpumod unit remove {}", service.id),
  };
  const auto members = catalog.services_of_unit(spec.name);
  if (members.size() > 1) {
    std::vector<std::string> ids;
    for (const auto* member : members)
      ids.push_back(member->id);
    remarks.insert(remarks.begin(), fmt::format("One router for the services {}.", join(ids, ", ")));
  }
  files.text = TRY(unit_file_text(spec, files.environment_file, remarks));
  return files;
}

Result<void> refuse_adopted(const Service& service) {
  if (service.unit.empty()) return {};
  return fail(ErrorCode::refused,
              fmt::format("service '{}' runs in your own unit {}, which gpumod never writes or removes", service.id,
                          service.unit),
              fmt::format("Edit it yourself: systemctl --user edit {}", service.unit));
}

/// May the file be replaced or removed? `what`: "replaced" or "removed".
Result<void> check_ours(const fs::path& path, std::string_view what) {
  std::error_code ignored;
  if (!fs::is_regular_file(fs::symlink_status(path, ignored)))
    return fail(ErrorCode::refused, fmt::format("{} is no plain file of gpumod's, and is not {}", path.string(), what),
                "Look at it, and remove it yourself if it is not needed.");
  const auto text = TRY(read_file(path, unit_file_limit));
  switch (authorship_of(text)) {
    case Authorship::ours: return {};
    case Authorship::edited:
      return fail(ErrorCode::refused,
                  fmt::format("{} was edited since gpumod wrote it, and is not {}", path.string(), what),
                  "Keep your version: rename it and adopt it with 'unit:'. Or delete it yourself, and try again.");
    case Authorship::foreign: break;
  }
  return fail(ErrorCode::refused, fmt::format("{} was not written by gpumod, and is not {}", path.string(), what),
              "To use it, adopt it with 'unit:' in the service's file. Or delete it yourself, and try again.");
}

Result<Machine*> systemd_of(Context& context) {
  auto* machine = TRY(context.machine());
  if (machine->units->kind() != "systemd")
    return fail(ErrorCode::environment, "services run under gpumod's own supervisor here, which knows no unit files",
                "Unit files need the systemd user manager: unit_manager: systemd in gpumod.yaml.");
  return machine;
}

/// systemd, reloaded while a unit runs without a file, goes on looking for that unit where it was made, and says "not
/// found" once it has stopped (seen with 252).
Error runs_without_file(const std::string& unit, const ServiceId& id) {
  return {
      ErrorCode::refused,
      fmt::format("{} runs as gpumod started it, and systemd would not see a file that is installed meanwhile", unit),
      fmt::format("Stop it first: gpumod service stop {}", id),
      {}};
}

Result<void> write_all(const UnitFiles& files) {
  TRY(make_directories(files.environment_file.parent_path(), 0700));
  TRY(write_file_atomically(files.environment_file, files.environment, 0600));
  if (!files.preset.empty()) TRY(write_file_atomically(files.preset, files.preset_text, 0600));
  TRY(make_directories(files.path.parent_path(), 0700));
  return write_file_atomically(files.path, files.text, 0600);
}

/// A service that is in the catalogue no more may have left its unit behind.
Result<std::string> unit_to_remove(const Paths& paths, const Catalog& catalog, const std::string& id) {
  const auto service = catalog.service(id);
  if (service) {
    TRY(refuse_adopted(**service));
    return (*service)->unit_name();
  }
  const auto unit = "gpumod-" + id + ".service";
  if (is_valid_id(id) && is_there(unit_folder(paths) / unit)) return unit;
  return fail(service.error());
}

/// `systemctl --user enable` leaves links to the unit; without the unit they would dangle.
void remove_enabling_links(const fs::path& unit_file) {
  std::error_code unreadable;
  for (fs::directory_iterator each(unit_file.parent_path(), unreadable), end; !unreadable && each != end;
       each.increment(unreadable)) {
    const auto& folder = each->path();
    if (folder.extension() != ".wants" && folder.extension() != ".requires") continue;
    const auto link = folder / unit_file.filename();
    std::error_code no_link;
    const auto target = fs::read_symlink(link, no_link);
    if (!no_link &&
        (target.is_absolute() ? target : folder / target).lexically_normal() == unit_file.lexically_normal())
      ::unlink(link.c_str());
  }
}

}  // namespace

Answer unit_show(Context& context, Request request) {
  const auto catalog = context.catalog();
  if (!catalog) co_return fail(catalog.error());
  const auto service = (*catalog)->service(text_of(request, "service"));
  if (!service) co_return fail(service.error());
  if (!(*service)->unit.empty()) {
    const auto path = fragment_of(context.paths(), (*service)->unit);
    if (!path) co_return fail(path.error());
    const auto text = read_file(*path, unit_file_limit);
    if (!text) co_return fail(text.error());
    co_return json::value(json::object{{"unit", (*service)->unit}, {"text", *text}, {"installed", path->string()}});
  }
  const auto files = files_of(context.paths(), **catalog, **service);
  if (!files) co_return fail(files.error());
  const json::value installed = is_there(files->path) ? json::value(files->path.string()) : json::value(nullptr);
  co_return json::value(json::object{{"unit", files->unit}, {"text", files->text}, {"installed", installed}});
}

Answer unit_install(Context& context, Request request) {
  const auto catalog = context.catalog();
  if (!catalog) co_return fail(catalog.error());
  const auto service = (*catalog)->service(text_of(request, "service"));
  if (!service) co_return fail(service.error());
  if (const auto own = refuse_adopted(**service); !own) co_return fail(own.error());
  const auto machine = systemd_of(context);
  if (!machine) co_return fail(machine.error());
  const auto files = files_of(context.paths(), **catalog, **service);
  if (!files) co_return fail(files.error());
  if (is_there(files->path))
    if (const auto ours = check_ours(files->path, "replaced"); !ours) co_return fail(ours.error());
  const auto before = co_await (*machine)->units->status(files->unit);
  if (!before) co_return fail(before.error());
  if (before->transient && !before->gone()) co_return fail(runs_without_file(files->unit, (*service)->id));
  if (before->transient) {
    // What is left of a failed run would keep systemd from seeing the file, too.
    const auto forgotten = co_await (*machine)->units->reset_failed(files->unit);
    if (!forgotten) co_return fail(forgotten.error());
  }
  if (const auto written = write_all(*files); !written) co_return fail(written.error());
  const auto reloaded = co_await (*machine)->units->reload();
  if (!reloaded) co_return fail(reloaded.error());
  const auto status = co_await (*machine)->units->status(files->unit);
  if (status && status->fragment.empty() && status->gone())
    context.notice(
        fmt::format("{} was written, but systemd does not see it there: its XDG_CONFIG_HOME may be another one",
                    files->path.string()));
  if (status && !status->gone())
    context.notice(fmt::format("{} runs as it was started; the file takes effect at its next start", files->unit));
  co_return json::value(
      json::object{{"installed", json::object{{"unit", files->unit}, {"file", files->path.string()}}}});
}

Answer unit_remove(Context& context, Request request) {
  const auto catalog = context.catalog();
  if (!catalog) co_return fail(catalog.error());
  const auto id = text_of(request, "service");
  const auto removable = unit_to_remove(context.paths(), **catalog, id);
  if (!removable) co_return fail(removable.error());
  const auto& unit = *removable;
  const auto machine = systemd_of(context);
  if (!machine) co_return fail(machine.error());
  const auto path = unit_folder(context.paths()) / unit;
  if (!is_there(path))
    co_return fail(ErrorCode::not_found, fmt::format("{} is not installed: there is no {}", unit, path.string()));
  if (const auto ours = check_ours(path, "removed"); !ours) co_return fail(ours.error());
  const auto status = co_await (*machine)->units->status(unit);
  if (!status) co_return fail(status.error());
  if (!status->gone())
    co_return fail(ErrorCode::refused,
                   fmt::format("{} runs ({}): without its file systemd could not run its stop command", unit,
                               to_string(status->active)),
                   fmt::format("Stop it first: gpumod service stop {}", id));
  std::error_code problem;
  if (!fs::remove(path, problem) || problem)
    co_return fail(ErrorCode::failed, fmt::format("{} could not be removed: {}", path.string(), problem.message()));
  remove_enabling_links(path);
  const auto folder = environment_folder(context.paths());
  for (const auto& leftover : {environment_file_path(folder, unit), folder / (unit + ".ini")})
    fs::remove(leftover, problem);
  const auto reloaded = co_await (*machine)->units->reload();
  if (!reloaded) co_return fail(reloaded.error());
  co_return json::value(json::object{{"removed", json::object{{"unit", unit}, {"file", path.string()}}}});
}

}  // namespace gpumod
