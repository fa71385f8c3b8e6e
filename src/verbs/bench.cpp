// How long switches between modes take: each transition several times, always from the same start, and compared with
// another day.
//
// A round begins with nothing of ours running, then goes through the modes in their order and back to the first: so each
// transition has the mode before it as its start, brought about in the same way every time. Rounds that only warm up are
// not counted. Nothing but the switches themselves is timed.

#include <algorithm>
#include <set>

#include <boost/json.hpp>
#include <fmt/format.h>

#include "base/fd.h"
#include "base/text.h"
#include "control/additions.h"
#include "control/model_place.h"
#include "engines/reply.h"
#include "formats/model_files.h"
#include "host/page_cache.h"
#include "verbs/bench_figures.h"
#include "verbs/handlers.h"
#include "verbs/homecoming.h"
#include "verbs/modes.h"

namespace gpumod {

namespace json = boost::json;
namespace fs = std::filesystem;

namespace {

constexpr auto kind = "bench switch";
constexpr std::int64_t usual_rounds = 3, usual_warm_up = 1, most_rounds = 1000;

struct BenchPlan {
  std::vector<ModeId> modes;
  std::int64_t rounds = usual_rounds, warm_up = usual_warm_up;
  bool cold = false;
  std::string file;     // compared with; "" for nothing
  json::object before;  // what it holds
};

struct Transition {
  ModeId from, to;
  std::vector<double> seconds;
  std::vector<std::int64_t> switches;
  int failed = 0;
  std::string cause;                                                         // of the first failure
  std::map<std::pair<std::string, std::string>, std::vector<double>> steps;  // by action and subject
  DroppedPages dropped;
};

Result<json::object> read_bench(const std::string& file) {
  const auto wrong = [&](std::string why) {
    return fail(ErrorCode::usage, fmt::format("{} {}", printable(file), why),
                "It has to be what gpumod bench switch --json printed.");
  };
  const auto text = TRY(read_file(file, 16 << 20));
  std::error_code malformed;
  const auto value = json::parse(text, malformed);
  if (malformed) return wrong("is not JSON");
  const auto* answer = value.if_object();
  // One that found regressions, or runs that failed, holds its figures all the same.
  const auto* bench = answer ? answer->if_contains("bench") : nullptr;
  if (!bench || !bench->is_object()) return wrong("holds no figures of a bench");
  return bench->get_object();
}

Result<BenchPlan> plan_of(const Request& request, const Catalog& catalog) {
  BenchPlan plan;
  plan.modes = list_of(request, "modes");
  if (plan.modes.empty())
    for (const auto& [id, mode] : catalog.modes)
      plan.modes.push_back(id);
  for (const auto& id : plan.modes)
    (void)TRY(catalog.mode(id));
  if (std::set<ModeId>(plan.modes.begin(), plan.modes.end()).size() != plan.modes.size())
    return fail(ErrorCode::usage, "a mode is named twice", "Each mode once: the last goes back to the first.");
  if (plan.modes.size() < 2)
    return fail(ErrorCode::usage, "a bench of switches needs two modes or more",
                "gpumod bench switch --modes A,B; gpumod mode list lists them.");
  plan.rounds = integer_of(request, "rounds").value_or(usual_rounds);
  plan.warm_up = integer_of(request, "warm-up").value_or(usual_warm_up);
  if (plan.rounds < 1 || plan.rounds > most_rounds)
    return fail(ErrorCode::usage, fmt::format("--rounds cannot be {}", plan.rounds),
                fmt::format("It is 1 to {}.", most_rounds));
  if (plan.warm_up < 0 || plan.warm_up > most_rounds)
    return fail(ErrorCode::usage, fmt::format("--warm-up cannot be {}", plan.warm_up),
                fmt::format("It is 0 to {}.", most_rounds));
  plan.cold = flag_of(request, "cold");
  plan.file = text_of(request, "compare");
  if (plan.file.empty()) return plan;
  plan.before = TRY(read_bench(plan.file));
  if (flag_of(plan.before, "cold") != plan.cold)
    return fail(
        ErrorCode::usage,
        fmt::format("{} was measured {}, and this would be {}", printable(plan.file), plan.cold ? "warm" : "cold",
                    plan.cold ? "cold" : "warm"),
        plan.cold ? "Leave --cold out, or compare with a cold one." : "Add --cold, or compare with a warm one.");
  return plan;
}

/// The files that whoever is new in `to` reads when it starts.
std::vector<fs::path> files_to_read(const Catalog& catalog, const ModeId& from, const ModeId& to,
                                    const fs::path& home) {
  std::set<fs::path> files;
  const auto& running = catalog.modes.at(from).services;
  for (const auto& id : catalog.modes.at(to).services) {
    const auto service = catalog.services.find(id);
    if (service == catalog.services.end() || std::find(running.begin(), running.end(), id) != running.end()) continue;
    const auto place = place_of_model(service->second, additions_of(catalog, service->second), home);
    if (!place || place->path.empty()) continue;
    for (const auto& file : files_of_model(place->path).files)
      if (file.size) files.insert(file.path);
  }
  return {files.begin(), files.end()};
}

class Bench {
 public:
  Bench(Context& context, const Catalog& catalog, BenchPlan plan)
      : context_(context), catalog_(catalog), plan_(std::move(plan)) {
    for (std::size_t i = 0; i < plan_.modes.size(); ++i)
      transitions_.push_back({plan_.modes[i], plan_.modes[(i + 1) % plan_.modes.size()], {}, {}, 0, {}, {}, {}});
  }

