#include "control/launched.h"

#include <algorithm>
#include <set>

#include <fmt/format.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/text.h"
#include "control/digest.h"
#include "control/launch.h"
#include "control/unit_files.h"
#include "engines/engine.h"
#include "host/processes.h"

namespace gpumod {

namespace fs = std::filesystem;

namespace {

/// A later gpumod may launch the same file another way. It must not call everything outdated that an earlier one has
/// started: whoever changes what launch() makes of a file raises this, and what was remembered before counts for nothing.
/// (A test pins what launch() makes.)
constexpr int recipe = 1;

fs::path launch_file(const Paths& paths, const std::string& unit) {
  return paths.runtime / "launched" / unit;
}

std::string in_words(const Digest& digest) {
  return fmt::format("{} {}", recipe, digest.text());
}

std::optional<std::string> fingerprint_of_unit_files(const Paths& paths, const std::string& unit) {
  const auto fragment = fragment_of(paths, unit);
  if (!fragment) return std::nullopt;
  std::vector<fs::path> files;
  for (const auto& folder : drop_in_folders(paths, unit)) {
    std::error_code problem;
    for (fs::directory_iterator each(folder, problem), end; !problem && each != end; each.increment(problem))
      if (each->path().extension() == ".conf") files.push_back(each->path());
  }
  std::sort(files.begin(), files.end());
  files.push_back(*fragment);
  Digest digest;
  for (const auto& file : files) {
    digest.add(file.native());
    digest.add(read_file(file, 1 << 20).value_or(""));
  }
  return in_words(digest);
}

/// Empty: it has ended.
std::string run_of(pid_t pid) {
  const auto info = process_info(pid);
  return info ? fmt::format("{} {} {}", boot_id().value_or(""), pid, info->start_ticks) : "";
}

}  // namespace

std::optional<std::string> launch_fingerprint(const Paths& paths, const Catalog& catalog, const std::string& unit) {
  const auto members = catalog.services_of_unit(unit);
  if (members.empty()) return std::nullopt;
  const Service& service = *members.front();
  if (!service.unit.empty()) return fingerprint_of_unit_files(paths, unit);
  Digest digest;
  LaunchContext context;
  // As people wrote it: what a bare name means depends on the PATH of whoever asks.
  const fs::path named = named_binary(catalog, service).name;
  context.binary = named.is_absolute() ? named : "/" / named;
  context.stop_binary = "/stop";
  context.settings = engine_settings(catalog, service.engine);
  context.unit = unit;
  context.router_members = members;
  if (service.in_router()) {
    if (!catalog.broken_services.empty()) return std::nullopt;  // one of them may be a member
    const auto preset = router_preset(members);
    if (!preset) return std::nullopt;
    if (*preset) context.router_preset = "/preset";
    digest.add(preset->value_or(""));
  }
  const auto spec = engine_for(service.engine).launch(service, context);
  if (!spec) return std::nullopt;
  for (const auto& word : spec->argv)
    digest.add(word);
  for (const auto& [name, value] : spec->environment) {
    digest.add(name);
    digest.add(value.reveal());
  }
  digest.add(spec->working_directory.native());
  // A member more, or one whose file is broken, changes nothing for a router that would be launched the same.
  std::set<std::pair<std::string, std::string>> places;
  for (const auto* member : members)
    places.emplace(fmt::format("{}", member->port), join(member->gpu.devices, " "));
  for (const auto& [port, devices] : places) {
    digest.add(port);
    digest.add(devices);
  }
  return in_words(digest);
}

void remember_launch(const Paths& paths, const Catalog& catalog, const UnitStatus& unit) {
  const auto fingerprint = launch_fingerprint(paths, catalog, unit.name);
  const auto run = unit.main_pid > 0 ? run_of(unit.main_pid) : std::string();
  if (!fingerprint || run.empty()) return;
  const auto file = launch_file(paths, unit.name);
  auto kept = make_directories(file.parent_path(), 0700);
  if (kept) kept = write_file_atomically(file, fmt::format("{}\n{}\n", run, *fingerprint), 0600);
  if (!kept) log_warning("what {} was launched with could not be written down: {}", unit.name, kept.error().message);
}

bool is_outdated(const Paths& paths, const Catalog& catalog, const UnitStatus& unit) {
  if (unit.gone() || unit.main_pid <= 0) return false;
  const auto text = read_file(launch_file(paths, unit.name), 4096);
  if (!text) return false;
  const auto end_of_run = text->find('\n');
  if (end_of_run == std::string::npos || text->substr(0, end_of_run) != run_of(unit.main_pid)) return false;
  const std::string_view remembered = trim(std::string_view(*text).substr(end_of_run + 1));
  const auto now = launch_fingerprint(paths, catalog, unit.name);
  return now && remembered != *now && remembered.starts_with(fmt::format("{} ", recipe));
}

}  // namespace gpumod
