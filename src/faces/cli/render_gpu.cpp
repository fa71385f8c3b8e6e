// `gpumod gpu list` and `gpumod gpu processes`.

#include <fmt/format.h>

#include "base/text.h"
#include "faces/cli/fields.h"
#include "faces/cli/render.h"
#include "faces/cli/table.h"

namespace gpumod::cli {

namespace json = boost::json;

namespace {

std::string amount(const json::value& bytes) {
  return bytes.is_null() ? "not available" : mebibytes(bytes);
}

std::string switch_word(const json::value& truth_value) {
  return truth_value.is_null() ? "" : truth(truth_value) ? "on" : "off";
}

/// "orphan: unwanted", or whose it is.
Cell owner(const json::value& process) {
  const auto kind = text(member(process, "holder")), why = text(member(process, "why"));
  auto name = join(texts(member(process, "services")), " + ");
  if (kind == "managed") return {name, Ink::green};
  if (kind == "foreign") return {kind, Ink::dim};
  if (name.empty()) name = text(member(process, "unit"));
  return {name.empty() ? kind : fmt::format("{} ({}: {})", name, kind, why), Ink::red};
}

}  // namespace

std::string render_gpu_list(const json::value& answer, const Screen& screen) {
  Table table({{"GPU", true},
               {"NAME", false, true},
               {"TOTAL", true},
               {.title = "RESERVED", .right = true, .goes = 1},
               {"USED", true},
               {"FREE", true},
               {.title = "PERSISTENCE", .goes = 3},
               {.title = "MIG", .goes = 2},
               {"UUID", false, true}});
  for (const auto& gpu : elements(member(answer, "gpus"))) {
    table.add({{plain(member(gpu, "index"))},
               {text(member(gpu, "name"))},
               {amount(member(gpu, "total"))},
               {mebibytes(member(gpu, "reserved"))},
               {amount(member(gpu, "used"))},
               {amount(member(gpu, "free"))},
               {switch_word(member(gpu, "persistence"))},
               {switch_word(member(gpu, "mig"))},
               {text(member(gpu, "uuid")), Ink::dim}});
    for (const auto& slice : elements(member(gpu, "slices")))
      table.add({{""},
                 {fmt::format("{} {}", glyph(screen, Glyph::dash), text(member(slice, "name")))},
                 {amount(member(slice, "total"))},
                 {mebibytes(member(slice, "reserved"))},
                 {amount(member(slice, "used"))},
                 {amount(member(slice, "free"))},
                 {""},
                 {fmt::format("{}/{}", plain(member(slice, "gpu_instance")), plain(member(slice, "compute_instance")))},
                 {text(member(slice, "uuid")), Ink::dim}});
  }
  std::string out = table.render(screen);
  for (const auto& gpu : elements(member(answer, "missing")))
    out += fmt::format("{} GPU {} is left out: {}\n", paint(screen, Ink::yellow, "!"), plain(member(gpu, "index")),
                       text(member(gpu, "problem")));
  if (const auto driver = text(member(answer, "driver")); !driver.empty())
    out += paint(screen, Ink::dim, fmt::format("Driver {}", driver)) + "\n";
  return out;
}

std::string render_gpu_processes(const json::value& answer, const Screen& screen) {
  Table table({{"GPU", true},
               {"PID", true},
               {"VRAM", true},
               {"SERVICE", false, true},
               {"COMMAND", false, true},
               {.title = "USER", .goes = 1},
               {"MIG", false, true}});
  for (const auto& process : elements(member(answer, "processes"))) {
    const auto& command = member(process, "command");
    table.add({{plain(member(process, "gpu"))},
               {plain(member(process, "pid"))},
               {amount(member(process, "used"))},
               owner(process),
               {command.is_null() ? "(ended, or not to be seen from here)" : text(command)},
               {text(member(process, "user"))},
               {text(member(process, "slice")), Ink::dim}});
  }
  return table.empty() ? "No process is on a GPU.\n" : table.render(screen);
}

}  // namespace gpumod::cli
