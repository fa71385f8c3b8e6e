#include "control/unit_files.h"

#include <fmt/format.h>

namespace gpumod {

namespace fs = std::filesystem;

fs::path unit_folder(const Paths& paths) {
  const fs::path xdg = environment_variable("XDG_CONFIG_HOME");
  return (xdg.is_absolute() ? xdg : paths.home / ".config") / "systemd/user";
}

std::vector<fs::path> unit_folders(const Paths& paths) {
  std::vector<fs::path> folders{unit_folder(paths), "/etc/systemd/user"};
  if (const fs::path runtime = environment_variable("XDG_RUNTIME_DIR"); runtime.is_absolute())
    folders.push_back(runtime / "systemd/user");
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

Result<fs::path> fragment_of(const Paths& paths, const std::string& unit) {
  const auto folders = unit_folders(paths);
  // "name@instance.service" is made of "name@.service".
  std::vector<std::string> names{unit};
  const auto at = unit.find('@');
  if (at != std::string::npos) names.push_back(unit.substr(0, at + 1) + unit.substr(unit.rfind('.')));
  for (const auto& name : names)
    for (const auto& folder : folders)
      if (is_there(folder / name)) return folder / name;
  return fail(ErrorCode::not_found, fmt::format("the file of {} was not found", unit),
              fmt::format("systemctl --user cat {} shows it if systemd knows it.", unit));
}

}  // namespace gpumod