  /// Errors: the start of a round cannot be reached; cancelled.
  Task<Result<void>> measure() {
    for (std::int64_t round = -plan_.warm_up; round < plan_.rounds; ++round) {
      auto begun = co_await begin_round();
      if (!begun) co_return begun;
      for (auto& transition : transitions_) {
        auto measured = co_await run(transition, round);
        if (!measured) co_return measured;
      }
    }
    co_return Result<void>();
  }

  json::object answer() const {
    json::array transitions;
    for (const auto& transition : transitions_)
      transitions.push_back(described(transition));
    return {{"version", 1},
            {"began", format_wall(began_)},
            {"modes", json::value_from(plan_.modes)},
            {"rounds", plan_.rounds},
            {"warm_up", plan_.warm_up},
            {"cold", plan_.cold},
            {"transitions", std::move(transitions)}};
  }

  std::string failures() const {
    std::vector<std::string> words;
    for (const auto& transition : transitions_)
      if (transition.failed > 0)
        words.push_back(fmt::format("from {} to {} {}: {}", transition.from, transition.to,
                                    transition.failed == 1 ? std::string("a switch failed")
                                                           : fmt::format("{} switches failed", transition.failed),
                                    transition.cause));
    return join(words, "; ");
  }

 private:
  static Context::Order order_of(Goal goal) {
    Context::Order order;
    order.kind = kind;
    order.comes_home = true;
    order.goal = std::move(goal);
    order.goal_after = order.goal;
    return order;
  }

  Task<Result<json::value>> reach(const ModeId& mode) {
    if (context_.cancelled()) co_return fail(ErrorCode::cancelled, "cancelled");
    auto order = order_of(goal_of(catalog_.modes.at(mode)));
    co_return co_await context_.carry_out(std::move(order));
  }

  /// From nothing to the first mode.
  Task<Result<void>> begin_round() {
    auto nothing = order_of(Goal{});
    auto emptied = co_await context_.carry_out(std::move(nothing));
    if (!emptied) co_return fail(emptied.error());
    auto reached = co_await reach(plan_.modes.front());
    if (!reached) co_return fail(reached.error());
    co_return Result<void>();
  }

