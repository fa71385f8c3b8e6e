#include "verbs/simulation_json.h"

#include <algorithm>

#include <boost/json.hpp>
#include <fmt/format.h>

#include "control/director.h"
#include "fit/claim.h"
#include "model/json.h"
#include "verbs/describe.h"

namespace gpumod {

namespace json = boost::json;

namespace {

std::string_view to_string(Timeline::Edge edge) {
  switch (edge) {
    case Timeline::Edge::now: return "now";
    case Timeline::Edge::rises: return "rises";
    case Timeline::Edge::begins: return "begins";
    case Timeline::Edge::ends: return "ends";
  }
  return "";
}

json::array levels_json(const Timeline::Moment& moment) {
  json::array levels;
  for (const auto& level : moment.levels) {
    json::array held;
    for (const auto& holding : level.held)
      held.push_back(json::object{{"name", text_or_null(holding.name)}, {"bytes", holding.bytes.count()}});
    levels.push_back(json::object{{"gpu", level.gpu}, {"free", level.free.count()}, {"held", std::move(held)}});
  }
  return levels;
}

json::array timeline_json(const Foresight& foresight) {
  json::array moments;
  for (const auto& moment : foresight.timeline.moments) {
    json::object line{{"edge", to_string(moment.edge)}, {"step", nullptr}};
    if (moment.step) {
      const auto& step = foresight.plan.steps[static_cast<std::size_t>(*moment.step)];
      line["step"] = *moment.step;
      line["action"] = to_string(step.action);
      line["subject"] = step.subject();
    }
    line["gpus"] = levels_json(moment);
    moments.push_back(std::move(line));
  }
  return moments;
}

json::value low_json(const Foresight& foresight, GpuIndex gpu) {
  const auto low = foresight.timeline.lowest.find(gpu);
  if (low == foresight.timeline.lowest.end()) return nullptr;
  return json::object{{"free", low->second.free.count()}, {"moment", low->second.moment}};
}

json::array gpus_json(const Snapshot& snapshot, const Foresight& foresight) {
  json::array gpus;
  for (const auto& gpu : snapshot.gpus) {
    json::value after;
    for (const auto& level : foresight.timeline.moments.back().levels)
      if (level.gpu == gpu.index) after = level.free.count();
    gpus.push_back(json::object{{"gpu", gpu.index},
                                {"name", gpu.name},
                                {"uuid", gpu.uuid},
                                {"total", bytes_or_null(gpu.total)},
                                {"free_now", bytes_or_null(gpu.free)},
                                {"free_after", std::move(after)},
                                {"lowest", low_json(foresight, gpu.index)}});
  }
  return gpus;
}

json::array claims_json(const Foresight& foresight) {
  json::array claims;
  for (const auto& [id, claim] : foresight.claims)
    claims.push_back(
        json::object{{"service", id}, {"bytes", bytes_or_null(claim.bytes)}, {"source", to_string(claim.source)}});
  return claims;
}

json::object offer_json(const Offer& offer) {
  json::array changes, lowest;
  for (const auto& change : offer.alternative.changes)
    changes.push_back(json::object{{"kind", to_string(change.kind)},
                                   {"service", change.service},
                                   {"text", change.text},
                                   {"loses", change.loses},
                                   {"edit", text_or_null(change.edit)}});
  for (const auto& [gpu, low] : offer.foresight.timeline.lowest_taking)
    lowest.push_back(json::object{{"gpu", gpu}, {"free", low.free.count()}});
  return {{"changes", std::move(changes)}, {"loss", offer.alternative.loss}, {"lowest", std::move(lowest)}};
}

json::value fits_json(Fits fits) {
  return fits == Fits::unknown ? json::value(nullptr) : json::value(fits == Fits::yes);
}

}  // namespace

json::object simulation_json(const Thought& thought, const Foresight& foresight, const std::vector<Offer>& offers) {
  json::array services, alternatives, notes;
  for (const auto& [id, residency] : thought.goal.wanted)
    services.push_back(json::value(id));
  for (const auto& offer : offers)
    alternatives.push_back(offer_json(offer));
  // The plan notes itself whose claim is unknown; what the timeline adds is told where the plan has nothing to say.
  for (const auto* each : {&foresight.notes, &foresight.plan.notes})
    for (const auto& note : *each)
      notes.push_back(json::value(note));
  if (foresight.plan.notes.empty())
    for (const auto& unknown : foresight.timeline.unknown)
      notes.push_back(json::value(unknown));
  auto plan = to_json(foresight.plan);
  return {{"simulation",
           json::object{{"to", text_or_null(thought.goal.mode)},
                        {"services", std::move(services)},
                        {"fits", fits_json(foresight.fits)},
                        {"problem", foresight.problem ? json::value(foresight.problem->message) : json::value(nullptr)},
                        {"missing", foresight.missing.count()},
                        {"margin", thought.knowledge.settings.vram_margin.count()},
                        {"gpus", gpus_json(thought.snapshot, foresight)},
                        {"claims", claims_json(foresight)},
                        {"steps", std::move(plan["steps"])},
                        {"timeline", timeline_json(foresight)},
                        {"alternatives", std::move(alternatives)},
                        {"notes", std::move(notes)}}}};
}

}  // namespace gpumod
