// The Markdown report: environment, a table of the transitions, each of them in detail, what was found, a summary.
#include <algorithm>

#include <fmt/format.h>

#include "base/fd.h"
#include "base/text.h"
#include "verbs/qa_issues.h"
#include "verbs/qa_report.h"
#include "verbs/qa_values.h"
#include "verbs/qa_words.h"

namespace gpumod {

namespace json = boost::json;

namespace {

/// Shorter waits are how a switch is.
constexpr double worth_a_line = 0.1;  // seconds

/// Text that means nothing to Markdown or to HTML within it, on one line.
std::string plain_text(std::string_view text) {
  static constexpr std::string_view special = "\\`*_{}[]<>#|~&";
  std::string out;
  for (const char c : printable(text)) {
    if (special.find(c) != std::string_view::npos) out += '\\';
    out += c == '\n' ? ' ' : c;
  }
  return out;
}

std::size_t longest_run_of_ticks(std::string_view text) {
  std::size_t longest = 0, run = 0;
  for (const char c : text) {
    run = c == '`' ? run + 1 : 0;
    longest = std::max(longest, run);
  }
  return longest;
}

/// A block whose fence is longer than any in it.
std::string block(const std::vector<std::string>& lines) {
  std::string body;
  for (const auto& line : lines)
    body += printable(line) + "\n";
  const std::string fence(std::max<std::size_t>(3, longest_run_of_ticks(body) + 1), '`');
  return fence + "\n" + body + fence + "\n";
}

std::string environment(const json::value& run) {
  std::string out = "## Environment\n\n";
  const auto item = [&](const char* name, const std::string& value) {
    if (!value.empty()) out += fmt::format("- {}: {}\n", name, plain_text(value));
  };
  for (const auto& gpu : list_at(run, {"environment", "gpus"}))
    item("GPU", fmt::format("{} ({})", string_at(gpu, {"name"}), bytes_words(find(gpu, {"total"}))));
  item("GPU", string_at(run, {"environment", "gpu_problem"}));
  item("Driver", string_at(run, {"environment", "driver"}));
  item("gpumod", string_at(run, {"environment", "gpumod"}));
  item("Units run under", string_at(run, {"environment", "unit_manager"}));
  for (const auto& service : list_at(run, {"environment", "services"}))
    item("Service", fmt::format("{}: {} with {}", string_at(service, {"id"}), string_at(service, {"engine"}),
                                string_at(service, {"model"})));
  const auto& changes = list_at(run, {"compared", "changes"});
  if (changes.empty()) return out + "\n";
  out += fmt::format("- Changed since run {}:\n", integer_at(run, {"compared", "before"}).value_or(0));
  for (const auto& change : changes)
    if (change.is_string()) out += "  - " + plain_text(change.get_string()) + "\n";
  return out + "\n";
}

std::string results(const json::value& run) {
  std::string out =
      "## Results\n\n| Transition | Time | Result | VRAM (before, peak, after) | Notes |\n|---|---|---|---|---|\n";
  for (const auto& transition : list_at(run, {"transitions"}))
    out += fmt::format("| {} | {} | {} | {} | {} |\n", plain_text(name_of_transition(transition)),
                       seconds_words(find(transition, {"seconds"})), plain_text(result_word(transition)),
                       vram_words(transition), plain_text(join(notes_on(transition), "; ")));
  return out + "\n";
}

std::vector<std::string> steps_of(const json::value& transition) {
  std::vector<std::string> lines;
  for (const auto& step : list_at(transition, {"steps"})) {
    const auto service = string_at(step, {"service"});
    auto line = fmt::format("{:<7} {:<24} {:<8} {:>9}", string_at(step, {"action"}),
                            service.empty() ? string_at(step, {"unit"}) : service, string_at(step, {"result"}),
                            seconds_words(find(step, {"seconds"})));
    if (true_at(step, {"undo"})) line = "back: " + line;
    if (const auto note = string_at(step, {"note"}); !note.empty()) line += "  " + note;
    lines.push_back(std::move(line));
    for (const auto& mishap : list_at(step, {"earlier"}))
      if (mishap.is_string()) lines.push_back("        before that: " + std::string(mishap.get_string()));
  }
  for (const auto& wait : list_at(transition, {"waits"}))
    if (number_at(wait, {"seconds"}).value_or(0) >= worth_a_line)
      lines.push_back(fmt::format("waited  {:<24} {:<8} {:>9}  {}", string_at(wait, {"subject"}),
                                  string_at(wait, {"for"}), seconds_words(find(wait, {"seconds"})),
                                  string_at(wait, {"cause"})));
  return lines;
}

std::string in_detail(const json::value& transition, std::size_t number) {
  auto out = fmt::format("### {}. {}\n\n", number, plain_text(name_of_transition(transition)));
  auto lines = steps_of(transition);
  for (auto& note : notes_on(transition))
    lines.push_back(std::move(note));
  for (const auto& foreign : list_at(transition, {"foreign"}))
    lines.push_back(fmt::format("foreign memory: {} holds {}", string_at(foreign, {"name"}),
                                bytes_words(find(foreign, {"bytes"}))));
  if (const auto vram = vram_words(transition); !vram.empty()) lines.push_back("VRAM: " + vram);
  out += block(lines) + "\n";
  for (const auto& log : list_at(transition, {"logs"})) {
    std::vector<std::string> said;
    for (const auto& line : list_at(log, {"lines"}))
      if (line.is_string()) said.emplace_back(line.get_string());
    out += fmt::format("The last lines of {}:\n\n", plain_text(string_at(log, {"service"}))) + block(said) + "\n";
  }
  return out;
}

std::string issues(const json::value& run) {
  std::string out = "## Issues found\n\n";
  const auto& found = list_at(run, {"issues"});
  if (found.empty()) return out + "None.\n\n";
  std::size_t number = 0;
  for (const auto& issue : found) {
    std::vector<std::string> where, log;
    for (const auto& name : list_at(issue, {"transitions"}))
      if (name.is_string()) where.emplace_back(name.get_string());
    out += fmt::format("### {}. {} ({})\n\n", ++number, plain_text(string_at(issue, {"title"})),
                       plain_text(join(where, ", ")));
    const auto item = [&](const char* name, const char* key) {
      if (const auto text = string_at(issue, {key}); !text.empty())
        out += fmt::format("- **{}**: {}\n", name, plain_text(text));
    };
    item("Symptom", "symptom");
    item("Cause", "cause");
    item("Impact", "impact");
    item("Remedy", "remedy");
    for (const auto& line : list_at(issue, {"log"}))
      if (line.is_string()) log.emplace_back(line.get_string());
    out += "\n";
    if (!log.empty()) out += block(log) + "\n";
  }
  return out;
}

std::string comparison(const json::value& run) {
  if (!find(run, {"compared"}) || find(run, {"compared"})->is_null()) return {};
  auto out = fmt::format("## Compared with run {}\n\n", integer_at(run, {"compared", "before"}).value_or(0));
  const auto list = [&](const char* title, const char* key) {
    for (const auto& entry : list_at(run, {"compared", key}))
      out += fmt::format("- {}: {}\n", title, plain_text(string_at(entry, {"text"})));
  };
  list("**Worse**", "regressions");
  list("Better", "improvements");
  if (out.ends_with("\n\n")) out += "Nothing is worse or better by more than the tolerance.\n";
  return out + "\n";
}

std::string summary(const json::value& run) {
  auto out = fmt::format("## Summary\n\n- {}.\n", plain_text(summary_words(run)));
  for (const auto& issue : list_at(run, {"issues"})) {
    const auto remedy = string_at(issue, {"remedy"});
    out += fmt::format("- {}{}\n", plain_text(string_at(issue, {"title"})),
                       remedy.empty() ? "." : ": " + plain_text(remedy));
  }
  if (const auto words = restored_words(run); !words.empty()) out += fmt::format("- {}\n", plain_text(words));
  return out;
}

}  // namespace

std::string qa_markdown(const json::value& run) {
  const auto id = integer_at(run, {"id"});
  auto out = fmt::format("# Quality run{}: {}\n\n", id ? fmt::format(" {}", *id) : "", string_at(run, {"began"}));
  out += fmt::format("**Sequence:** {}", plain_text(sequence_words(run)));
  if (const auto rounds = integer_at(run, {"rounds"}).value_or(1); rounds > 1)
    out += fmt::format(", {} rounds", rounds);
  out += fmt::format("\n\n**Result:** {}, in {}\n\n", plain_text(string_at(run, {"result"})),
                     seconds_words(find(run, {"seconds"})));
  if (const auto fault = string_at(run, {"fault", "what"}); !fault.empty())
    out += fmt::format("**Planted fault:** {}\n\n", plain_text(fault));
  out += environment(run) + results(run) + "## Detailed log\n\n";
  std::size_t number = 0;
  for (const auto& transition : list_at(run, {"transitions"}))
    out += in_detail(transition, ++number);
  return out + issues(run) + comparison(run) + summary(run);
}

Result<std::vector<std::filesystem::path>> write_reports(const std::filesystem::path& directory,
                                                         const std::string& name, const json::value& run) {
  std::error_code problem;
  const auto folder = std::filesystem::absolute(directory, problem);
  if (problem) return fail(ErrorCode::environment, fmt::format("{}: {}", directory.string(), problem.message()));
  if (!std::filesystem::is_directory(folder, problem)) TRY(make_directories(folder, 0700));
  const std::pair<const char*, std::string> files[] = {
      {".md", qa_markdown(run)}, {".json", json::serialize(run) + "\n"}, {".html", qa_html(run)}};
  std::vector<std::filesystem::path> written;
  for (const auto& [ending, content] : files) {
    written.push_back(folder / (name + ending));
    TRY(write_file_atomically(written.back(), content, 0600));
  }
  return written;
}

}  // namespace gpumod
