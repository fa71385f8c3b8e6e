// What gpumod itself costs, on a real unit manager, as ratios against a yardstick in the same run.
//
//   bench overhead   a switch that starts one ready-at-once service, against the bare start job of the same unit
//   bench verdict    from the log line that ends a start to gpumod's verdict, its server living on
//   bench lag        from the moment a server could answer to gpumod's "ready"
//
// Prints one JSON object. Run it through tests/bench/run.sh, which gives it a private manager and directories.
#include <algorithm>
#include <cstdio>
#include <fstream>

#include <boost/json.hpp>
#include <fmt/format.h>

#include "base/fd.h"
#include "control/launch.h"
#include "verbs/context.h"

namespace gpumod {
namespace {

namespace json = boost::json;

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

[[noreturn]] void give_up(const std::string& what) {
  std::fprintf(stderr, "bench: %s\n", what.c_str());
  std::exit(1);
}

template <typename T>
T must(Result<T> result, const char* what) {
  if (!result) give_up(fmt::format("{}: {}", what, result.error().message));
  return std::move(*result);
}

/// `fail_after_ms`: it is called llama-server then, so that it is taken at its word.
void write_service(const Paths& paths, int port, int ready_after_ms, std::optional<int> fail_after_ms = std::nullopt) {
  std::filesystem::path server = environment_variable("GPUMOD_BENCH_SERVER");
  if (fail_after_ms) server = server.parent_path() / "llama-server";
  const auto text = fmt::format(
      "engine: command\nport: {0}\ncmd: [\"{1}\", \"${{PORT}}\", \"{2}\", \"{3}\"{4}]\ncheck: /health\nvram: 0\n"
      "startup_timeout: 60s\nprobe: chat\n",
      port, server.string(), ready_after_ms, (paths.state / "stamp").string(),
      fail_after_ms ? fmt::format(", \"{}\"", *fail_after_ms) : "");
  for (const char* sub : {"services", "modes"})
    (void)make_directories(paths.config / sub);
  (void)make_directories(paths.state);
  if (!write_file_atomically(paths.config / "services/bench.yaml", text)) give_up("cannot write the service");
}

Context::Order order(Residency target) {
  Context::Order what;
  what.kind = "bench";
  what.goal.exclusive = false;
  what.goal.wanted["bench"] = target;
  return what;
}

Task<double> timed_switch(Context& context, Residency target) {
  Context::Order what = order(target);
  const TimePoint began = now();
  const auto answer = co_await context.carry_out(std::move(what));
  if (!answer) give_up(answer.error().message);
  co_return seconds(now() - began);
}

Task<double> timed_start(Machine& machine, const Catalog& catalog) {
  auto spec = unit_spec_for(machine, catalog, "gpumod-bench.service", {});
  if (!spec) give_up(spec.error().message);
  UnitSpec unit = std::move(*spec);
  const TimePoint began = now();
  const auto outcome = co_await machine.units->start(std::move(unit));
  if (!outcome || !outcome->job.ok) give_up("the bare start failed");
  co_return seconds(now() - began);
}

Task<bool> overhead(Context& context, json::object& out) {
  Machine& machine = *must(context.machine(), "machine");
  const Catalog& catalog = *must(context.catalog(), "catalog");
  Store& store = *must(context.store(), "store");
  std::vector<double> bare, full, lean;
  for (int round = 0; round < 25; ++round) {
    for (const bool durable : {true, false}) {
      (void)store.set_durable(durable);
      context.set_probing(durable);
      const double took = co_await timed_switch(context, Residency::running);
      (durable ? full : lean).push_back(took);
      (void)co_await timed_switch(context, Residency::stopped);
    }
    const double took = co_await timed_start(machine, catalog);
    bare.push_back(took);
    (void)co_await timed_switch(context, Residency::stopped);
  }
  out["bare_start_ms"] = median(bare) * 1000;
  out["switch_ms"] = median(full) * 1000;
  out["switch_without_fsync_and_probe_ms"] = median(lean) * 1000;
  out["switch_ratio"] = median(full) / median(bare);
  out["switch_without_fsync_and_probe_ratio"] = median(lean) / median(bare);
  co_return true;
}

Task<bool> lag_of(Context& context, std::optional<TimePoint>& ready, double& lag) {
  ready.reset();
  (void)co_await timed_switch(context, Residency::running);
  (void)co_await timed_switch(context, Residency::stopped);
  long long stamp = 0;
  std::ifstream(context.paths().state / "stamp") >> stamp;
  if (!ready || stamp == 0) give_up("no time stamp");
  lag = seconds(*ready - TimePoint(Duration(stamp)));
  co_return true;
}

Task<bool> verdict_of(Context& context, std::optional<TimePoint>& verdict, double& lag) {
  verdict.reset();
  Context::Order what = order(Residency::running);
  const auto answer = co_await context.carry_out(std::move(what));
  if (answer) give_up("the start did not fail");
  long long stamp = 0;
  std::ifstream(context.paths().state / "stamp") >> stamp;
  if (!verdict || stamp == 0) give_up("no time stamp");
  lag = seconds(*verdict - TimePoint(Duration(stamp)));
  co_return true;
}

}  // namespace

int bench_main(const std::string& what) {
  const auto paths = must(Paths::from_environment(), "paths");
  const int port = std::stoi(environment_variable("GPUMOD_BENCH_PORT"));
  json::object out;
  if (what == "overhead") {
    write_service(paths, port, 0);
    Loop loop;
    Context context(loop, paths, nullptr);
    loop.run_until_done(overhead(context, out));
  } else if (what == "verdict") {
    std::vector<double> lags;
    for (int round = 0; round < 40; ++round) {
      // Spread over more than the 250 ms in which journald tells of new lines.
      write_service(paths, port, 0, 100 + 37 * round % 400);
      Loop loop;
      std::optional<TimePoint> verdict;
      Context context(loop, paths, [&](const json::object& event) {
        const auto* stage = event.if_contains("stage");
        if (!verdict && stage && *stage == "clearing away") verdict = now();
      });
      double lag = 0;
      loop.run_until_done(verdict_of(context, verdict, lag));
      lags.push_back(lag);
    }
    std::sort(lags.begin(), lags.end());
    out["verdict_ms"] = json::object{{"median", median(lags) * 1000},
                                     {"ninth_decile", lags[lags.size() * 9 / 10] * 1000},
                                     {"worst", lags.back() * 1000}};
  } else if (what == "lag") {
    json::array rows;
    for (const auto& [load_ms, rounds] : {std::pair{50, 20}, {500, 12}, {2000, 6}, {9000, 3}, {15000, 3}}) {
      write_service(paths, port, load_ms);
      std::vector<double> lags;
      for (int round = 0; round < rounds; ++round) {
        Loop loop;
        std::optional<TimePoint> ready;
        Context context(loop, paths, [&](const json::object& event) {
          const auto* stage = event.if_contains("stage");
          if (!ready && stage && *stage == "verifying") ready = now();
        });
        double lag = 0;
        loop.run_until_done(lag_of(context, ready, lag));
        lags.push_back(lag);
      }
      rows.push_back(json::object{{"load_ms", load_ms},
                                  {"median_lag_ms", median(lags) * 1000},
                                  {"worst_lag_ms", *std::max_element(lags.begin(), lags.end()) * 1000},
                                  {"median_lag_share", median(lags) / (load_ms / 1000.0)}});
    }
    out["readiness_lag"] = std::move(rows);
  } else {
    give_up("usage: bench overhead|verdict|lag");
  }
  std::printf("%s\n", json::serialize(out).c_str());
  return 0;
}

}  // namespace gpumod

int main(int argc, char** argv) {
  return gpumod::bench_main(argc > 1 ? argv[1] : "");
}
