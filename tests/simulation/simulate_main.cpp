// gpumod-simulate: attacks the decisions of switching/ with a modelled world, seed after seed. Options in
// docs/simulation.md.
#include <algorithm>
#include <atomic>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include <fmt/format.h>

#include "director.h"

using namespace gpumod::simulation;

namespace {

struct Options {
  std::uint64_t from = 1;
  std::uint64_t runs = 1000;
  unsigned jobs = 1;
  bool one = false;
  bool coverage = false;
  bool verbose = false;
  bool strict = false;       // coverage must be complete
  bool until_found = false;  // end at the first complaint
};

bool run_one(std::uint64_t seed, Coverage& coverage, bool verbose, std::vector<std::string>& violations) {
  Director director(seed, coverage, verbose);
  director.play();
  violations = director.violations();
  return violations.empty();
}

int usage() {
  fmt::print(stderr,
             "usage: gpumod-simulate [--seed N] [--runs N] [--from SEED] [--jobs N] [--coverage] [--strict] "
             "[--until-found] [--verbose]\n");
  return 2;
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string_view word = argv[i];
    const auto number = [&](auto& into) {
      if (++i >= argc) return false;
      const std::string_view text = argv[i];
      return std::from_chars(text.data(), text.data() + text.size(), into).ec == std::errc();
    };
    bool good = true;
    if (word == "--seed")
      good = options.one = number(options.from);
    else if (word == "--runs")
      good = number(options.runs);
    else if (word == "--from")
      good = number(options.from);
    else if (word == "--jobs")
      good = number(options.jobs);
    else if (word == "--coverage")
      options.coverage = true;
    else if (word == "--strict")
      options.strict = true;
    else if (word == "--until-found")
      options.until_found = true;
    else if (word == "--verbose")
      options.verbose = true;
    else
      good = false;
    if (!good) return usage();
  }

  if (options.one) {
    Coverage coverage;
    std::vector<std::string> violations;
    const bool good = run_one(options.from, coverage, true, violations);
    for (const auto& violation : violations)
      fmt::print("seed {}: {}\n", options.from, violation);
    if (good) fmt::print("seed {}: nothing to complain about\n", options.from);
    return good ? 0 : 1;
  }

  const auto began = std::chrono::steady_clock::now();
  std::atomic<std::uint64_t> next{0};
  std::mutex guard;
  Coverage all;
  struct Failure {
    std::uint64_t seed;
    std::string what;
  };
  std::vector<Failure> failures;
  std::uint64_t failed = 0;
  std::atomic<bool> found{false};
  const auto work = [&] {
    Coverage own;
    constexpr std::uint64_t batch = 64;
    for (;;) {
      const auto first = next.fetch_add(batch);
      if (first >= options.runs || (options.until_found && found)) break;
      for (auto run = first; run < std::min(first + batch, options.runs); ++run) {
        std::vector<std::string> violations;
        if (run_one(options.from + run, own, options.verbose, violations)) continue;
        const std::lock_guard hold(guard);
        ++failed;
        found = true;
        failures.push_back({options.from + run, violations.front()});
      }
    }
    const std::lock_guard hold(guard);
    all.merge(own);
  };
  std::vector<std::thread> threads;
  for (unsigned i = 1; i < options.jobs; ++i)
    threads.emplace_back(work);
  work();
  for (auto& thread : threads)
    thread.join();
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();

  std::sort(failures.begin(), failures.end(), [](const Failure& a, const Failure& b) { return a.seed < b.seed; });
  // The same complaint about other services is the same complaint.
  std::map<std::string, std::pair<std::size_t, const Failure*>> kinds;
  for (const auto& failure : failures) {
    std::string kind = failure.what;
    std::replace_if(
        kind.begin(), kind.end(), [](char c) { return c >= '0' && c <= '9'; }, '#');
    auto& [count, first] = kinds[kind];
    if (count++ == 0) first = &failure;
  }
  for (const auto& [kind, kind_found] : kinds)
    fmt::print("{} × like seed {}: {}\n", kind_found.first, kind_found.second->seed, kind_found.second->what);
  if (!failures.empty() && !options.until_found) {
    fmt::print("\nThe timeline of seed {} (./dev simulate --seed {} shows it again):\n", failures.front().seed,
               failures.front().seed);
    Coverage ignored;
    std::vector<std::string> again;
    run_one(failures.front().seed, ignored, true, again);
  }
  if (options.coverage) all.print();
  const auto gaps = all.faults_in_coverage();
  if (options.coverage || options.strict)
    for (const auto& gap : gaps)
      fmt::print("coverage: {}\n", gap);
  fmt::print(
      "{} runs, {} switches ({} committed, {} rolled back, {} failed, {} refused, {} unchanged, {} cancelled), "
      "{} recoveries, {} events, {} commands\n",
      options.runs, all.switches, all.results[0], all.results[1], all.results[2], all.results[3], all.results[4],
      all.results[5], all.recoveries, all.events, all.commands);
  fmt::print("{:.1f} s, {:.0f} switches a second and core; {} runs with a violation\n", seconds,
             static_cast<double>(all.switches) / seconds / options.jobs, failed);
  return failed > 0 || (options.strict && !gaps.empty()) ? 1 : 0;
}
