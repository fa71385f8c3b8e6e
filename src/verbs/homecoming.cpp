#include "verbs/homecoming.h"

#include <boost/json.hpp>
#include <fmt/format.h>

#include "base/fd.h"
#include "model/json.h"

namespace gpumod {

namespace json = boost::json;

namespace {

constexpr std::size_t limit = 1 << 20;

std::filesystem::path file_of(const Paths& paths) {
  return paths.state / "come-home.json";
}

}  // namespace

Result<void> remember_home(const Paths& paths, const Home& home) {
  TRY(make_own_directory(paths.state, "GPUMOD_STATE_DIR"));
  const json::object kept{{"kind", home.kind}, {"goal", to_json(home.goal)}};
  return write_file_atomically(file_of(paths), json::serialize(kept) + "\n", 0600);
}

void forget_home(const Paths& paths) {
  std::error_code ignored;
  std::filesystem::remove(file_of(paths), ignored);
}

std::optional<Home> home_of_cut_run(const Paths& paths) {
  const auto text = read_file(file_of(paths), limit);
  if (!text) return std::nullopt;
  std::error_code malformed;
  const auto kept = json::parse(*text, malformed);
  const auto* object = malformed ? nullptr : kept.if_object();
  const auto* kind = object ? object->if_contains("kind") : nullptr;
  const auto* goal = object ? object->if_contains("goal") : nullptr;
  if (!kind || !kind->is_string() || !goal) return std::nullopt;
  auto read = goal_from_json(*goal);
  if (!read) return std::nullopt;
  return Home{std::string(kind->get_string()), std::move(*read)};
}

std::string in_words(const Home& home) {
  const auto before = home.goal.wanted.empty() ? "nothing ran"
                      : home.goal.mode.empty() ? fmt::format("{} services ran", home.goal.wanted.size())
                                               : fmt::format("mode {} ran", home.goal.mode);
  return fmt::format("'{}' was cut short; before it, {}: gpumod repair brings that back", home.kind, before);
}

}  // namespace gpumod
