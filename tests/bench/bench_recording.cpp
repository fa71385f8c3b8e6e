// What recording a switch costs: processor time for each sample of the GPUs, bytes of the stored text, and the time until
// it is stored, with the journal's other rows beside it. The switch is a bad one: ten minutes on eight GPUs, sampled twenty
// times a second, with memory that moves all the time.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <ctime>

#include <boost/json.hpp>
#include <fmt/format.h>

#include "base/folder_testing.h"
#include "base/time.h"
#include "control/tape.h"
#include "model/recording_json.h"
#include "store/store.h"

namespace gpumod {
namespace {

namespace json = boost::json;

double processor_seconds() {
  timespec used{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
  return static_cast<double>(used.tv_sec) + static_cast<double>(used.tv_nsec) / 1e9;
}

std::vector<GpuSample> sampled(int gpus, int round) {
  std::vector<GpuSample> all;
  for (int index = 0; index < gpus; ++index) {
    GpuSample gpu;
    gpu.index = index;
    gpu.name = "NVIDIA GeForce RTX 4090";
    gpu.total = Bytes::mib(24564);
    const auto held = Bytes::mib(1000 + 50 * ((round + 13 * index) % 400));
    gpu.free = *gpu.total - held - Bytes::mib(700);
    gpu.processes = {{100 + index, held}, {900, Bytes::mib(700)}};
    all.push_back(std::move(gpu));
  }
  return all;
}

json::object measure(int gpus, int samples) {
  std::map<pid_t, std::string> holders;
  for (int index = 0; index < gpus; ++index)
    holders[100 + index] = fmt::format("service-{}", index);
  Tape tape{TimePoint{}};
  double used = 0;
  for (int round = 0; round < samples; ++round) {
    const auto seen = sampled(gpus, round);
    const auto before = processor_seconds();
    tape.note_gpus(seen, holders, TimePoint{} + round * 50ms);
    used += processor_seconds() - before;
  }
  const auto before = processor_seconds();
  const Switch nothing({});
  const auto recording = tape.played(nothing, {});
  const auto text = json::serialize(to_json(recording));
  const auto closing = processor_seconds() - before;
  return {{"gpus", gpus},
          {"samples", samples},
          {"points", recording.curve.size()},
          {"microseconds_a_sample", used / samples * 1e6},
          {"milliseconds_at_the_end", closing * 1e3},
          {"bytes", text.size()}};
}

/// Wall time of keeping a recording of so many bytes, once there are as many as are ever kept.
json::object keep(std::size_t bytes) {
  const TestFolder folder;
  auto store = Store::open(folder.path());
  if (!store) std::abort();
  std::vector<double> took;
  for (int id = 1; id <= 300; ++id) {
    StoredSwitch about;
    about.id = id;
    about.result = "committed";
    about.ended = wall_now();
    if (!store->end_switch(about, std::nullopt, false)) std::abort();
    const auto began = now();
    if (!store->keep_recording(id, std::string(bytes, 'x'))) std::abort();
    if (id > 200) took.push_back(seconds(now() - began));
  }
  std::sort(took.begin(), took.end());
  std::error_code ignored;
  const auto size = std::filesystem::file_size(folder / "state.db", ignored);
  return {{"recording_bytes", bytes},
          {"milliseconds_to_keep", took[took.size() / 2] * 1e3},
          {"milliseconds_worst", took.back() * 1e3},
          {"file_bytes_after_300", size}};
}

/// Wall time of ending a switch with twelve commands and a report of 3 kB, before and after there are as many as are ever
/// kept: from then on each one lets go of the oldest.
json::object end() {
  const TestFolder folder;
  auto store = Store::open(folder.path());
  if (!store) std::abort();
  std::vector<double> before, after;
  for (int id = 1; id <= 1200; ++id) {
    StoredSwitch about;
    about.id = id;
    if (!store->record_commands(about, std::vector<Command>(12))) std::abort();
    about.result = "committed";
    about.ended = wall_now();
    about.report = std::string(3000, 'x');
    const auto began = now();
    if (!store->end_switch(about, std::nullopt, false)) std::abort();
    if (id > 800) (id <= 1000 ? before : after).push_back(seconds(now() - began));
  }
  const auto median = [](std::vector<double>& took) {
    std::sort(took.begin(), took.end());
    return took[took.size() / 2] * 1e3;
  };
  return {{"milliseconds_to_end", median(before)}, {"milliseconds_to_end_and_let_go", median(after)}};
}

}  // namespace
}  // namespace gpumod

int main() {
  for (const int gpus : {1, 8})
    std::puts(boost::json::serialize(gpumod::measure(gpus, 12'000)).c_str());
  for (const std::size_t bytes : {6'000UL, 100'000UL})
    std::puts(boost::json::serialize(gpumod::keep(bytes)).c_str());
  std::puts(boost::json::serialize(gpumod::end()).c_str());
  return 0;
}
