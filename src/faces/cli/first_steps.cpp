#include "faces/cli/first_steps.h"

#include <algorithm>

#include <boost/json.hpp>
#include <fmt/format.h>

#include "base/text.h"
#include "faces/cli/ask.h"
#include "faces/cli/fields.h"
#include "faces/cli/render.h"
#include "faces/cli/table.h"

namespace gpumod::cli {

namespace json = boost::json;

namespace {

bool exists(const json::value& file) {
  return truth(member(file, "exists"));
}

std::size_t new_files(const json::value& answer) {
  const auto& files = elements(member(answer, "files"));
  return static_cast<std::size_t>(
      std::count_if(files.begin(), files.end(), [](const json::value& file) { return !exists(file); }));
}

std::string list_found(const json::value& found, const Screen& screen) {
  Table table({{"", false}, {"", false, true}, {""}});
  for (const auto& engine : elements(member(found, "engines")))
    table.add({{text(member(engine, "engine")), Ink::cyan},
               {text(member(engine, "binary"))},
               {text(member(engine, "version")), Ink::dim}});
  for (const auto& model : elements(member(found, "models")))
    table.add({{"model", Ink::cyan},
               {model.is_string() ? text(model) : text(member(model, "path"))},
               {mebibytes(member(model, "bytes")), Ink::dim}});
  for (const auto& model : elements(member(found, "hub")))
    table.add({{"hub", Ink::cyan}, {plain(model)}, {}});
  for (const auto& unit : elements(member(found, "units")))
    table.add({{"unit", Ink::cyan}, {plain(unit)}, {}});
  if (table.empty()) return {};
  if (const auto manager = plain(member(found, "unit_manager")); !manager.empty())
    table.add({{"services run under", Ink::cyan}, {manager}, {}});
  return table.render(screen, 2, false);
}

}  // namespace

std::string render_init(const json::value& answer, const Screen& screen) {
  std::string out;
  const auto& written = elements(member(answer, "written"));
  if (written.empty()) {
    const auto found = list_found(member(answer, "found"), screen);
    out += found.empty() ? "Nothing was found: no engine, no model.\n" : "Found on this machine:\n" + found;
    for (const auto& file : elements(member(answer, "files"))) {
      if (exists(file)) continue;  // the advice says so
      out += fmt::format("\n{}\n", paint(screen, Ink::bold, text(member(file, "path"))));
      const auto content = raw_text(member(file, "text"));
      for (const auto line : split_lines(content))
        out += paint(screen, Ink::dim, "  " + printable(line)) + "\n";
    }
  } else {
    out += "Written:\n";
    for (const auto& path : written)
      out += "  " + text(path) + "\n";
  }
  const auto& advice = elements(member(answer, "advice"));
  if (!advice.empty()) out += "\n";
  const bool to_be_written = written.empty() && new_files(answer) > 0;
  // Not wrapped: some of it is to be copied.
  for (const auto& piece : advice) {
    const auto whole = raw_text(piece);
    if (to_be_written && (whole.starts_with("Next: ") || whole.starts_with("Then: ")))
      continue;  // of files not there yet
    for (const auto line : split_lines(whole))
      out += printable(line) + "\n";
  }
  return out;
}

int run_init(const Paths& paths, const Invocation& invocation, const Output& output) {
  json::object request = invocation.request;
  const bool agreed = flag_of(request, "yes");
  if (agreed) request["apply"] = true;
  const auto answer = call(paths, *invocation.verb, request, output);
  if (!answer || agreed || output.json) return conclude(invocation, answer, output);

  print(render_init(*answer, output.out));
  const auto count = new_files(*answer);
  if (count == 0) return 0;
  if (!can_ask())
    return conclude(Error{ErrorCode::refused,
                          "nothing was written: there is nobody to ask",
                          "gpumod init --yes writes without asking.",
                          {}},
                    output);
  print("\n");
  if (!ask(count == 1 ? std::string("Write this file?") : fmt::format("Write these {} files?", count), false))
    return conclude(Error{ErrorCode::cancelled, "nothing was written", {}, {}}, output);
  request["apply"] = true;
  return conclude(invocation, call(paths, *invocation.verb, request, output), output);
}

}  // namespace gpumod::cli
