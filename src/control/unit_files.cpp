#include "control/unit_files.h"

#include <algorithm>

#include <fmt/format.h>

namespace gpumod {

namespace fs = std::filesystem;

fs::path unit_folder(const Paths& paths) {
  const fs::path xdg = environment_variable("XDG_CONFIG_HOME");
  return (xdg.is_absolute() ? xdg : paths.home / ".config") / "systemd/user";
}

std::vector<fs::path> unit_folders(const Paths& paths) {
  std::vector<fs::path> folders{unit_folder(paths), "/etc/systemd/user"};
  if (const auto runtime = user_runtime_directory(); !runtime.empty()) folders.push_back(runtime / "systemd/user");
  const fs::path data = environment_variable("XDG_DATA_HOME");
  for (const auto& folder :
       {fs::path("/run/systemd/user"), (data.is_absolute() ? data : paths.home / ".local/share") / "systemd/user",
        fs::path("/usr/local/lib/systemd/user"), fs::path("/usr/lib/systemd/user")})
    folders.push_back(folder);
  return folders;
}

bool is_there(const fs::path& path) {
  std::error_code ignored;
  const auto type = fs::symlink_status(path, ignored).type();
  return type != fs::file_type::not_found && type != fs::file_type::none;
}

namespace {

/// "name@instance.service" is made of "name@.service".
std::vector<std::string> names_of(const std::string& unit) {
  std::vector<std::string> names{unit};
  const auto at = unit.find('@');
  if (at != std::string::npos) names.push_back(unit.substr(0, at + 1) + unit.substr(unit.rfind('.')));
  return names;
}

}  // namespace

std::vector<fs::path> drop_in_folders(const Paths& paths, const std::string& unit) {
  auto names = names_of(unit);
  const auto type = unit.substr(std::min(unit.rfind('.'), unit.size()));  // ".service"
  for (auto dash = unit.find('-'); dash != std::string::npos; dash = unit.find('-', dash + 1))
    names.push_back(unit.substr(0, dash + 1) + type);
  if (!type.empty()) names.push_back(type.substr(1));
  std::vector<fs::path> folders;
  for (const auto& folder : unit_folders(paths))
    for (const auto& name : names)
      folders.push_back(folder / (name + ".d"));
  return folders;
}

Result<fs::path> fragment_of(const Paths& paths, const std::string& unit) {
  const auto folders = unit_folders(paths);
  for (const auto& name : names_of(unit))
    for (const auto& folder : folders)
      if (is_there(folder / name)) return folder / name;
  return fail(ErrorCode::not_found, fmt::format("the file of {} was not found", unit),
              fmt::format("systemctl --user cat {} shows it if systemd knows it.", unit));
}

}  // namespace gpumod
