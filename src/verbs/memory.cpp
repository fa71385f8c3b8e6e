#include "verbs/memory.h"

#include <algorithm>

#include <boost/json.hpp>
#include <fmt/format.h>

#include "base/text.h"
#include "fit/claim.h"
#include "fit/learning.h"
#include "model/json.h"
#include "model/snapshot.h"
#include "verbs/describe.h"

namespace gpumod {

namespace json = boost::json;

namespace {

json::value describe_estimate(const Footprint& known) {
  if (!known.estimated) return nullptr;
  const auto& memory = *known.estimated;
  return json::object{{"total", memory.total().count()},
                      {"reserve", (with_reserve(memory) - memory.total()).count()},
                      {"weights", memory.weights.count()},
                      {"kv", memory.kv.count()},
                      {"compute", memory.compute.count()},
                      {"context", memory.context.count()},
                      {"rough", memory.rough},
                      {"assumptions", json::value_from(memory.assumptions)}};
}

json::array describe_measured(const Footprint& known) {
  json::array all;
  for (const auto& [gpu, measured] : known.measured) {
    json::object steady, phases;
    for (const auto& [residency, held] : measured.steady)
      steady[to_string(residency)] = held.count();
    for (const auto& [phase, took] : measured.phases)
      phases[to_string(phase)] = json::object{
          {"median", rounded_seconds(took.median)}, {"spread", rounded_seconds(took.spread)}, {"runs", took.runs}};
    all.push_back(json::object{{"gpu", gpu.empty() ? json::value(nullptr) : json::value(gpu)},
                               {"peak", bytes_or_null(measured.peak)},
                               {"steady", std::move(steady)},
                               {"runs", measured.runs},
                               {"newest", format_wall(measured.newest)},
                               {"seconds", std::move(phases)}});
  }
  return all;
}

/// The best that is known of what it takes on this GPU, but for what is declared, and how it is known.
struct Known {
  Bytes bytes;
  std::string how;
};
std::optional<Known> best_known(Service service, const Footprint& known, const GpuSample& gpu) {
  service.vram.reset();
  const auto claim = claim_of(service, known, gpu);
  if (claim.bytes && claim.source == ClaimSource::utilization)
    return Known{*claim.bytes, "its gpu_memory_utilization of what the GPU has"};
  if (claim.bytes && claim.source == ClaimSource::measured)
    return Known{*claim.bytes, fmt::format("measured in {}",
                                           counted(static_cast<std::size_t>(known.measured.at(gpu.name).runs), "run"))};
  if (claim.bytes && claim.source == ClaimSource::estimated)
    return Known{known.estimated->total(), "by its model's file and its flags"};
  return std::nullopt;
}

/// What is declared disagrees with what is known better, and may count all the same.
std::string declared_wrongly(const Service& service, const Known& better, ClaimSource counted) {
  const auto place = to_string(service.source);
  if (counted != ClaimSource::declared)
    return fmt::format("{} are declared, but it takes {} ({}): correct vram: in {}", to_string(*service.vram),
                       to_string(better.bytes), better.how, place);
  return fmt::format("{} are declared, and count, but it takes {} ({}): correct vram: in {} unless it can take more",
                     to_string(*service.vram), to_string(better.bytes), better.how, place);
}

}  // namespace

std::vector<std::string> disagreements(const Service& service, const Footprint& known,
                                       const std::vector<GpuSample>& gpus) {
  std::vector<std::string> found;
  const auto say = [&](std::string text) {
    if (std::find(found.begin(), found.end(), text) == found.end()) found.push_back(std::move(text));
  };
  if (service.vram == Bytes(0)) return found;
  for (const auto& gpu : gpus) {
    if (!may_use(service, gpu)) continue;
    const auto better = best_known(service, known, gpu);
    if (better && service.vram && disagree(better->bytes, *service.vram))
      say(declared_wrongly(service, *better, claim_of(service, known, gpu).source));
    const auto measured = known.measured.find(gpu.name);
    if (measured == known.measured.end() || !measured->second.peak) continue;
    const auto peak = *measured->second.peak;
    if (known.estimated && disagree(peak, known.estimated->total()))
      say(fmt::format("{} are estimated, but {} were measured", to_string(known.estimated->total()), to_string(peak)));
    if (better && service.vllm() && disagree(peak, better->bytes))
      say(fmt::format("it claims {} ({}), but {} were measured", to_string(better->bytes), better->how,
                      to_string(peak)));
  }
  return found;
}

json::object describe_memory(const Service& service, const Footprint& known, const std::vector<GpuSample>& gpus) {
  json::array claims;
  for (const auto& gpu : gpus) {
    if (!may_use(service, gpu)) continue;
    const auto claim = claim_of(service, known, gpu);
    claims.push_back(json::object{{"gpu", gpu.index},
                                  {"name", gpu.name},
                                  {"bytes", bytes_or_null(claim.bytes)},
                                  {"source", to_string(claim.source)}});
  }
  return {{"declared", bytes_or_null(service.vram)},
          {"estimated", describe_estimate(known)},
          {"not_estimated", known.not_estimated.empty() ? json::value(nullptr) : json::value(known.not_estimated)},
          {"measured", describe_measured(known)},
          {"claims", std::move(claims)},
          {"warnings", json::value_from(disagreements(service, known, gpus))}};
}

}  // namespace gpumod
