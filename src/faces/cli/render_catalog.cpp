// Modes, services and logs.

#include <fmt/format.h>

#include "base/text.h"
#include "faces/cli/fields.h"
#include "faces/cli/render.h"
#include "faces/cli/table.h"

namespace gpumod::cli {

namespace json = boost::json;

namespace {

/// Keys that people know by another word, or that need their unit.
std::string shown_value(std::string_view key, const json::value& value) {
  if (key == "vram" || key == "vram_used") return mebibytes(value);
  if (key.ends_with("_timeout")) return seconds_text(value);
  return plain(value);
}

std::string describe(const json::value& body, std::string_view left_out, const Screen& screen) {
  const auto* object = body.if_object();
  if (!object) return {};
  Table table({{""}, {"", false, true}});
  for (const auto& [key, value] : *object) {
    if (key == left_out) continue;
    auto words = std::string(key);
    for (char& c : words)
      if (c == '_') c = ' ';
    const auto shown = shown_value(key, value);
    if (shown.empty()) continue;
    table.add({{words, Ink::dim}, key == "state" ? state_cell(shown, screen) : Cell{shown}});
  }
  return table.render(screen, 0, false);
}

}  // namespace

std::string render_mode_list(const json::value& answer, const Screen& screen) {
  Table table({{""}, {"MODE"}, {"SERVICES", false, true}, {"NAME", false, true}});
  for (const auto& mode : elements(member(answer, "modes"))) {
    const auto id = text(member(mode, "id"));
    const auto name = text(member(mode, "name"));
    const bool active = truth(member(mode, "active"));
    auto services = join(texts(member(mode, "services")), ", ");
    table.add({{active ? std::string(glyph(screen, Glyph::on)) : " ", Ink::green},
               {id, active ? Ink::green : Ink::plain},
               {services.empty() ? "(nothing runs)" : services, services.empty() ? Ink::dim : Ink::plain},
               {name == id ? "" : name, Ink::dim}});
  }
  if (table.empty())
    return "No modes yet. gpumod mode create MODE --services A,B names services that belong together.\n";
  return table.render(screen);
}

std::string render_mode(const json::value& answer, const Screen& screen) {
  const auto& mode = member(answer, "mode");
  std::string out = describe(mode, "members", screen);
  Table table({{"SERVICE"}, {"ENGINE"}, {"PORT", true}, {"VRAM", true}, {"NAME", false, true}});
  for (const auto& service : elements(member(mode, "members")))
    table.add({{text(member(service, "id"))},
               {text(member(service, "engine"))},
               {plain(member(service, "port"))},
               {mebibytes(member(service, "vram"))},
               {text(member(service, "name")), Ink::dim}});
  if (!table.empty()) out += "\n" + table.render(screen);
  return out;
}

std::string render_service_list(const json::value& answer, const Screen& screen) {
  Table table({{"SERVICE"},
               {"STATE"},
               {.title = "ENGINE", .goes = 2},
               {.title = "PORT", .right = true, .goes = 1},
               {.title = "PID", .right = true, .goes = 3},
               {"VRAM", true},
               {"NAME", false, true}});
  for (const auto& service : elements(member(answer, "services"))) {
    const auto id = text(member(service, "id")), name = text(member(service, "name"));
    const auto& used = member(service, "vram_used");
    table.add({{id},
               state_cell(text(member(service, "state")), screen),
               {text(member(service, "engine"))},
               {plain(member(service, "port"))},
               {plain(member(service, "pid"))},
               {number(used).value_or(0) > 0 ? mebibytes(used) : ""},
               {name == id ? "" : name, Ink::dim}});
  }
  return table.empty() ? "No services yet: gpumod init writes some.\n" : table.render(screen);
}

namespace {

/// "ready 12.5 s (±0.3 s)"
std::string seconds_of(const json::value& phases) {
  std::vector<std::string> parts;
  if (const auto* object = phases.if_object())
    for (const auto& [phase, took] : *object) {
      const auto spread = number(member(took, "spread")).value_or(0);
      parts.push_back(fmt::format("{} {}{}", printable(phase), seconds_text(member(took, "median")),
                                  spread >= 0.05 ? fmt::format(" (±{})", seconds_text(member(took, "spread"))) : ""));
    }
  return join(parts, ", ");
}

const json::value& of_gpu(const json::value& measured, const std::string& name) {
  static const json::value none;
  for (const auto& each : elements(measured))
    if (text(member(each, "gpu")) == name) return each;
  return none;
}

std::string or_dash(std::string shown) {
  return shown.empty() ? "-" : shown;
}

std::string render_memory(const json::value& memory, const Screen& screen) {
  Table table({{"MEMORY"}, {"DECLARED", true}, {"ESTIMATED", true}, {"MEASURED", true}, {"CLAIMED", true}, {""}});
  for (const auto& claim : elements(member(memory, "claims"))) {
    const auto& measured = of_gpu(member(memory, "measured"), text(member(claim, "name")));
    table.add({{gpu_words(plain(member(claim, "gpu")))},
               {or_dash(mebibytes(member(memory, "declared")))},
               {or_dash(mebibytes(member(member(memory, "estimated"), "total")))},
               {or_dash(mebibytes(member(measured, "peak")))},
               {or_dash(mebibytes(member(claim, "bytes"))), Ink::bold},
               {text(member(claim, "source")), Ink::dim}});
  }
  std::string out = table.empty() ? "" : "\n" + table.render(screen);
  for (const auto& measured : elements(member(memory, "measured"))) {
    const auto took = seconds_of(member(measured, "seconds"));
    if (!took.empty()) out += paragraph(took, screen, 10, "times:", Ink::dim);
  }
  if (const auto why = text(member(memory, "not_estimated")); !why.empty())
    out += paragraph(fmt::format("not estimated: {}", why), screen, 10, "", Ink::dim);
  for (const auto& warning : texts(member(memory, "warnings")))
    out += paragraph(warning, screen, 10, "warning:", Ink::yellow);
  return out;
}

}  // namespace

std::string render_service(const json::value& answer, const Screen& screen) {
  const auto& service = member(answer, "service");
  std::string out = describe(service, "memory", screen);
  if (truth(member(service, "outdated")))
    out +=
        paragraph(fmt::format("it runs with older settings than its file's; gpumod service restart {} applies the new "
                              "ones",
                              text(member(service, "id"))),
                  screen, 10, "!", Ink::yellow);
  return out + render_memory(member(service, "memory"), screen);
}

std::string render_log_line(const json::value& line, const Screen& screen) {
  return fmt::format("{} {}\n", paint(screen, Ink::dim, local_time(member(line, "time"), screen)),
                     text(member(line, "text")));
}

std::string render_logs(const json::value& answer, const Screen& screen) {
  std::string out;
  for (const auto& line : elements(member(answer, "lines")))
    out += render_log_line(line, screen);
  return out;
}

}  // namespace gpumod::cli
