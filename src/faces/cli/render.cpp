#include "faces/cli/render.h"

#include <algorithm>

#include <fmt/format.h>

#include "base/text.h"
#include "faces/cli/fields.h"
#include "faces/cli/table.h"

namespace gpumod::cli {

namespace json = boost::json;

namespace {

/// For answers that nobody has drawn yet.
std::string render_anything(const json::value& answer, int indent) {
  const std::string blank(static_cast<std::size_t>(indent), ' ');
  if (const auto* object = answer.if_object()) {
    std::string out;
    for (const auto& [key, inner] : *object) {
      const bool nests =
          inner.is_object() || (inner.is_array() && !inner.get_array().empty() && !inner.get_array()[0].is_string());
      if (nests)
        out += fmt::format("{}{}:\n{}", blank, printable(key), render_anything(inner, indent + 2));
      else if (const auto shown = plain(inner); !shown.empty())
        out += fmt::format("{}{}: {}\n", blank, printable(key), shown);
    }
    return out;
  }
  if (const auto* array = answer.if_array()) {
    std::string out;
    for (const auto& item : *array)
      out += fmt::format("{}- {}\n", blank, plain(item));
    return out;
  }
  const auto shown = plain(answer);
  return shown.empty() ? "" : blank + shown + "\n";
}

/// {"created": {"mode": "rag", "file": "…"}} and its like: one line.
std::string render_changed_file(const json::value& answer, const Screen& screen) {
  const auto* object = answer.if_object();
  if (!object || object->size() != 1 || !object->begin()->value().is_object()) return render_anything(answer, 0);
  const auto& body = object->begin()->value();
  const auto subject = text(member(body, "mode")).empty() ? text(member(body, "unit")) : text(member(body, "mode"));
  std::string out = fmt::format("{} {} {}", printable(object->begin()->key()), subject,
                                paint(screen, Ink::dim, fmt::format("({})", text(member(body, "file")))));
  return out + "\n";
}

std::string render_forgotten(const json::value& answer) {
  const auto& body = member(answer, "forgotten");
  const auto runs = static_cast<std::size_t>(number(member(body, "runs")).value_or(0));
  const auto service = text(member(body, "service"));
  return runs == 0 ? fmt::format("Nothing had been measured of {}.\n", service)
                   : fmt::format("What {} of {} had shown is forgotten.\n", counted(runs, "run"), service);
}

std::string render_mcp_install(const json::value& answer) {
  if (const auto* shown = member(member(answer, "shown"), "text").if_string())
    return std::string(*shown);  // as it is: it will be pasted
  const auto& body = member(answer, "installed");
  const auto client = text(member(body, "client")), file = text(member(body, "file")),
             backup = text(member(body, "backup"));
  if (!truth(member(body, "changed"))) return fmt::format("{} is set up already, in {}.\n", client, file);
  return fmt::format("{} is set up, in {}.{} Start it anew.\n", client, file,
                     backup.empty() ? "" : fmt::format(" What was there is in {}.", backup));
}

}  // namespace

std::string render(std::string_view verb, const json::value& answer, const Screen& screen) {
  if (!member(answer, "simulation").is_null()) return render_simulation(answer, screen);
  if (!member(answer, "bench").is_null()) return render_bench(answer, screen);
  if (!member(answer, "plan").is_null()) return render_plan(answer, screen);
  if (!member(answer, "switch").is_null() && verb != "status" && verb != "mode status")
    return render_switch(answer, screen, Steps::shown);
  if (!member(answer, "qa").is_null()) return render_qa(answer, screen);
  if (!member(answer, "tour").is_null()) return render_qa_tour(answer, screen);
  if (verb == "qa list") return render_qa_list(answer, screen);
  if (verb == "qa diff") return render_qa_diff(answer, screen);
  if (verb == "status") return render_status(answer, screen);
  if (verb == "gpu list") return render_gpu_list(answer, screen);
  if (verb == "gpu processes") return render_gpu_processes(answer, screen);
  if (verb == "mode list") return render_mode_list(answer, screen);
  if (verb == "mode show") return render_mode(answer, screen);
  if (verb == "mode status") return render_mode_status(answer, screen);
  if (verb == "service list") return render_service_list(answer, screen);
  if (verb == "service show" || verb == "service status") return render_service(answer, screen);
  if (verb == "service logs") return render_logs(answer, screen);
  if (verb == "history") return render_history(answer, screen);
  if (verb == "history show") return render_recording(answer, screen);
  if (verb == "config check") return render_config_check(answer, screen);
  if (verb == "init") return render_init(answer, screen);
  if (verb == "model inspect") return render_model(answer, screen);
  if (verb == "model list") return render_model_list(answer, screen);
  if (verb == "model info") return render_model_info(answer, screen);
  if (verb == "model register" || verb == "model remove") return render_model_record(answer, screen);
  if (verb == "model scan") return render_model_scan(answer, screen);
  if (verb == "unit show") return render_unit(answer, screen);
  if (verb == "mcp install") return render_mcp_install(answer);
  if (verb == "service forget") return render_forgotten(answer);
  return render_changed_file(answer, screen);
}

std::string paragraph(std::string_view words, const Screen& screen, int indent, std::string_view lead, Ink lead_ink) {
  std::string out;
  const std::string blank(static_cast<std::size_t>(indent), ' ');
  const std::string after_lead(static_cast<std::size_t>(std::max(0, indent - display_width(lead))), ' ');
  for (const auto line : split_lines(words))
    for (const auto& piece : wrapped(printable(line), screen.terminal ? screen.width - indent : 0))
      out += (out.empty() && !lead.empty() ? paint(screen, lead_ink, lead) + after_lead : blank) + piece + "\n";
  return out;
}

std::string render_problems(const json::value& problems, const Screen& screen, int indent) {
  std::string out;
  const std::string blank(static_cast<std::size_t>(indent), ' ');
  for (const auto& problem : elements(problems)) {
    if (problem.is_string()) {
      out += paragraph(text(problem), screen, indent);
      continue;
    }
    const auto severity = text(member(problem, "severity"));
    const auto hint = text(member(problem, "hint"));
    if (severity.empty()) {  // of no place in a file
      out += paragraph(fmt::format("{}{}", text(member(problem, "message")), hint.empty() ? "" : ". " + hint), screen,
                       indent);
      continue;
    }
    out += fmt::format("{}{}: {} {}{}\n", blank, paint(screen, Ink::bold, text(member(problem, "where"))),
                       paint(screen, severity == "error" ? Ink::red : Ink::yellow, severity + ":"),
                       text(member(problem, "message")), hint.empty() ? "" : ". " + hint);
  }
  return out;
}

namespace {

std::size_t count_of(const json::value& problems, std::string_view severity) {
  std::size_t count = 0;
  for (const auto& problem : elements(problems))
    if (text(member(problem, "severity")) == severity) ++count;
  return count;
}

/// "3 services, 2 modes, 1 error, 2 warnings"
std::string verdict(const json::value& answer, const Screen& screen) {
  const auto amount = [&](const char* key) {
    return static_cast<std::size_t>(number(member(answer, key)).value_or(0));
  };
  std::string out = fmt::format("{}: {}, {}, ", text(member(answer, "directory")),
                                counted(amount("services"), "service"), counted(amount("modes"), "mode"));
  const auto& problems = member(answer, "problems");
  const auto errors = count_of(problems, "error"), warnings = count_of(problems, "warning");
  if (errors > 0) out += paint(screen, Ink::red, counted(errors, "error"));
  if (errors > 0 && warnings > 0) out += ", ";
  if (warnings > 0) out += paint(screen, Ink::yellow, counted(warnings, "warning"));
  if (errors + warnings == 0) out += paint(screen, Ink::green, "no problems");
  return out + "\n";
}

}  // namespace

std::string render_report(const Error& error, const Screen& screen) {
  std::string out;
  if (!member(error.details, "simulation").is_null()) out += render_simulation(error.details, screen);
  if (!member(error.details, "bench").is_null()) out += render_bench(error.details, screen);
  if (!member(error.details, "qa").is_null()) out += render_qa(error.details, screen);
  if (!member(error.details, "diff").is_null()) out += render_qa_diff(error.details, screen);
  return out;
}

std::string render_error(const Error& error, const Screen& screen, std::string_view about) {
  const auto& problems = member(error.details, "problems");
  // What `config check` found: the message only repeats the first of them.
  if (!member(error.details, "directory").is_null() && !elements(problems).empty())
    return render_problems(problems, screen) + verdict(error.details, screen);
  std::string out;
  if (!member(error.details, "switch").is_null()) out += render_switch(error.details, screen, Steps::shown, about);
  out += paragraph(error.message, screen, 8, "gpumod:", Ink::red);
  out += paragraph(error.hint, screen, 8);
  std::string more;
  for (const auto& problem : elements(problems)) {
    const auto words = problem.is_string() ? raw_text(problem) : raw_text(member(problem, "message"));
    if (error.message.find(words) == std::string::npos) more += render_problems(json::array{problem}, screen, 8);
  }
  return out + more;
}

std::string render_config_check(const json::value& answer, const Screen& screen) {
  return render_problems(member(answer, "problems"), screen) + verdict(answer, screen);
}

std::string render_unit(const json::value& answer, const Screen& screen) {
  std::string out;
  const auto whole = raw_text(member(answer, "text"));
  for (const auto line : split_lines(whole))
    out += printable(line) + "\n";
  if (screen.terminal) {
    const auto& installed = member(answer, "installed");
    const bool there = truth(installed) || !text(installed).empty();
    out +=
        paint(screen, Ink::dim, fmt::format("# {} is {}installed", text(member(answer, "unit")), there ? "" : "not ")) +
        "\n";
  }
  return out;
}

std::string with_notes(const std::string& table, const std::vector<std::vector<std::string>>& notes,
                       const Screen& screen) {
  std::string out;
  std::size_t line_number = 0;
  for (const auto line : split_lines(table)) {
    out += std::string(line) + "\n";
    if (line_number > 0 && line_number <= notes.size())
      for (const auto& note : notes[line_number - 1])
        out += paint(screen, Ink::dim, paragraph(note, screen, 4));
    ++line_number;
  }
  return out;
}

}  // namespace gpumod::cli
