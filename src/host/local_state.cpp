#include "host/local_state.h"

#include <algorithm>
#include <optional>

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <fcntl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

namespace gpumod::local {

namespace json = boost::json;

namespace {

constexpr std::pair<Phase, std::string_view> phase_names[] = {
    {Phase::starting, "starting"},         {Phase::running, "running"},           {Phase::stop_command, "stop-command"},
    {Phase::stop_sigterm, "stop-sigterm"}, {Phase::stop_sigkill, "stop-sigkill"}, {Phase::ended, "ended"},
};

constexpr std::pair<LaunchReport::Kind, std::string_view> report_names[] = {
    {LaunchReport::Kind::started, "started"},
    {LaunchReport::Kind::program_failed, "program-failed"},
    {LaunchReport::Kind::busy, "busy"},
    {LaunchReport::Kind::failed, "failed"},
};

template <typename Value, std::size_t count>
std::string_view name_of(Value value, const std::pair<Value, std::string_view> (&names)[count]) {
  for (const auto& [candidate, name] : names)
    if (candidate == value) return name;
  return {};
}

template <typename Value, std::size_t count>
std::optional<Value> named(std::string_view wanted, const std::pair<Value, std::string_view> (&names)[count]) {
  for (const auto& [candidate, name] : names)
    if (name == wanted) return candidate;
  return std::nullopt;
}

/// Reads members one by one and remembers whether one was missing or of another type.
class Reader {
 public:
  explicit Reader(std::string_view text) {
    json::parse_options options;
    options.allow_invalid_utf8 = true;  // environment values and paths are bytes
    boost::system::error_code problem;
    root_ = json::parse(text, problem, {}, options);
    object_ = problem ? nullptr : root_.if_object();
    ok_ = object_ != nullptr;
  }
  bool ok() const { return ok_; }

  std::string text(const char* name) {
    const auto* value = find(name);
    const auto* string = value ? value->if_string() : nullptr;
    if (!string) ok_ = false;
    return string ? std::string(*string) : std::string();
  }
  template <typename Number>
  Number number(const char* name) {
    const auto* value = find(name);
    boost::system::error_code problem = json::error::not_number;
    const auto found = value ? value->to_number<Number>(problem) : Number{};
    if (problem) ok_ = false;
    return problem ? Number{} : found;
  }
  bool truth(const char* name) {
    const auto* value = find(name);
    const auto* boolean = value ? value->if_bool() : nullptr;
    if (!boolean) ok_ = false;
    return boolean && *boolean;
  }
  std::vector<std::string> list(const char* name) {
    std::vector<std::string> items;
    const auto* value = find(name);
    const auto* array = value ? value->if_array() : nullptr;
    if (!array) ok_ = false;
    if (array) {
      for (const auto& item : *array) {
        if (const auto* string = item.if_string())
          items.emplace_back(*string);
        else
          ok_ = false;
      }
    }
    return items;
  }
  ProcessKey process(const char* pid_name, const char* ticks_name) {
    return ProcessKey{number<pid_t>(pid_name), number<std::uint64_t>(ticks_name)};
  }

 private:
  const json::value* find(const char* name) const { return object_ ? object_->if_contains(name) : nullptr; }

