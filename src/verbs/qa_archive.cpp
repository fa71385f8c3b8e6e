#include "verbs/qa_archive.h"

#include <algorithm>
#include <charconv>

#include <fmt/format.h>

#include "base/fd.h"
#include "base/text.h"
#include "verbs/qa_values.h"

namespace gpumod {

namespace json = boost::json;
namespace fs = std::filesystem;

namespace {

constexpr std::size_t most_runs = 50;
constexpr std::uintmax_t most_bytes = 64 << 20;
constexpr std::size_t longest_report = 64 << 20;

fs::path folder(const Paths& paths) {
  return paths.state / "qa";
}
fs::path file_of(const Paths& paths, std::int64_t id) {
  return folder(paths) / fmt::format("{}.json", id);
}

std::optional<std::int64_t> number_in(std::string_view text) {
  std::int64_t number = 0;
  const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), number);
  return problem == std::errc() && end == text.data() + text.size() && number > 0 ? std::optional(number)
                                                                                  : std::nullopt;
}

void let_go_of_the_oldest(const Paths& paths) {
  std::uintmax_t bytes = 0;
  std::size_t kept = 0;
  for (const auto id : kept_runs(paths)) {
    std::error_code problem;
    const auto size = fs::file_size(file_of(paths, id), problem);
    bytes += problem ? 0 : size;
    const bool stays = kept == 0 || (kept < most_runs && bytes <= most_bytes);
    if (stays)
      ++kept;
    else
      fs::remove(file_of(paths, id), problem);
  }
}

Result<json::value> read_run(const fs::path& file) {
  const auto text = TRY(read_file(file, longest_report));
  std::error_code malformed;
  auto run = json::parse(text, malformed);
  if (malformed || !find(run, {"transitions"}))
    return fail(ErrorCode::failed, fmt::format("{} is no report of a quality run", file.string()),
                "gpumod qa list names the runs that are kept.");
  return run;
}

}  // namespace

std::vector<std::int64_t> kept_runs(const Paths& paths) {
  std::vector<std::int64_t> ids;
  std::error_code problem;
  for (fs::directory_iterator entry(folder(paths), problem), end; !problem && entry != end; entry.increment(problem))
    if (entry->path().extension() == ".json")
      if (const auto id = number_in(entry->path().stem().string())) ids.push_back(*id);
  std::sort(ids.rbegin(), ids.rend());
  return ids;
}

Result<std::int64_t> keep_run(const Paths& paths, json::object& run) {
  TRY(make_directories(folder(paths), 0700));
  const auto kept = kept_runs(paths);
  const std::int64_t id = kept.empty() ? 1 : kept.front() + 1;
  run["id"] = id;
  if (auto written = write_file_atomically(file_of(paths, id), json::serialize(run) + "\n"); !written) {
    run["id"] = nullptr;
    return fail(std::move(written).error());
  }
  let_go_of_the_oldest(paths);
  return id;
}

Result<json::value> load_run(const Paths& paths, const std::string& name) {
  const auto kept = kept_runs(paths);
  auto id = number_in(name);
  if (name == "last") {
    if (kept.empty()) return fail(ErrorCode::not_found, "no quality run is kept yet", "gpumod qa run makes one.");
    id = kept.front();
  }
  if (!id) {
    std::error_code problem;
    if (fs::exists(name, problem)) return read_run(name);
    return fail(ErrorCode::not_found,
                fmt::format("'{}' is neither a run's number, nor last, nor a file", printable(name)),
                "gpumod qa list names the runs that are kept.");
  }
  if (std::find(kept.begin(), kept.end(), *id) == kept.end())
    return fail(ErrorCode::not_found, fmt::format("there is no quality run {}", *id),
                kept.empty() ? "None is kept yet: gpumod qa run makes one."
                             : fmt::format("The newest is {}; gpumod qa list names them all.", kept.front()));
  return read_run(file_of(paths, *id));
}

std::optional<json::value> last_of_sequence(const Paths& paths, const json::array& sequence) {
  for (const auto id : kept_runs(paths)) {
    auto run = read_run(file_of(paths, id));
    if (run && list_at(*run, {"sequence"}) == sequence && string_at(*run, {"result"}) != "cancelled")
      return std::move(*run);
  }
  return std::nullopt;
}

}  // namespace gpumod