  Task<Result<void>> run(Transition& transition, std::int64_t round) {
    const bool counts = round >= 0;
    if (plan_.cold) {
      DroppedPages dropped;
      const std::function<void()> drop = [&] {
        dropped = drop_from_page_cache(files_to_read(catalog_, transition.from, transition.to, context_.paths().home));
      };
      co_await run_blocking(drop);
      if (counts) transition.dropped += std::move(dropped);
    }
    auto reached = co_await reach(transition.to);
    if (context_.cancelled()) co_return fail(ErrorCode::cancelled, "cancelled");
    // A switch that fails is told even where its seconds would not have counted: it may be the one that ends the bench.
    const auto place = counts ? fmt::format("round {} of {}", round + 1, plan_.rounds) : std::string("warming up");
    if (!reached) {
      context_.notice(
          fmt::format("{}: {} to {} failed: {}", place, transition.from, transition.to, reached.error().message));
      if (transition.failed++ == 0) transition.cause = reached.error().message;
      co_return co_await start_over(transition);
    }
    const auto took = note(transition, *reached, counts);
    context_.notice(fmt::format("{}: {} to {} in {}", place, transition.from, transition.to, took));
    co_return Result<void>();
  }

  /// The next transition needs its start. Where the last one does not arrive, nothing can be measured any more.
  Task<Result<void>> start_over(const Transition& failed) {
    auto nothing = order_of(Goal{});
    auto emptied = co_await context_.carry_out(std::move(nothing));
    if (!emptied) co_return fail(emptied.error());
    if (failed.to == plan_.modes.front()) co_return Result<void>();  // a new round begins so anyway
    auto reached = co_await reach(failed.to);
    if (!reached) co_return fail(reached.error());
    co_return Result<void>();
  }

  static std::string note(Transition& transition, const json::value& answer, bool counts) {
    const auto* whole = answer.if_object();
    const auto* body = whole ? whole->if_contains("switch") : nullptr;
    if (!body || !body->is_object()) return "an unknown time";
    const auto& report = body->get_object();
    const auto seconds_in = [](const json::object& object) -> std::optional<double> {
      const auto* found = object.if_contains("seconds");
      return found && found->is_number() ? std::optional(found->to_number<double>()) : std::nullopt;
    };
    const auto took = seconds_in(report).value_or(0);
    if (counts) {
      transition.seconds.push_back(took);
      transition.switches.push_back(integer_of(report, "id").value_or(0));
      if (const auto* steps = report.if_contains("steps"); steps && steps->is_array())
        for (const auto& each : steps->get_array())
          if (const auto* step = each.if_object(); step && text_of(*step, "result") == "done")
            if (const auto length = seconds_in(*step)) {
              const auto service = text_of(*step, "service");
              transition.steps[{text_of(*step, "action"), service.empty() ? text_of(*step, "unit") : service}]
                  .push_back(*length);
            }
    }
    return format_seconds(std::chrono::duration_cast<Duration>(std::chrono::duration<double>(took)));
  }

  json::object described(const Transition& transition) const {
    json::array steps;
    for (const auto& [name, runs] : transition.steps)
      steps.push_back(
          json::object{{"action", name.first}, {"subject", name.second}, {"seconds", to_json(figures_of(runs), runs)}});
    json::value cache;
    if (plan_.cold)
      cache = json::object{{"files", transition.dropped.files},
                           {"bytes", transition.dropped.size.count()},
                           {"cached_before", transition.dropped.cached_before.count()},
                           {"cached_after", transition.dropped.cached_after.count()},
                           {"problems", json::value_from(transition.dropped.problems)}};
    return {{"from", transition.from},
            {"to", transition.to},
            {"seconds", to_json(figures_of(transition.seconds), transition.seconds)},
            {"failed", transition.failed},
            {"cause", transition.cause.empty() ? json::value(nullptr) : json::value(transition.cause)},
            {"steps", std::move(steps)},
            {"switches", json::value_from(transition.switches)},
            {"cache", std::move(cache)}};
  }

