#include "host/systemd_unit.h"

#include <algorithm>
#include <array>

#include <fmt/format.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-bus.h>

#include "base/text.h"
#include "host/systemd_env_file.h"

namespace gpumod {

namespace {

constexpr std::string_view tag_variable = "GPUMOD_SERVICE=";
constexpr const char* properties_interface = "org.freedesktop.DBus.Properties";

/// A reader of sd_bus_message_read's "s": the text stays the message's.
std::string read_text(sd_bus_message* message) {
  const char* text = nullptr;
  return sd_bus_message_read_basic(message, 's', &text) > 0 && text ? text : "";
}

std::string hex_id(const void* bytes, std::size_t size) {
  std::string text;
  bool any = false;
  for (std::size_t i = 0; i < size; ++i) {
    const unsigned byte = static_cast<const unsigned char*>(bytes)[i];
    any = any || byte != 0;
    text += fmt::format("{:02x}", byte);
  }
  return any ? text : "";
}

std::string read_tag(sd_bus_message* message) {
  std::string tag;
  if (sd_bus_message_enter_container(message, 'a', "s") <= 0) return tag;
  const char* text = nullptr;
  // The last assignment wins, as it does in the process.
  while (sd_bus_message_read_basic(message, 's', &text) > 0)
    if (std::string_view(text).starts_with(tag_variable)) tag = std::string_view(text).substr(tag_variable.size());
  sd_bus_message_exit_container(message);
  return tag;
}

std::string read_id(sd_bus_message* message) {
  const void* bytes = nullptr;
  std::size_t size = 0;
  return sd_bus_message_read_array(message, 'y', &bytes, &size) > 0 ? hex_id(bytes, size) : "";
}

std::uint32_t read_u32(sd_bus_message* message) {
  std::uint32_t value = 0;
  sd_bus_message_read_basic(message, 'u', &value);
  return value;
}

std::int32_t read_i32(sd_bus_message* message) {
  std::int32_t value = 0;
  sd_bus_message_read_basic(message, 'i', &value);
  return value;
}

void read_fragment(sd_bus_message* message, UnitStatus& status) {
  auto path = read_text(message);
  // systemd writes what StartTransientUnit was given into a directory of this name; no file of people's stands there.
  status.transient = path.find("/systemd/transient/") != std::string::npos;
  status.fragment = status.transient ? "" : std::move(path);
}

struct Property {
  const char* interface;
  const char* name;
  const char* signature;
  void (*read)(sd_bus_message*, UnitStatus&);
  bool settled_while_running = false;
  bool of_presence = false;
};

/// The order is the order of the Gets. All but ControlGroup, FragmentPath and Environment also come in
/// PropertiesChanged.
constexpr std::array<Property, 9> details{{
    {service_interface, "MainPID", "u",
     [](sd_bus_message* m, UnitStatus& s) { s.main_pid = static_cast<pid_t>(read_u32(m)); }, false, true},
    {service_interface, "NRestarts", "u", [](sd_bus_message* m, UnitStatus& s) { s.restarts = read_u32(m); }},
    {service_interface, "Result", "s", [](sd_bus_message* m, UnitStatus& s) { s.result = read_text(m); }, true},
    {service_interface, "ExecMainCode", "i",
     [](sd_bus_message* m, UnitStatus& s) {
       const auto code = read_i32(m);  // waitid(2)'s si_code
       s.killed_by_signal = code == CLD_KILLED || code == CLD_DUMPED;
     },
     true},
    {service_interface, "ExecMainStatus", "i", [](sd_bus_message* m, UnitStatus& s) { s.exit_code = read_i32(m); },
     true},
    {service_interface, "ControlGroup", "s", [](sd_bus_message* m, UnitStatus& s) { s.control_group = read_text(m); }},
    {service_interface, "Environment", "as", [](sd_bus_message* m, UnitStatus& s) { s.tag = read_tag(m); }},
    {unit_interface, "InvocationID", "ay", [](sd_bus_message* m, UnitStatus& s) { s.invocation = read_id(m); }},
    {unit_interface, "FragmentPath", "s", read_fragment},
}};

/// States are properties too, but only PropertiesChanged reads them: a listing tells both of one moment, two Gets do
/// not.
constexpr std::array<Property, 2> states{{
    {unit_interface, "ActiveState", "s",
     [](sd_bus_message* m, UnitStatus& s) { s.active = active_state_of(read_text(m)); }},
    {unit_interface, "SubState", "s", [](sd_bus_message* m, UnitStatus& s) { s.sub_state = read_text(m); }},
}};

template <typename Value, typename Read>
std::optional<Value> in_variant(const Result<BusMessage>& reply, const char* signature, Read read) {
  if (!reply) return std::nullopt;
  auto* message = reply->get();
  if (sd_bus_message_rewind(message, 1) < 0 || sd_bus_message_enter_container(message, 'v', signature) <= 0)
    return std::nullopt;
  return read(message);
}

}  // namespace

bool is_daemon_unit(std::string_view name) {
  return name == "gpumod.service" || name == "gpumod.socket";
}

bool is_named_ours(std::string_view name) {
  return name.starts_with("gpumod-") && name.ends_with(".service");
}

Result<void> check_unit_name(const std::string& name) {
  if (is_daemon_unit(name))
    return fail(ErrorCode::refused, fmt::format("{} is gpumod's own daemon, not a service", name),
                "Use `systemctl --user` for it.");
  // systemd.unit(5): 255 bytes of these characters, ending in the type.
  constexpr std::string_view type = ".service";
  constexpr std::string_view punctuation = ":-_.\\@";
  bool sane = name.size() <= 255 && name.size() > type.size() && name.ends_with(type) && name.front() != '.' &&
              name.front() != '@' && name.front() != '-';
  for (const char c : name) {
    const bool alphanumeric = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    sane = sane && (alphanumeric || punctuation.find(c) != std::string_view::npos);
  }
  if (!sane)
    return fail(ErrorCode::usage, fmt::format("'{}' cannot be the name of a service unit", printable(name)),
                "A name ends in .service and holds only letters, digits and :-_.\\@");
  return {};
}

std::string unit_object_path(const std::string& name) {
  char* path = nullptr;
  if (sd_bus_path_encode("/org/freedesktop/systemd1/unit", name.c_str(), &path) < 0) return manager_path;
  std::string result(path);
  ::free(path);
  return result;
}

ActiveState active_state_of(std::string_view text) {
  if (text == "active" || text == "reloading" || text == "refreshing") return ActiveState::active;
  if (text == "inactive") return ActiveState::inactive;
  if (text == "activating") return ActiveState::activating;
  if (text == "deactivating") return ActiveState::deactivating;
  if (text == "failed") return ActiveState::failed;
  return ActiveState::unknown;
}

Result<std::vector<UnitRow>> read_unit_rows(sd_bus_message* reply) {
  std::vector<UnitRow> rows;
  int r = sd_bus_message_enter_container(reply, 'a', "(ssssssouso)");
  while (r > 0) {
    const char *name, *description, *load, *active, *sub, *following, *path, *job_type, *job_path;
    std::uint32_t job = 0;
    r = sd_bus_message_read(reply, "(ssssssouso)", &name, &description, &load, &active, &sub, &following, &path, &job,
                            &job_type, &job_path);
    if (r > 0) rows.push_back({name, load, active, sub, path});
  }
  if (r < 0) return fail(ErrorCode::failed, fmt::format("systemd's list of units cannot be read: {}", ::strerror(-r)));
  return rows;
}

Result<BusMessage> get_request(Bus& bus, const std::string& path, const char* interface, const char* property) {
  auto request = TRY(bus.method(path, properties_interface, "Get"));
  if (const int r = sd_bus_message_append(request.get(), "ss", interface, property); r < 0)
    return fail(ErrorCode::failed, fmt::format("prepare Get of {}: {}", property, ::strerror(-r)));
  return request;
}

bool asks_little(const UnitStatus& row, SurveyDepth depth) {
  return depth == SurveyDepth::presence && row.active == ActiveState::active && row.sub_state == "running";
}

DetailQuery detail_query(Bus& bus, const std::string& path, const UnitStatus& row, SurveyDepth depth) {
  DetailQuery query;
  const bool little = asks_little(row, depth);
  // systemd sets the result to success when a service starts, and to anything else only when it begins to end.
  const bool runs = row.active == ActiveState::active && row.sub_state == "running";
  for (std::size_t i = 0; i < details.size(); ++i) {
    if (runs && details[i].settled_while_running) continue;
    if (little && !details[i].of_presence) continue;
    auto request = get_request(bus, path, details[i].interface, details[i].name);
    if (!request) return {};
    query.properties.push_back(i);
    query.requests.push_back(std::move(*request));
  }
  return query;
}

void read_details(const std::vector<std::size_t>& properties, const std::vector<Result<BusMessage>>& replies,
                  std::size_t first, UnitStatus& status) {
  if (status.active == ActiveState::active && status.sub_state == "running") status.result = "success";
  for (std::size_t i = 0; i < properties.size(); ++i) {
    const auto& reply = replies.at(first + i);
    const auto& property = details.at(properties[i]);
    if (reply && sd_bus_message_enter_container(reply->get(), 'v', property.signature) > 0)
      property.read(reply->get(), status);
  }
}

std::optional<std::string> variant_string(const Result<BusMessage>& reply) {
  return in_variant<std::string>(reply, "s", read_text);
}

std::optional<std::string> variant_id(const Result<BusMessage>& reply) {
  return in_variant<std::string>(reply, "ay", read_id);
}

std::optional<bool> variant_bool(const Result<BusMessage>& reply) {
  return in_variant<bool>(reply, "b", [](sd_bus_message* message) {
    int value = 0;
    sd_bus_message_read_basic(message, 'b', &value);
    return value != 0;
  });
}

std::optional<std::uint64_t> variant_number(const Result<BusMessage>& reply) {
  if (!reply) return std::nullopt;
  const char* contents = nullptr;
  char type = 0;
  if (sd_bus_message_rewind(reply->get(), 1) < 0 || sd_bus_message_peek_type(reply->get(), &type, &contents) <= 0 ||
      type != 'v' || !contents)
    return std::nullopt;
  const std::string signature = contents;
  return in_variant<std::uint64_t>(reply, signature.c_str(), [&](sd_bus_message* message) -> std::uint64_t {
    if (signature == "u") return read_u32(message);
    if (signature == "i") return static_cast<std::uint64_t>(read_i32(message));
    std::uint64_t value = 0;
    if (signature == "t") sd_bus_message_read_basic(message, 't', &value);
    return value;
  });
}

std::string tag_in_environment(const Result<BusMessage>& reply) {
  return in_variant<std::string>(reply, "as", read_tag).value_or("");
}

bool apply_properties_changed(sd_bus_message* signal, UnitStatus& status) {
  const std::string interface = read_text(signal);
  const auto apply = [&](const auto& table, std::string_view name) {
    for (const auto& property : table) {
      if (interface != property.interface || name != property.name) continue;
      if (sd_bus_message_enter_container(signal, 'v', property.signature) <= 0) return false;
      property.read(signal, status);
      sd_bus_message_exit_container(signal);
      return true;
    }
    return false;
  };
  if (sd_bus_message_enter_container(signal, 'a', "{sv}") < 0) return false;
  while (sd_bus_message_enter_container(signal, 'e', "sv") > 0) {
    const std::string name = read_text(signal);
    if (!apply(details, name) && !apply(states, name)) sd_bus_message_skip(signal, "v");
    sd_bus_message_exit_container(signal);
  }
  return interface == unit_interface;
}

namespace {

/// ExecStartEx and ExecStopEx: a(sasas). Over D-Bus specifiers (%n) are not expanded, but $VAR is, unless the command
/// carries no-env-expand; with it arguments arrive byte for byte.
int append_command(sd_bus_message* message, const char* property, const std::vector<std::string>& argv) {
  int r = sd_bus_message_open_container(message, 'r', "sv");
  if (r >= 0) r = sd_bus_message_append_basic(message, 's', property);
  if (r >= 0) r = sd_bus_message_open_container(message, 'v', "a(sasas)");
  if (r >= 0) r = sd_bus_message_open_container(message, 'a', "(sasas)");
  if (r >= 0) r = sd_bus_message_open_container(message, 'r', "sasas");
  if (r >= 0) r = sd_bus_message_append_basic(message, 's', argv.front().c_str());
  if (r >= 0) r = sd_bus_message_open_container(message, 'a', "s");
  for (const auto& argument : argv)
    if (r >= 0) r = sd_bus_message_append_basic(message, 's', argument.c_str());
  if (r >= 0) r = sd_bus_message_close_container(message);
  if (r >= 0) r = sd_bus_message_append(message, "as", 1, "no-env-expand");
  for (int depth = 0; depth < 4; ++depth)
    if (r >= 0) r = sd_bus_message_close_container(message);
  return r;
}

Result<void> check_command(const std::vector<std::string>& argv, std::string_view what) {
  if (argv.empty()) return fail(ErrorCode::configuration, fmt::format("the {} is empty", what));
  if (!argv.front().starts_with('/'))
    return fail(ErrorCode::configuration,
                fmt::format("the {} begins with '{}', which is not an absolute path", what, printable(argv.front())));
  for (std::size_t i = 0; i < argv.size(); ++i)
    if (!is_valid_utf8(argv[i]) || argv[i].find('\0') != std::string::npos)
      return fail(ErrorCode::configuration,
                  fmt::format("argument {} of the {} ('{}') is not text in UTF-8, and D-Bus carries nothing else", i,
                              what, printable(argv[i])));
  return {};
}

}  // namespace

Result<BusMessage> transient_request(Bus& bus, const UnitSpec& spec, const std::filesystem::path& environment_file) {
  TRY(check_command(spec.argv, "command line"));
  if (!spec.stop_argv.empty()) TRY(check_command(spec.stop_argv, "stop command"));
  auto request = TRY(bus.method(manager_path, manager_interface, "StartTransientUnit"));
  auto* m = request.get();

  // systemd reads 0 as "for ever".
  const auto stop_us = static_cast<std::uint64_t>(
      std::max<std::int64_t>(1000, std::chrono::duration_cast<std::chrono::microseconds>(spec.stop_timeout).count()));
  const auto text = [m](int r, const char* property, const std::string& value) {
    return r < 0 ? r : sd_bus_message_append(m, "(sv)", property, "s", value.c_str());
  };

  int r = sd_bus_message_append(m, "ss", spec.name.c_str(), "fail");
  if (r >= 0) r = sd_bus_message_open_container(m, 'a', "(sv)");
  r = text(r, "Description", spec.description.empty() ? spec.name : spec.description);
  // A failed unit stays loaded until reset-failed, so that its result, exit code and invocation can still be read; one
  // that ended well is collected. "inactive-or-failed" would drop the evidence at the moment it is wanted.
  r = text(r, "CollectMode", "inactive");
  // exec: the job fails when the program cannot be executed; "simple" would report success.
  r = text(r, "Type", "exec");
  r = text(r, "Restart", "no");
  r = text(r, "KillMode", "control-group");
  // Whatever the manager's defaults are, the journal is where the reason of a failure is looked for.
  r = text(r, "StandardOutput", "journal");
  r = text(r, "StandardError", "journal");
  r = text(r, "SyslogIdentifier", spec.name.substr(0, spec.name.rfind('.')));
  if (!spec.working_directory.empty()) r = text(r, "WorkingDirectory", spec.working_directory.string());
  if (r >= 0) r = sd_bus_message_append(m, "(sv)", "SendSIGKILL", "b", 1);
  if (r >= 0) r = sd_bus_message_append(m, "(sv)", "TimeoutStopUSec", "t", stop_us);
  if (r >= 0 && !spec.tag.empty()) {
    const auto assignment = std::string(tag_variable) + spec.tag;
    r = sd_bus_message_append(m, "(sv)", "Environment", "as", 1, assignment.c_str());
  }
  if (r >= 0 && !environment_file.empty())
    r = sd_bus_message_append(m, "(sv)", "EnvironmentFiles", "a(sb)", 1,
                              without_glob(environment_file.string()).c_str(), 0);
  if (r >= 0) r = append_command(m, "ExecStartEx", spec.argv);
  if (r >= 0 && !spec.stop_argv.empty()) r = append_command(m, "ExecStopEx", spec.stop_argv);
  if (r >= 0) r = sd_bus_message_close_container(m);
  if (r >= 0) r = sd_bus_message_append(m, "a(sa(sv))", 0);
  if (r < 0) return fail(ErrorCode::failed, fmt::format("prepare the unit {}: {}", spec.name, ::strerror(-r)));
  return request;
}

}  // namespace gpumod
