// Where systemd looks for people's own user units, without asking it.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "base/paths.h"
#include "base/result.h"

namespace gpumod {

/// Where people's units are: systemd.unit(5), "User Unit Search Path".
std::filesystem::path unit_folder(const Paths& paths);
/// That folder, and every other one, in systemd's order.
std::vector<std::filesystem::path> unit_folders(const Paths& paths);

/// Where additions to that unit may lie (systemd.unit(5)): its own, its template's, those of every unit whose name begins
/// alike up to a dash, and those of all services; in every folder.
std::vector<std::filesystem::path> drop_in_folders(const Paths& paths, const std::string& unit);

/// Something of that name is there, be it a broken link.
bool is_there(const std::filesystem::path& path);

/// The file of people's own unit. Errors: not_found.
Result<std::filesystem::path> fragment_of(const Paths& paths, const std::string& unit);

}  // namespace gpumod
