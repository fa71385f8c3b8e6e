#include "faces/cli/run.h"

#include <algorithm>
#include <cstdio>

#include <boost/json.hpp>
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include "base/log.h"
#include "base/text.h"
#include "faces/cli/completion.h"
#include "faces/cli/demo.h"
#include "faces/cli/doctor.h"
#include "faces/cli/editor.h"
#include "faces/cli/fields.h"
#include "faces/cli/first_steps.h"
#include "faces/cli/gpu_watch.h"
#include "faces/cli/help.h"
#include "faces/cli/render.h"
#include "faces/cli/version.h"
#include "faces/mcp/stdio.h"
#include "model/json.h"
#include "verbs/context.h"
#include "verbs/reference.h"

namespace gpumod {

namespace json = boost::json;

namespace cli {

int exit_code(const Error& error) {
  return static_cast<int>(error.code);
}

json::object error_document(const Error& error) {
  Error shown = error;
  json::object document;
  if (auto* details = shown.details.if_object()) {
    for (const char* whole : {"switch", "simulation", "bench", "qa", "diff"})  // the whole answer, where scripts look
      if (auto* report = details->if_contains(whole)) {
        document[whole] = std::move(*report);
        details->erase(whole);
      }
    if (details->empty()) shown.details = nullptr;
  }
  document["error"] = to_json(shown);
  return document;
}

void print(std::string_view words) {
  std::fwrite(words.data(), 1, words.size(), stdout);
  std::fflush(stdout);
}

void complain(std::string_view words) {
  std::fflush(stdout);
  std::fwrite(words.data(), 1, words.size(), stderr);
}

namespace {

void write_text(std::string& out, std::string_view text) {
  const auto is_plain = [](char c) { return c >= 0x20 && c < 0x7F && c != '"' && c != '\\'; };
  if (std::all_of(text.begin(), text.end(), is_plain))
    out.append("\"").append(text).append("\"");
  else
    out += json::serialize(json::string(text));
}

/// Boost writes 1.069 as 1.069E0: valid, but nothing that people want to read.
void write_json(std::string& out, const json::value& value) {
  if (value.is_double()) {
    out += fmt::format("{}", value.get_double());
  } else if (const auto* object = value.if_object()) {
    out += '{';
    for (const auto& [key, inner] : *object) {
      if (out.back() != '{') out += ',';
      write_text(out, key);
      out += ':';
      write_json(out, inner);
    }
    out += '}';
  } else if (const auto* array = value.if_array()) {
    out += '[';
    for (const auto& inner : *array) {
      if (&inner != array->data()) out += ',';
      write_json(out, inner);
    }
    out += ']';
  } else if (const auto* text = value.if_string()) {
    write_text(out, *text);
  } else {
    out += json::serialize(value);
  }
}

}  // namespace

std::string json_text(const json::value& value) {
  std::string out;
  write_json(out, value);
  return out;
}

void print_json(const json::value& value) {
  print(json_text(value) + "\n");
}

int conclude(const Error& error, const Output& output, std::string_view about) {
  if (output.json) {
    print_json(error_document(error));
  } else {
    if (const auto report = render_report(error, output.out); !report.empty()) print(report);
    complain(render_error(error, output.err, about));
  }
  return exit_code(error);
}

int conclude(const Invocation& invocation, const Result<json::value>& answer, const Output& output) {
  if (!answer) return conclude(answer.error(), output);
  if (answer->is_null()) return 0;
  if (output.json) {
    print_json(*answer);
    return 0;
  }
  if (invocation.verb->name == "status" && flag_of(invocation.request, "visual"))
    print(render_status(*answer, output.out, Picture::visual));
  else
    print(render(invocation.verb->name, *answer, output.out));
  const bool shows_problems = invocation.verb->name == "status" || invocation.verb->name == "config check";
  if (!shows_problems) complain(render_problems(member(*answer, "problems"), output.err));
  return 0;
}

Result<json::value> call(const Paths& paths, const Verb& verb, const json::object& request, const Output& output) {
  Loop loop;
  Context context(loop, paths, [&output](json::object event) {
    const auto kind = text(member(event, "event"));
    if (kind == "log") {
      event.erase("event");
      if (output.json)
        print_json(event);
      else
        print(render_log_line(event, output.out));
    } else if (kind == "notice" && !output.json) {
      complain(fmt::format("{} {}\n", paint(output.err, Ink::yellow, "note:"), text(member(event, "text"))));
    }
  });
  return loop.run_until_done(verb.handler(context, request));
}

std::string about(const Invocation& invocation) {
  std::string words = invocation.verb->name;
  for (const auto& parameter : invocation.verb->parameters)
    if (parameter.positional)
      if (const auto value = plain(member(invocation.request, parameter.name)); !value.empty()) words += " " + value;
  return words;
}

std::string subject(const Invocation& invocation) {
  const auto& verb = invocation.verb->name;
  return verb == "mode switch" || verb == "repair" ? std::string() : about(invocation);
}

namespace {

int run_verb(const Paths& paths, const Invocation& invocation, const Output& output) {
  const Verb& verb = *invocation.verb;
  if (verb.name == "init") return run_init(paths, invocation, output);
  if (verb.name == "doctor") return run_doctor(paths, invocation, output);
  if (verb.name == "gpu watch") return run_gpu_watch(paths, invocation, output);
  if (verb.name == "demo") return run_demo(paths, invocation, output);
  if (verb.name == "mode edit" && !invocation.request.contains("text") && !output.json)
    return run_editor(paths, invocation, output);
  if (verb.effect == Verb::Effect::mutates && !flag_of(invocation.request, "dry-run"))
    return follow(paths, invocation, output);
  return conclude(invocation, call(paths, verb, invocation.request, output), output);
}

bool is_configured(const Paths& paths) {
  std::error_code unreadable;
  return std::filesystem::exists(paths.config, unreadable) && !std::filesystem::is_empty(paths.config, unreadable);
}

int run_help(const Paths& paths, const Invocation& invocation, const Output& output) {
  if (output.json) {
    print_json(help_document(invocation.words, all_verbs()));
    return 0;
  }
  if (invocation.words.empty()) {
    if (paths.config_named && !std::filesystem::exists(paths.config))
      complain(fmt::format("{} GPUMOD_CONFIG_DIR is {}, and there is no such folder\n",
                           paint(output.err, Ink::yellow, "note:"), printable(paths.config.string())));
    std::vector<std::string> modes;
    for (const auto& mode : known_names(paths, Parameter::Names::modes))
      modes.push_back(mode.id);
    print(short_help(output.out, is_configured(paths), modes));
  } else {
    const auto about_it = help_about(invocation.words, all_verbs(), output.out);
    print(about_it ? *about_it : full_help(output.out, all_verbs()));
  }
  return 0;
}

int run_completion(const Invocation& invocation, const Output& output) {
  const auto script = invocation.words.size() == 1 ? completion_script(invocation.words[0]) : std::string_view();
  if (script.empty())
    return conclude(
        Error{ErrorCode::usage, "completion needs the name of a shell", "gpumod completion bash, zsh or fish.", {}},
        output);
  if (output.json)
    print_json(json::object{{"shell", invocation.words[0]}, {"script", script}});
  else
    print(script);
  return 0;
}

/// When a caller closed one of them, the next thing we open must not take its place: what we print would go into it.
void fill_standard_descriptors() {
  int opened = ::open("/dev/null", O_RDWR);
  while (opened >= 0 && opened <= STDERR_FILENO)
    opened = ::open("/dev/null", O_RDWR);
  if (opened >= 0) ::close(opened);
}

int run_reference(const Invocation& invocation, const Output& output) {
  const auto& words = invocation.words;
  if (words.size() == 1 && words[0] == "cli") {
    print(reference_markdown(all_verbs()));
    return 0;
  }
  if (words.size() == 1 && words[0] == "configuration") {
    print(configuration_reference());
    return 0;
  }
  if (words.size() == 2 && words[0] == "schema") {
    const auto schema = configuration_schema(words[1]);
    if (!schema) return conclude(schema.error(), output);
    print(*schema + "\n");
    return 0;
  }
  return conclude(
      Error{ErrorCode::usage, "__reference prints cli, configuration, or schema service|mode|settings", {}, {}},
      output);
}

}  // namespace

}  // namespace cli

namespace {

int run(int argc, char** argv) {
  using namespace cli;
  fill_standard_descriptors();
  const std::vector<std::string> arguments(argv + 1, argv + std::max(1, argc));
  set_log_level(LogLevel::error);  // people get notices instead
  auto invocation = parse(arguments, all_verbs());
  Output output;
  output.json = invocation ? invocation->json : wants_json(arguments);
  const bool no_colour = invocation ? invocation->no_colour : false;
  output.out = Screen::of(1, no_colour);
  output.err = Screen::of(2, no_colour);
  if (!invocation) return conclude(invocation.error(), output);
  if (invocation->kind == Invocation::Kind::version) {
    if (output.json)
      print_json(version_json());
    else
      print(version_line() + "\n");
    return 0;
  }
  if (invocation->kind == Invocation::Kind::completion) return run_completion(*invocation, output);
  if (invocation->kind == Invocation::Kind::reference) return run_reference(*invocation, output);

  const auto paths = Paths::from_environment();
  if (invocation->kind == Invocation::Kind::complete) {
    if (paths) print(completions(*paths, invocation->words, all_verbs()));
    return 0;
  }
  if (!paths) return conclude(paths.error(), output);
  if (invocation->kind == Invocation::Kind::mcp) return mcp::serve_stdio(*paths);
  if (invocation->kind == Invocation::Kind::help) return run_help(*paths, *invocation, output);
  return run_verb(*paths, *invocation, output);
}

}  // namespace

int cli_main(int argc, char** argv) {
  const int code = run(argc, argv);
  if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return code;
  cli::complain("gpumod: what it had to say could not be written (is the disk full?)\n");
  return code == 0 ? static_cast<int>(ErrorCode::failed) : code;
}

}  // namespace gpumod
