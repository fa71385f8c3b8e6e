// The product at work where there is no GPU: the real gpumod, its worker and its local supervisor, in a private box with
// a simulated GPU and simulated engines. Every switch goes the way of `gpumod mode switch`: nothing here is staged.
#include <algorithm>
#include <charconv>
#include <cmath>

#include <boost/json.hpp>
#include <fmt/format.h>

#include "base/fd.h"
#include "base/text.h"
#include "sim/box.h"
#include "verbs/demo_script.h"
#include "verbs/handlers.h"
#include "verbs/qa_issues.h"
#include "verbs/qa_look.h"
#include "verbs/qa_report.h"
#include "verbs/qa_values.h"
#include "verbs/worker.h"

namespace gpumod {

namespace json = boost::json;

namespace {

constexpr double default_speed = 12;

Result<double> speed_of(const Request& request) {
  const auto words = text_of(request, "speed");
  if (words.empty()) return default_speed;
  double speed = 0;
  const auto [end, problem] = std::from_chars(words.data(), words.data() + words.size(), speed);
  if (problem != std::errc() || end != words.data() + words.size() || !(speed >= 0.1 && speed <= 100))
    return fail(ErrorCode::usage, fmt::format("--speed is '{}'", printable(words)),
                "It is how many times faster than real the engines run: a number from 0.1 to 100.");
  return speed;
}

json::array describe_faults() {
  json::array list;
  for (const auto& fault : demo_faults())
    list.push_back(
        json::object{{"name", fault.name}, {"what", fault.what}, {"outcome", fault.outcome}, {"passes", fault.passes}});
  return list;
}

/// The words of one row's report that a person wants to read: what answered, what went wrong, what was done about it.
std::string notes_of(const json::value& report, const std::optional<Error>& error) {
  std::vector<std::string> notes;
  const auto* body = report.is_object() ? report.as_object().if_contains("switch") : nullptr;
  const auto* steps = body && body->is_object() ? body->as_object().if_contains("steps") : nullptr;
  if (steps && steps->is_array())
    for (const auto& entry : steps->as_array()) {
      const auto& step = entry.as_object();
      const auto said = [&](const char* key) { return text_of(step, key); };
      const auto subject = step.at("service").is_string() ? said("service") : said("unit");
      if (const auto* earlier = step.if_contains("earlier"))
        for (const auto& mishap : earlier->as_array())
          notes.push_back(fmt::format("{}: {}", subject, std::string_view(mishap.as_string())));
      const auto action = said("action");
      const bool comes_up = action == "start" || action == "load" || action == "wake" || action == "verify";
      if (said("result") == "failed" && !said("note").empty() && !error)
        notes.push_back(fmt::format("{}: {}", subject, said("note")));
      if (said("result") == "done" && comes_up && !said("note").empty())
        notes.push_back(fmt::format("{}: {}", subject, said("note")));
    }
  if (error) notes.insert(notes.begin(), error->hint.empty() ? error->message : error->message + ". " + error->hint);
  return join(notes, "; ");
}

class Demo {
 public:
  Demo(Context& context, const sim::Box& box) : context_(context), box_(box) {}

  /// One verb, carried out by a worker and followed.
  Result<std::optional<json::value>> carry_out(std::string_view verb, const json::object& request) {
    const auto paths = TRY(Paths::from_environment());
    const auto worker = TRY(start_worker(paths, verb, request));
    bool taken_back = false;
    return follow_worker(
        worker, [&](const json::object& event) { tell(event); },
        [&] {
          tell({{"event", "tick"}});
          if (context_.cancelled() && !std::exchange(taken_back, true)) cancel_worker(worker);
          return false;
        });
  }

  /// However it ended, and wherever: nothing that it started goes on. Not shown, and not to be taken back.
  Result<void> wind_up() {
    const auto paths = TRY(Paths::from_environment());
    const auto worker = TRY(start_worker(paths, "mode switch", {{"mode", "blank"}}));
    TRY(follow_worker(
        worker, [](const json::object&) {},
        [&] {
          tell({{"event", "tick"}});
          return false;
        }));
    return {};
  }

  json::object play(const DemoRow& row, std::string from) {
    const auto to = row.sleep ? row.target + " asleep" : row.target;
    tell({{"event", "row"}, {"from", from}, {"to", to}});
    const TimePoint began = now();
    auto answer = row.sleep ? carry_out("service sleep", {{"service", row.target}})
                            : carry_out("mode switch", {{"mode", row.target}});
    const Duration took = now() - began;
    const double shown = static_cast<double>(std::llround(seconds(took) * 1000)) / 1000;
    std::optional<Error> error;
    json::value report;
    if (answer && *answer)
      report = std::move(**answer);
    else if (!answer)
      error = answer.error();
    if (error && error->details.is_object()) report = error->details;
    transition_ =
        transition_of(error ? Result<json::value>(fail(*error)) : Result<json::value>(report), from, to, took);
    json::object line{{"from", from}, {"to", to}, {"seconds", shown}};
    line["result"] = transition_.at("result");
    line["vram"] = transition_.at("vram").at("after");
    line["steps"] = transition_.at("steps");
    line["notes"] = notes_of(report, error);
    line["passed"] = !error;
    if (error && !error->hint.empty()) line["hint"] = error->hint;
    auto event = line;
    event["event"] = "row_done";
    tell(std::move(event));
    return line;
  }