  json::value root_;
  const json::object* object_ = nullptr;
  bool ok_ = false;
};

json::array as_array(const std::vector<std::string>& items) {
  return json::array(items.begin(), items.end());
}

auto milliseconds(Duration duration) {
  return std::chrono::duration_cast<std::chrono::milliseconds>(duration).count();
}

tl::unexpected<Error> malformed(const char* what) {
  return fail(ErrorCode::failed, fmt::format("{} is malformed", what));
}

}  // namespace

std::string to_text(const RunState& state) {
  const json::object object = {
      {"unit", state.unit},
      {"tag", state.tag},
      {"boot", state.boot},
      {"invocation", state.invocation},
      {"shim_pid", state.shim.pid},
      {"shim_ticks", state.shim.start_ticks},
      {"main_pid", state.main.pid},
      {"main_ticks", state.main.start_ticks},
      {"phase", name_of(state.phase, phase_names)},
      {"result", state.result},
      {"main_ended", state.main_ended},
      {"killed_by_signal", state.killed_by_signal},
      {"exit_code", state.exit_code},
      {"stop_timeout_ms", milliseconds(state.stop_timeout)},
  };
  return json::serialize(object) + "\n";
}

Result<RunState> run_state_from(std::string_view text) {
  Reader reader(text);
  RunState state;
  state.unit = reader.text("unit");
  state.tag = reader.text("tag");
  state.boot = reader.text("boot");
  state.invocation = reader.text("invocation");
  state.shim = reader.process("shim_pid", "shim_ticks");
  state.main = reader.process("main_pid", "main_ticks");
  const auto phase = named(reader.text("phase"), phase_names);
  state.result = reader.text("result");
  state.main_ended = reader.truth("main_ended");
  state.killed_by_signal = reader.truth("killed_by_signal");
  state.exit_code = reader.number<int>("exit_code");
  state.stop_timeout = std::chrono::milliseconds(reader.number<std::int64_t>("stop_timeout_ms"));
  if (!reader.ok() || !phase) return malformed("a state file of the local supervisor");
  state.phase = *phase;
  return state;
}

std::string to_text(const LaunchSpec& spec) {
  const json::object object = {
      {"unit", spec.unit},
      {"tag", spec.tag},
      {"invocation", spec.invocation},
      {"directory", spec.directory.string()},
      {"argv", as_array(spec.argv)},
      {"environment", as_array(spec.environment)},
      {"working_directory", spec.working_directory.string()},
      {"stop_argv", as_array(spec.stop_argv)},
      {"stop_timeout_ms", milliseconds(spec.stop_timeout)},
  };
  return json::serialize(object);
}

Result<LaunchSpec> launch_spec_from(std::string_view text) {
  Reader reader(text);
  LaunchSpec spec;
  spec.unit = reader.text("unit");
  spec.tag = reader.text("tag");
  spec.invocation = reader.text("invocation");
  spec.directory = reader.text("directory");
  spec.argv = reader.list("argv");
  spec.environment = reader.list("environment");
  spec.working_directory = reader.text("working_directory");
  spec.stop_argv = reader.list("stop_argv");
  spec.stop_timeout = std::chrono::milliseconds(reader.number<std::int64_t>("stop_timeout_ms"));
  if (!reader.ok() || spec.argv.empty()) return malformed("what the shim was told to run");
  return spec;
}

std::string to_text(const LaunchReport& report) {
  return json::serialize(json::object{
             {"kind", name_of(report.kind, report_names)}, {"message", report.message}, {"hint", report.hint}}) +
         "\n";
}

Result<LaunchReport> launch_report_from(std::string_view text) {
  Reader reader(text);
  const auto kind = named(reader.text("kind"), report_names);
  LaunchReport report;
  report.message = reader.text("message");
  report.hint = reader.text("hint");
  if (!reader.ok() || !kind) return malformed("the shim's report");
  report.kind = *kind;
  return report;
}

Result<RunState> read_state(const std::filesystem::path& unit_directory) {
  return run_state_from(TRY(read_file(state_path(unit_directory), 1 << 20)));
}

namespace {

/// In one write, as long as what it replaces: it needs no new block, and a reader sees the one text or the other.
bool write_over(const std::filesystem::path& path, std::string text) {
  const Fd file(::open(path.c_str(), O_WRONLY | O_CLOEXEC | O_NOFOLLOW));
  struct stat info {};
  if (!file || ::fstat(file.get(), &info) != 0 || info.st_size == 0) return false;
  text.resize(std::max(text.size(), static_cast<std::size_t>(info.st_size)), '\n');
  return ::pwrite(file.get(), text.data(), text.size(), 0) == static_cast<ssize_t>(text.size());
}

}  // namespace

Result<void> write_state(const std::filesystem::path& unit_directory, const RunState& state) {
  const auto path = state_path(unit_directory);
  auto written = write_file_atomically(path, to_text(state));
  if (!written && write_over(path, to_text(state))) return {};
  return written;
}

std::string new_invocation() {
  unsigned char bytes[16] = {};
  // Up to 256 bytes are never interrupted and never short, once the kernel's pool is initialised: getrandom(2).
  if (::getrandom(bytes, sizeof bytes, 0) != static_cast<ssize_t>(sizeof bytes)) return {};
  std::string digits;
  for (const unsigned char byte : bytes)
    digits += fmt::format("{:02x}", byte);
  return digits;
}

bool is_unit_name(std::string_view name) {
  constexpr std::string_view suffix = ".service";
  if (name.size() <= suffix.size() || name.size() > 200 || !name.ends_with(suffix) || name.front() == '.') return false;
  return name.find('/') == std::string_view::npos && name.find('\0') == std::string_view::npos;
}

}  // namespace gpumod::local
