#include "verbs/simulation.h"

#include <algorithm>

#include <fmt/format.h>

#include "fit/claim.h"
#include "fit/placement.h"
#include "fit/vllm_estimate.h"
#include "fit/what_if.h"

namespace gpumod {

namespace {

/// The thought with the changes made in it.
struct World {
  Goal goal;
  Knowledge knowledge;
  std::vector<Subject> subjects;  ///< of services that still are in the goal; they point into `knowledge`
};

bool is_up(const Snapshot& snapshot, const ServiceId& id) {
  const auto view = snapshot.services.find(id);
  return view != snapshot.services.end() && view->second.residency != Residency::stopped &&
         view->second.residency != Residency::failed && view->second.residency != Residency::unloaded;
}

Result<World> changed(const Thought& thought, const std::vector<Change>& changes) {
  World world{thought.goal, thought.knowledge, {}};
  for (const auto& change : changes) {
    if (change.kind == Change::Kind::drop) world.goal.wanted.erase(change.service);
    if (change.residency) world.goal.wanted[change.service] = *change.residency;
  }
  for (const auto& before : thought.subjects) {
    const ServiceId id = before.service->id;
    Subject subject = before;
    bool rewritten = false;
    for (const auto& change : changes) {
      if (change.service != id) continue;
      if (change.model) subject.model = change.model;
      rewritten = rewritten || (change.kind != Change::Kind::drop && !change.residency);
    }
    auto& service = world.knowledge.services[id];
    if (rewritten) {
      auto made = TRY(with_changes(before, changes));
      service = std::move(made.service);
      world.knowledge.footprints[id] = std::move(made.known);
      // What it runs with now is something else, so it has to come down first.
      if (is_up(thought.snapshot, id)) world.knowledge.distrusted.insert(service.unit_name());
    }
    if (!world.goal.wanted.contains(id)) continue;
    subject.service = &service;
    subject.known = &world.knowledge.footprints[id];
    world.subjects.push_back(subject);
  }
  return world;
}

/// A vLLM takes its share whatever happens; whether its model finds room inside is another question.
void look_inside(const World& world, const Snapshot& snapshot, Foresight& foresight) {
  for (const auto& subject : world.subjects) {
    if (!subject.service->vllm() || !subject.model) continue;
    for (const auto& step : foresight.plan.steps) {
      if (step.service != subject.service->id || step.action != Action::start) continue;
      for (const auto& gpu : snapshot.gpus) {
        if (!step.claim.contains(gpu.index) || !gpu.total) continue;
        const auto inside = estimate_vllm(*subject.model, vllm_flags_of(*subject.service, *gpu.total));
        if (!inside || inside->fits != false) continue;
        const auto& need = inside->need.gpus.front();
        const auto exact = need.weights + need.kv;
        auto words = fmt::format(
            "'{}' claims {} of GPU {}, and its model needs {} inside: {} of weights, {} for one request of full "
            "length, "
            "about {} for the computation",
            subject.service->id, to_string(*inside->claim), gpu.index, to_string(exact + need.compute),
            to_string(need.weights), to_string(need.kv), to_string(need.compute));
        if (exact > *inside->claim && !foresight.problem)
          foresight.problem =
              Error{ErrorCode::refused, std::move(words), "Lower max_model_len, or raise its share.", {}};
        else
          foresight.notes.push_back(std::move(words));
        foresight.fits = exact > *inside->claim ? Fits::no : std::min(foresight.fits, Fits::unknown);
        return;
      }
    }
  }
}

/// The least by which the margin would have to be smaller for a plan to be possible, and that plan: found by halving.
Bytes least_missing(const World& world, const Snapshot& snapshot, Plan& best) {
  const auto planned_with = [&](std::int64_t mib) {
    auto relaxed = world.knowledge;
    relaxed.settings.vram_margin -= Bytes::mib(mib);
    return plan(snapshot, world.goal, relaxed);
  };
  std::int64_t low = 0, high = std::int64_t{1} << 24;  // nothing is not enough, 16 TiB are
  while (high - low > 1) {
    const auto middle = low + (high - low) / 2;
    auto planned = planned_with(middle);
    (planned ? high : low) = middle;
    if (planned) best = std::move(*planned);
  }
  return Bytes::mib(high);
}

/// A llama-server that may shrink itself claims nothing that could be counted on where even alone it would not get what it
/// wants.
void name_the_shrinking(const World& world, const Snapshot& snapshot, Foresight& foresight) {
  for (const auto& subject : world.subjects) {
    if (!subject.known || !subject.known->estimated || subject.known->estimated->rough) continue;
    if (!may_shrink_itself(*subject.service)) continue;
    const auto counts = [&](const GpuSample& gpu) {
      return claim_of(*subject.service, *subject.known, gpu).bytes.has_value();
    };
    if (std::any_of(snapshot.gpus.begin(), snapshot.gpus.end(), counts)) continue;
    foresight.notes.push_back(fmt::format(
        "'{}' wants {}, and no GPU here has that: it will shrink itself to what is free (--fit), and be slow; with "
        "context_size and gpu_layers in its file it would be refused instead",
        subject.service->id, to_string(subject.known->estimated->total())));
  }
}

/// A plan was possible, and yet somewhere on the way too little is left.
Error too_low(const Foresight& foresight, Bytes margin) {
  Error error{ErrorCode::refused, {}, {}, {}};
  for (const auto& [gpu, low] : foresight.timeline.lowest_taking) {
    if (low.free >= margin) continue;
    const auto& moment = foresight.timeline.moments[low.moment];
    const auto when =
        moment.step
            ? fmt::format("{} of '{}'", to_string(foresight.plan.steps[static_cast<std::size_t>(*moment.step)].action),
                          foresight.plan.steps[static_cast<std::size_t>(*moment.step)].subject())
            : std::string("what is being started already");
    error.message = fmt::format("{} would leave {} free on GPU {}, and {} are kept free", when, to_string(low.free),
                                gpu, to_string(margin));
  }
  return error;
}

}  // namespace

Result<Foresight> foresee(const Thought& thought, const std::vector<Change>& changes) {
  const auto world = TRY(changed(thought, changes));
  Foresight foresight;
  auto planned = plan(thought.snapshot, world.goal, world.knowledge);
  if (!planned && !lacks_memory(planned.error())) return fail(std::move(planned).error());
  if (planned) {
    foresight.plan = std::move(*planned);
  } else {
    foresight.problem = std::move(planned).error();
    foresight.missing = least_missing(world, thought.snapshot, foresight.plan);
  }
  const auto margin = thought.knowledge.settings.vram_margin;
  foresight.timeline =
      timeline_of(thought.snapshot, foresight.plan, world.knowledge.services, world.knowledge.footprints);
  foresight.fits = foresight.problem ? Fits::no : fits(foresight.timeline, margin);
  look_inside(world, thought.snapshot, foresight);
  name_the_shrinking(world, thought.snapshot, foresight);
  if (foresight.fits == Fits::no && !foresight.problem) foresight.problem = too_low(foresight, margin);
  return foresight;
}

std::vector<Offer> offers(const Thought& thought, std::size_t most) {
  std::vector<Ladder> ladders;
  for (const auto& subject : thought.subjects)
    for (auto& ladder : ladders_for(subject, thought.snapshot.gpus))
      ladders.push_back(std::move(ladder));
  const auto works = [&](const std::vector<Change>& changes) {
    const auto world = changed(thought, changes);
    if (!world || !plan(thought.snapshot, world->goal, world->knowledge)) return false;
    const auto foresight = foresee(thought, changes);
    return foresight && foresight->fits == Fits::yes;
  };
  std::vector<Offer> found;
  for (auto& alternative : find_alternatives(ladders, works, most)) {
    auto foresight = foresee(thought, alternative.changes);
    if (foresight && foresight->fits == Fits::yes) found.push_back({std::move(alternative), std::move(*foresight)});
  }
  return found;
}

}  // namespace gpumod