  /// What the last row was, for the report.
  json::object& transition() { return transition_; }

  void tell(json::object event) const {
    if (context_.progress()) context_.progress()(std::move(event));
  }

 private:
  Context& context_;
  const sim::Box& box_;
  json::object transition_;
};

/// The report of a demo, in the shape of a quality run's.
json::object report_of(std::vector<DemoRow> rows, const DemoFault* fault, json::array transitions, Duration took,
                       bool all_passed) {
  const bool good = all_passed && std::all_of(transitions.begin(), transitions.end(), passed);
  json::array sequence{"blank"};
  for (const auto& row : rows)
    sequence.push_back(json::value(row.sleep ? row.target + " asleep" : row.target));
  json::object run{{"id", nullptr},
                   {"began", format_wall(wall_now())},
                   {"seconds", static_cast<double>(std::llround(seconds(took) * 1000)) / 1000},
                   {"result", good ? "passed" : "failed"},
                   {"sequence", std::move(sequence)},
                   {"rounds", 1},
                   {"transitions", std::move(transitions)},
                   {"restored", nullptr},
                   {"compared", nullptr}};
  run["fault"] =
      fault ? json::value(json::object{{"name", fault->name}, {"what", fault->what}, {"outcome", fault->outcome}})
            : json::value(nullptr);
  return run;
}

/// Whoever still holds memory of the simulated GPU and is no desktop program of ours.
json::array orphans_in(const json::object& gpu, const sim::Box& box) {
  json::array orphans;
  for (const auto& one : gpu.at("gpus").as_array())
    for (const auto& holder : one.at("holders").as_array()) {
      const auto pid = holder.at("pid").to_number<std::int64_t>();
      const auto& desktops = box.desktops();
      if (std::find(desktops.begin(), desktops.end(), static_cast<pid_t>(pid)) != desktops.end()) continue;
      orphans.push_back(json::object{{"pid", pid}, {"command", holder.at("command")}, {"vram", holder.at("bytes")}});
    }
  return orphans;
}

std::int64_t used_in(const json::object& gpu) {
  std::int64_t used = 0;
  for (const auto& one : gpu.at("gpus").as_array())
    used += one.at("total").to_number<std::int64_t>() - one.at("free").to_number<std::int64_t>();
  return used;
}

Result<void> act(sim::Box& box, const std::vector<DemoAct>& acts, DemoAct::When when, const std::string& target,
                 std::vector<bool>& played) {
  for (std::size_t i = 0; i < acts.size(); ++i) {
    const auto& one = acts[i];
    if (played[i] || one.when != when || one.target != target) continue;
    played[i] = true;
    if (!one.tell.empty()) TRY(box.tell(one.tell));
    if (!one.desktop.empty()) TRY(box.start_desktop(one.desktop));
    if (one.quit)
      for (const auto pid : std::vector<pid_t>(box.desktops()))
        box.end_desktop(pid);
  }
  return {};
}

Result<std::vector<DemoRow>> rows_of(const Request& request, const DemoFault* fault) {
  const auto modes = list_of(request, "modes");
  if (modes.empty() && request.contains("modes"))
    return fail(ErrorCode::usage, "--modes names no mode", "Name some of blank, code, rag and nemotron.");
  if (modes.empty()) return fault && !fault->rows.empty() ? fault->rows : usual_chain();
  std::vector<DemoRow> rows;
  const std::vector<std::string> known{"blank", "code", "rag", "nemotron"};
  for (const auto& mode : modes) {
    if (std::find(known.begin(), known.end(), mode) == known.end())
      return fail(ErrorCode::not_found, fmt::format("the demo has no mode '{}'", printable(mode)),
                  did_you_mean(mode, known));
    rows.push_back({mode});
  }
  if (rows.size() > 1 && rows.front().target == "blank") rows.erase(rows.begin());  // where it begins anyway
  return rows;
}

}  // namespace

Answer demo(Context& context, Request request) {
  const auto fault_name = text_of(request, "fault");
  if (fault_name == "list") co_return json::value(json::object{{"faults", describe_faults()}});
  const DemoFault* fault = nullptr;
  if (!fault_name.empty()) {
    const auto found = find_demo_fault(fault_name);
    if (!found) co_return fail(found.error());
    fault = *found;
  }
  const auto speed = speed_of(request);
  if (!speed) co_return fail(speed.error());
  const auto rows = rows_of(request, fault);
  if (!rows) co_return fail(rows.error());

  const auto wanted_reports = text_of(request, "report");
  std::error_code unnamed;
  const auto reports =
      wanted_reports.empty() ? std::filesystem::path() : std::filesystem::absolute(wanted_reports, unnamed);
  if (!reports.empty())
    if (const auto made = make_directories(reports, 0700); !made) co_return fail(made.error());

  sim::BoxOptions options;
  options.speed = *speed;
  options.keep = flag_of(request, "keep");
  if (fault) {
    options.vllm_options = fault->vllm_options;
    const bool examined = !reports.empty() && !fault->model_options_examined.empty();
    options.model_options = examined ? fault->model_options_examined : fault->model_options;
  }
  auto built = sim::Box::build(options);
  if (!built) co_return fail(built.error());
  sim::Box& box = *built;
  box.enter();
  Demo demo(context, box);
  json::object begun{{"event", "demo"}, {"directory", box.directory().string()}, {"speed", *speed}};
  if (fault) begun["fault"] = json::object{{"name", fault->name}, {"what", fault->what}, {"outcome", fault->outcome}};
  demo.tell(std::move(begun));

  // What is looked at for the report is looked at from here; what switches is a worker, as ever.
  const auto paths = Paths::from_environment();
  if (!paths) co_return fail(paths.error());
  Context inside(context.loop(), *paths, nullptr);
  std::optional<Error> problem;
  json::array transitions, seen;
  const TimePoint began = now();
  std::vector<bool> played(fault ? fault->acts.size() : 0);
  const auto acts = fault ? fault->acts : std::vector<DemoAct>();
  std::string at = "blank";
  bool passed = true;
  for (const auto& row : *rows) {
    if (context.cancelled()) break;
    const auto prepared = act(box, acts, DemoAct::When::before, row.target, played);
    if (!prepared) problem = prepared.error();
    if (problem) break;
    auto line = demo.play(row, at);
    const bool went_well = line.at("passed").as_bool();
    passed = passed && went_well;
    if (went_well && !row.sleep) at = row.target;
    transitions.push_back(std::move(line));
    if (!reports.empty()) {
      auto looking = look_after(inside, demo.transition());
      co_await std::move(looking);
      seen.push_back(std::move(demo.transition()));
    }
    const auto wound_up = act(box, acts, DemoAct::When::after, row.target, played);
    if (!wound_up) problem = wound_up.error();
  }
  json::object report;
  if (!reports.empty()) {
    report = report_of(*rows, fault, std::move(seen), now() - began, passed);
    auto environment = co_await describe_environment(inside);
    report["environment"] = std::move(environment);
    finish_run(report);
    passed = string_at(report, {"result"}) == "passed";
  }
  // A chain that passed and ended in blank has left nothing, and that is looked at as it is. Any other end is wound up
  // first: whatever happened, nothing stays behind.
  if (at != "blank" || !passed || context.cancelled()) {
    const auto emptied = demo.wind_up();
    if (!emptied && !problem) problem = emptied.error();
  }
  json::object answer;
  if (const auto gpu = box.gpu()) {
    answer["orphans"] = orphans_in(*gpu, box);
    answer["final_vram"] = used_in(*gpu);
  } else if (!problem) {
    problem = gpu.error();
  }
  if (context.cancelled())
    problem = Error{ErrorCode::cancelled, "the demo was stopped; everything it had started has ended", {}, {}};
  if (problem && options.keep) {
    problem->hint +=
        fmt::format("{}Files and logs are in {}", problem->hint.empty() ? "" : " ", box.directory().string());
    problem->details = json::object{{"directory", box.directory().string()}};
  }
  if (problem) co_return fail(*problem);

  if (!reports.empty()) {
    const auto written = write_reports(reports, fault ? "demo-" + fault->name : "demo", report);
    if (!written) co_return fail(written.error());
    json::array files;
    for (const auto& file : *written)
      files.push_back(json::value(file.string()));
    answer["reports"] = std::move(files);
  }
  answer["passed"] = passed && answer.at("orphans").as_array().empty();
  answer["transitions"] = std::move(transitions);
  answer["speed"] = *speed;
  answer["fault"] = fault ? json::value(fault->name) : json::value(nullptr);
  answer["directory"] = options.keep ? json::value(box.directory().string()) : json::value(nullptr);
  if (answer.at("passed").as_bool()) co_return json::value(std::move(answer));
  Error error{ErrorCode::failed, "not every switch of the demo passed", fault ? fault->outcome : "", {}};
  error.details = json::object{{"demo", std::move(answer)}};
  co_return fail(std::move(error));
}

}  // namespace gpumod
