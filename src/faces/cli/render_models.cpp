// The registry of models: lists, records, what a folder holds.

#include <fmt/format.h>

#include "base/text.h"
#include "faces/cli/fields.h"
#include "faces/cli/render.h"
#include "faces/cli/table.h"

namespace gpumod::cli {

namespace json = boost::json;

namespace {

std::string parameters_of(const json::value& model) {
  return number(member(model, "parameters")).value_or(0) > 0 ? round_count(member(model, "parameters")) : "";
}

std::string size_of(const json::value& model) {
  return number(member(model, "bytes")).value_or(0) > 0 ? mebibytes(member(model, "bytes")) : "";
}

/// Below a table: what is wrong with which model.
std::string troubles(const json::value& models, const Screen& screen) {
  std::string out;
  for (const auto& model : elements(models)) {
    auto lines = texts(member(model, "missing"));
    if (const auto problem = text(member(model, "problem")); !problem.empty()) lines.push_back(problem);
    constexpr std::size_t shown = 3;
    if (lines.size() > shown) {
      const auto more = lines.size() - shown;
      lines.resize(shown);
      lines.push_back(fmt::format("and {} more of its files", more));
    }
    for (const auto& line : lines)
      out += paragraph(fmt::format("{}: {}", text(member(model, "id")), line), screen, 2, "!", Ink::yellow);
  }
  return out.empty() ? out : "\n" + out;
}

std::string notes_of(const json::value& answer, const Screen& screen) {
  std::string out;
  for (const auto& note : texts(member(answer, "notes")))
    out += paragraph(note, screen, 2, "!", Ink::yellow);
  return out.empty() ? out : "\n" + out;
}

/// `below`: a folder that was looked through, and need not be said of each; "": places are not told.
std::string models_table(const json::value& models, const Screen& screen, const std::string& below) {
  const auto place = [&](const json::value& model) {
    auto path = below.empty() ? std::string() : text(member(model, "path"));
    if (path.starts_with(below + "/")) path.erase(0, below.size() + 1);
    return path;
  };

  Table table({{"MODEL"},
               {.title = "SOURCE", .goes = 5},
               {.title = "ARCHITECTURE", .goes = 3},
               {.title = "PARAMETERS", .right = true, .goes = 2},
               {.title = "QUANTIZATION", .goes = 1},
               {"SIZE", true},
               {.title = "CONTEXT", .right = true, .goes = 4},
               {"SERVICES", false, true},
               {"PATH", false, true}});
  for (const auto& model : elements(models))
    table.add({{text(member(model, "id"))},
               {text(member(model, "source"))},
               {text(member(model, "architecture"))},
               {parameters_of(model)},
               {text(member(model, "quantization"))},
               {size_of(model)},
               {plain(member(model, "context_length"))},
               {join(texts(member(model, "services")), ", ")},
               {place(model), Ink::dim}});
  return table.empty() ? "" : table.render(screen);
}

std::string files_table(const json::value& answer, const Screen& screen) {
  Table table({{"FILE", false, true}, {"SIZE", true}, {"CHANGED"}, {"SHA-256"}, {""}});
  for (const auto& file : elements(member(answer, "files"))) {
    if (text(member(file, "role")) == "configuration" && text(member(file, "problem")).empty()) continue;
    table.add({{text(member(file, "path"))},
               {mebibytes(member(file, "bytes"))},
               {local_time(member(file, "modified"), Screen{}).substr(0, 10)},
               {text(member(file, "sha256")).substr(0, 12), Ink::dim},
               {text(member(file, "problem")), Ink::red}});
  }
  return table.empty() ? "" : "\n" + table.render(screen);
}

}  // namespace

std::string render_model_list(const json::value& answer, const Screen& screen) {
  const auto& models = member(answer, "models");
  if (elements(models).empty())
    return "No models yet: services name them, gpumod model register ID --path FILE remembers one, gpumod model scan "
           "DIR finds them.\n" +
           notes_of(answer, screen);
  return models_table(models, screen, "") + troubles(models, screen) + notes_of(answer, screen);
}

std::string render_model_info(const json::value& answer, const Screen& screen) {
  Table table({{""}, {"", false, true}});
  const auto row = [&](const char* title, const std::string& words) {
    if (!words.empty()) table.add({{title, Ink::dim}, {words}});
  };
  row("model", text(member(answer, "id")));
  row("source", text(member(answer, "source")) + (truth(member(answer, "registered")) ? ", registered" : ""));
  const auto& hub = member(answer, "hub");
  row("on the hub",
      hub.is_null() ? ""
                    : text(member(hub, "id")) + (truth(member(hub, "gated")) ? ", whose terms must be agreed to" : ""));
  const auto services = texts(member(answer, "services"));
  row("services", services.empty() ? "none" : join(services, ", "));
  return table.render(screen, 0, false) + "\n" + render_model(answer, screen) + files_table(answer, screen);
}

std::string render_model_record(const json::value& answer, const Screen& screen) {
  const auto& added = member(answer, "registered");
  const auto& record = added.is_null() ? member(answer, "removed") : added;
  std::string out = fmt::format("{} {} {}", added.is_null() ? "removed" : "registered", text(member(record, "model")),
                                paint(screen, Ink::dim, fmt::format("({})", text(member(record, "where")))));
  std::vector<std::string> facts{text(member(record, "architecture")), parameters_of(record),
                                 text(member(record, "quantization")), size_of(record)};
  std::erase(facts, "");
  if (!facts.empty()) out += ": " + join(facts, ", ");
  out += "\n";
  for (const auto& note : texts(member(answer, "notes")))
    out += paragraph(note, screen, 0);
  return out;
}

std::string render_model_scan(const json::value& answer, const Screen& screen) {
  const auto& models = member(answer, "models");
  std::string out = models_table(models, screen, text(member(answer, "folder")));
  if (out.empty()) out = fmt::format("{} holds no model that is read here.\n", text(member(answer, "folder")));
  const auto& left_out = elements(member(answer, "left_out"));
  if (!left_out.empty()) out += "\nLeft out:\n";
  for (const auto& each : left_out) {
    const auto path = text(member(each, "path")), why = text(member(each, "why"));
    // Readers of files name the file themselves.
    out += paragraph(why.find(path) == std::string::npos ? path + ": " + why : why, screen, 2, "-");
  }
  const auto registered = texts(member(answer, "registered"));
  if (!registered.empty())
    out += "\nRegistered: " + join(registered, ", ") + "\n";
  else if (!elements(models).empty())
    out +=
        paint(screen, Ink::dim, "\ngpumod model scan --register remembers them; gpumod model list shows them then.\n");
  return out + notes_of(answer, screen);
}

}  // namespace gpumod::cli
