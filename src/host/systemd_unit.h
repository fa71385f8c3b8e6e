// Units as systemd's D-Bus interface shows and takes them: names, object paths, properties, the transient unit.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "host/sd_bus.h"
#include "host/unit_manager.h"
#include "model/unit.h"

namespace gpumod {

inline constexpr const char* manager_path = "/org/freedesktop/systemd1";
inline constexpr const char* manager_interface = "org.freedesktop.systemd1.Manager";
inline constexpr const char* unit_interface = "org.freedesktop.systemd1.Unit";
inline constexpr const char* service_interface = "org.freedesktop.systemd1.Service";

/// Errors: usage, for what cannot be the name of a service unit, and refused for gpumod's own units: the daemon is
/// never a service.
Result<void> check_unit_name(const std::string& name);
bool is_daemon_unit(std::string_view name);
/// "gpumod-….service": ours by its name.
bool is_named_ours(std::string_view name);
std::string unit_object_path(const std::string& name);

/// One row of ListUnitsByNames or ListUnitsByPatterns.
struct UnitRow {
  std::string name;
  std::string load;  ///< "loaded", "not-found", "masked", "bad-setting", "error" …
  std::string active;
  std::string sub;
  std::string path;
  bool exists() const { return load != "not-found" || active != "inactive"; }
};
Result<std::vector<UnitRow>> read_unit_rows(sd_bus_message* reply);
ActiveState active_state_of(std::string_view text);

/// What survey and status ask for beyond the row: one Get for each property that the row's state leaves open. (GetAll
/// of a service returns 300 properties and costs systemd more than these together.)
struct DetailQuery {
  std::vector<std::size_t> properties;  ///< indices into the table of properties
  std::vector<BusMessage> requests;     ///< one for each
};
/// Empty when the connection is lost.
DetailQuery detail_query(Bus& bus, const std::string& path, const UnitStatus& row, SurveyDepth depth);
/// Of such a unit the main process alone is asked for.
bool asks_little(const UnitStatus& row, SurveyDepth depth);
/// Reads the replies from `first` on, one for each of `properties`. A unit that vanished meanwhile leaves defaults.
void read_details(const std::vector<std::size_t>& properties, const std::vector<Result<BusMessage>>& replies,
                  std::size_t first, UnitStatus& status);

/// Get of one property, and readers of its variant (nullopt: an error, or another type).
Result<BusMessage> get_request(Bus& bus, const std::string& path, const char* interface, const char* property);
std::optional<std::string> variant_string(const Result<BusMessage>& reply);
std::optional<bool> variant_bool(const Result<BusMessage>& reply);
std::optional<std::uint64_t> variant_number(const Result<BusMessage>& reply);  ///< of type t, u or i
std::optional<std::string> variant_id(const Result<BusMessage>& reply);        ///< ay as hexadecimal digits
/// The value of GPUMOD_SERVICE in an Environment property.
std::string tag_in_environment(const Result<BusMessage>& reply);

/// Applies a PropertiesChanged message of a unit. True when it came from the Unit interface: systemd sends the Service
/// interface's part first, so that is the moment when the picture is whole.
bool apply_properties_changed(sd_bus_message* signal, UnitStatus& status);

/// StartTransientUnit for the spec. `environment_file` empty: the unit gets none. Errors: configuration, for arguments
/// that D-Bus cannot carry (not UTF-8) or a program path that is not absolute.
Result<BusMessage> transient_request(Bus& bus, const UnitSpec& spec, const std::filesystem::path& environment_file);

}  // namespace gpumod