  Context& context_;
  const Catalog& catalog_;
  BenchPlan plan_;
  std::vector<Transition> transitions_;
  WallTime began_ = wall_now();
};

/// What runs the figures: they hold for these alone.
Task<void> add_machine(Machine& machine, json::object& bench) {
  json::array names;
  if (machine.gpus) {
    const auto sampled = co_await machine.gpus->sample();
    for (const auto& gpu : sampled.value_or(std::vector<GpuSample>()))
      names.emplace_back(gpu.name);
    bench["driver"] = machine.gpus->driver_version();
  }
  bench["gpus"] = std::move(names);
}

}  // namespace

Answer bench_switch(Context& context, Request request) {
  const auto catalog = context.catalog();
  if (!catalog) co_return fail(catalog.error());
  const auto plan = plan_of(request, **catalog);
  if (!plan) co_return fail(plan.error());
  const auto store = context.store();
  if (!store) co_return fail(store.error());
  const auto before = (*store)->goal();
  if (!before) co_return fail(before.error());

  if (const auto kept = remember_home(context.paths(), {kind, before->value_or(Goal())}); !kept)
    co_return fail(kept.error());
  Bench bench(context, **catalog, *plan);
  const auto measured = co_await bench.measure();
  // What ran before runs again, however it went.
  Context::Order back;
  back.kind = kind;
  if (*before) back.goal = **before;
  std::erase_if(back.goal.wanted, [&](const auto& entry) { return !(*catalog)->services.contains(entry.first); });
  back.goal_after = back.goal;
  back.comes_home = true;
  back.to_the_end = true;
  auto restored = co_await context.carry_out(std::move(back));
  // What was measured is told also where it ended early.
  json::object figures = bench.answer();
  const auto machine = context.machine();
  if (machine) co_await add_machine(**machine, figures);
  json::object answer{{"bench", std::move(figures)}};
  if (!restored) {
    Error error = restored.error();
    error.message =
        fmt::format("the bench has ended, and what ran before it could not be brought back: {}", error.message);
    error.hint = "gpumod status shows what runs.";
    error.details = std::move(answer);
    co_return fail(std::move(error));
  }
  forget_home(context.paths());
  if (!measured) {
    Error error = measured.error();
    // The words of the switch about what it restored are not those of the bench.
    auto cause = string_at(error.details, {"switch", "problem", "message"});
    if (cause.empty()) cause = error.message;
    const auto restored_words = what_was_restored(*before && !(*before)->wanted.empty());
    error.message = error.code == ErrorCode::cancelled
                        ? fmt::format("cancelled; {}", restored_words)
                        : fmt::format("the bench was given up: {}; {}", cause, restored_words);
    if (error.code != ErrorCode::cancelled && !bench.failures().empty()) error.code = ErrorCode::failed;
    error.details = std::move(answer);
    co_return fail(std::move(error));
  }
  json::object& body = answer["bench"].as_object();
  std::vector<std::string> complaints;
  if (!plan->file.empty()) {
    auto compared = compare_benches(plan->before, body);
    compared["file"] = plan->file;
    if (const auto& worse = compared["regressions"].get_array(); !worse.empty())
      complaints.push_back(
          fmt::format("{} slower than in {}",
                      worse.size() == 1 ? "a transition is" : fmt::format("{} transitions are", worse.size()),
                      printable(plan->file)));
    body["compared"] = std::move(compared);
  }
  if (auto failed = bench.failures(); !failed.empty()) complaints.push_back(std::move(failed));
  if (complaints.empty()) co_return json::value(std::move(answer));
  Error error{
      ErrorCode::failed, join(complaints, "; "), "gpumod history show SWITCH shows each run over its time.", {}};
  error.details = std::move(answer);
  co_return fail(std::move(error));
}

}  // namespace gpumod
