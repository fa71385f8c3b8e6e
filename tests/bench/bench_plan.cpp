// How long thinking takes: plan() for many services on several GPUs, everything stopped and everything to be started.
//
// The yardstick is the same plan with every service bound to the GPU on which it ended: what is left is what choosing
// among GPUs costs. Sizes are random from a fixed seed, and fill the GPUs so far that the search has work to do.
#include <algorithm>
#include <cstdio>
#include <random>

#include <boost/json.hpp>
#include <fmt/format.h>

#include "base/time.h"
#include "switching/plan.h"

namespace gpumod {
namespace {

namespace json = boost::json;

struct Case {
  Snapshot snapshot;
  Goal goal;
  Knowledge knowledge;
};

Case random_case(std::mt19937_64& random, int services, int gpus, int fill_percent) {
  Case made;
  for (int i = 0; i < gpus; ++i) {
    const auto total = Bytes::gib(24 + 8 * static_cast<std::int64_t>(random() % 3));
    made.snapshot.gpus.push_back({i, fmt::format("GPU-{}", i), "bench", total, total - Bytes::mib(400), {}});
  }
  Bytes all;
  for (const auto& gpu : made.snapshot.gpus)
    all += *gpu.free - made.knowledge.settings.vram_margin;
  const auto share = all.to_mib() * fill_percent / 100 / services;
  for (int i = 0; i < services; ++i) {
    Service service;
    service.id = fmt::format("s{:02}", i);
    service.options = CommandOptions{};
    service.port = static_cast<std::uint16_t>(9000 + i);
    service.vram = Bytes::mib(share / 2 + static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(share)));
    made.goal.wanted[service.id] = Residency::running;
    made.knowledge.services[service.id] = std::move(service);
  }
  return made;
}

double milliseconds_of(const Case& one, Result<Plan>& planned) {
  const auto began = now();
  planned = plan(one.snapshot, one.goal, one.knowledge);
  return seconds(now() - began) * 1000;
}

json::object measure(int services, int gpus) {
  constexpr int rounds = 200;
  std::mt19937_64 random(20260209);
  std::vector<double> free_choice, bound;
  int refused = 0;
  for (int round = 0; round < rounds; ++round) {
    auto one = random_case(random, services, gpus, 75 + round % 20);
    Result<Plan> planned = fail(ErrorCode::failed, "not planned");
    free_choice.push_back(milliseconds_of(one, planned));
    if (!planned) {
      ++refused;
      continue;
    }
    for (const auto& step : planned->steps)
      one.knowledge.services.at(step.service).gpu.devices = {std::to_string(step.gpus.front())};
    bound.push_back(milliseconds_of(one, planned));
  }
  std::sort(free_choice.begin(), free_choice.end());
  std::sort(bound.begin(), bound.end());
  const auto median = [](const std::vector<double>& values) { return values[values.size() / 2]; };
  return {{"services", services},
          {"gpus", gpus},
          {"median_ms", median(free_choice)},
          {"worst_ms", free_choice.back()},
          {"bound_median_ms", median(bound)},
          {"ratio", median(free_choice) / median(bound)},
          {"refused", refused},
          {"plans", rounds}};
}

}  // namespace
}  // namespace gpumod

int main() {
  using gpumod::measure;
  for (const auto& [services, gpus] : {std::pair{20, 2}, {64, 8}})
    std::printf("%s\n", boost::json::serialize(measure(services, gpus)).c_str());
}
