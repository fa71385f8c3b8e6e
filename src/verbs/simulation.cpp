#include "verbs/simulation.h"

#include <algorithm>

#include <fmt/format.h>

#include "fit/claim.h"
#include "fit/placement.h"
#include "fit/vllm_flags.h"
#include "fit/what_if.h"

namespace gpumod {

bool is_up(const Snapshot& snapshot, const ServiceId& id) {
  const auto view = snapshot.services.find(id);
  return view != snapshot.services.end() && view->second.residency != Residency::stopped &&
         view->second.residency != Residency::failed && view->second.residency != Residency::unloaded;
}

namespace {

/// The thought with the changes made in it.
struct World {
  Goal goal;
  Knowledge knowledge;
  std::vector<Subject> subjects;  ///< of services that still are in the goal; they point into `knowledge`
};

Result<World> changed(const Thought& thought, const std::vector<Change>& tried) {
  World world{thought.goal, thought.knowledge, {}};
  auto changes = thought.asked;
  changes.insert(changes.end(), tried.begin(), tried.end());
  std::set<ServiceId> rewritten;
  for (const auto& change : changes) {
    if (change.kind == Change::Kind::drop) world.goal.wanted.erase(change.service);
    if (change.residency) world.goal.wanted[change.service] = *change.residency;
    if (change.kind != Change::Kind::drop && !change.residency) rewritten.insert(change.service);
  }
  for (const auto& before : thought.subjects) {
    const ServiceId id = before.service->id;
    Subject subject = before;
    auto& service = world.knowledge.services[id];
    if (rewritten.contains(id)) {
      auto made = TRY(with_changes(before, changes));
      service = std::move(made.service);
      subject.model = made.model;
      subject.flags = std::move(made.flags);
      subject.words = std::move(made.words);
      world.knowledge.footprints[id] = std::move(made.known);
      // What it runs with now is something else, so it has to come down first.
      if (is_up(thought.snapshot, id)) world.knowledge.distrusted.insert(service.unit_name());
    }
    if (!world.goal.wanted.contains(id)) continue;
    subject.service = &service;
    subject.known = &world.knowledge.footprints[id];
    world.subjects.push_back(std::move(subject));
  }
  return world;
}

/// A vLLM takes its share whatever happens; whether its model finds room inside is another question. What is passed to it
/// beyond that arithmetic leaves the question open, and the share stays what it is.
void look_inside(const World& world, const Snapshot& snapshot, Foresight& foresight) {
  for (const auto& subject : world.subjects) {
    if (!subject.service->vllm() || !subject.model) continue;
    for (const auto& step : foresight.plan.steps) {
      if (step.service != subject.service->id || step.action != Action::start) continue;
      for (const auto& gpu : snapshot.gpus) {
        if (!step.claim.contains(gpu.index) || !gpu.total) continue;
        const auto flags = vllm_flags_of(*subject.service, subject.words, *gpu.total);
        if (!flags) {
          foresight.notes.push_back(
              fmt::format("whether the model of '{}' finds room inside its share cannot be told: {}",
                          subject.service->id, flags.error().message));
          break;
        }
        const auto inside = estimate_vllm(*subject.model, *flags);
        if (!inside || inside->fits != false) continue;
        const auto& need = inside->need.gpus.front();
        const auto exact = need.weights + need.kv;
        auto words = fmt::format(
            "'{}' claims {} of {}, and its model needs {} inside: {} of weights, {} for one request of full length, "
            "about {} for the computation",
            subject.service->id, to_string(*inside->claim), gpu_in_words(gpu.index), to_string(exact + need.compute),
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
        "'{}' wants {} beside the {} that it leaves free (--fit), and no GPU here has that much: it will shrink itself "
        "to "
        "what there is, and be slow; with context_size and gpu_layers in its file it would be refused instead",
        subject.service->id, to_string(subject.known->estimated->total()), to_string(left_by_fit)));
  }
}

/// A plan was possible, and yet somewhere on the way too little is left: told of the GPU where most is lacking.
Error too_low(const Foresight& foresight, Bytes margin) {
  const auto& lows = foresight.timeline.lowest_taking;
  const auto worst = std::min_element(lows.begin(), lows.end(),
                                      [](const auto& a, const auto& b) { return a.second.free < b.second.free; });
  const auto& [gpu, low] = *worst;
  const auto& moment = foresight.timeline.moments[low.moment];
  std::string when = "what is being started already";
  if (moment.step) {
    const auto& step = foresight.plan.steps[static_cast<std::size_t>(*moment.step)];
    when = fmt::format("the {} of '{}'", to_string(step.action), step.subject());
  }
  auto message = low.free < Bytes()
                     ? fmt::format("{} would take {} more than is free on {}", when, to_string(Bytes() - low.free),
                                   gpu_in_words(gpu))
                     : fmt::format("{} would leave {} free on {}", when, to_string(low.free), gpu_in_words(gpu));
  return {ErrorCode::refused, fmt::format("{} ({} a GPU are kept free)", message, to_string(margin)), {}, {}};
}

std::map<ServiceId, Claim> claims_in(const World& world, const Snapshot& snapshot) {
  std::map<ServiceId, Claim> claims;
  for (const auto& [id, residency] : world.goal.wanted) {
    const auto& service = world.knowledge.services.at(id);
    if (service.vram == Bytes(0)) continue;
    auto& most = claims[id];
    for (const auto& gpu : snapshot.gpus) {
      const auto claim = claim_of(service, footprint_of(world.knowledge.footprints, id), gpu);
      if (claim.bytes && (!most.bytes || *claim.bytes > *most.bytes)) most = claim;
    }
  }
  return claims;
}

/// `foresight` has a plan; whether that one keeps the margin, and the models their shares.
void examine(const Thought& thought, const World& world, Foresight& foresight) {
  const auto margin = thought.knowledge.settings.vram_margin;
  foresight.timeline =
      timeline_of(thought.snapshot, foresight.plan, world.knowledge.services, world.knowledge.footprints);
  foresight.fits = foresight.problem ? Fits::no : fits(foresight.timeline, margin);
  if (foresight.fits == Fits::no && !foresight.problem) foresight.problem = too_low(foresight, margin);
  look_inside(world, thought.snapshot, foresight);
  name_the_shrinking(world, thought.snapshot, foresight);
}

/// With these changes, if it then is known to fit.
std::optional<Foresight> fitting(const Thought& thought, const std::vector<Change>& changes) {
  const auto world = changed(thought, changes);
  if (!world) return std::nullopt;
  auto planned = plan(thought.snapshot, world->goal, world->knowledge);
  if (!planned) return std::nullopt;
  Foresight foresight;
  foresight.plan = std::move(*planned);
  examine(thought, *world, foresight);
  if (foresight.fits != Fits::yes) return std::nullopt;
  return foresight;
}

bool are_the_same(const std::vector<Change>& one, const std::vector<Change>& other) {
  return std::equal(one.begin(), one.end(), other.begin(), other.end(),
                    [](const Change& a, const Change& b) { return a.service == b.service && a.text == b.text; });
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
  examine(thought, world, foresight);
  foresight.claims = claims_in(world, thought.snapshot);
  return foresight;
}

std::vector<Offer> offers(const Thought& thought, std::size_t most) {
  const auto as_asked = changed(thought, {});
  if (!as_asked) return {};
  std::vector<Ladder> ladders;
  for (const auto& subject : as_asked->subjects)
    for (auto& ladder : ladders_for(subject, thought.snapshot.gpus))
      ladders.push_back(std::move(ladder));
  std::vector<Offer> good;
  const auto works = [&](const std::vector<Change>& changes) {
    auto foresight = fitting(thought, changes);
    if (foresight) good.push_back({{changes, 0}, std::move(*foresight)});
    return foresight.has_value();
  };
  std::vector<Offer> found;
  for (auto& alternative : find_alternatives(ladders, works, most)) {
    const auto same = std::find_if(good.begin(), good.end(), [&](const Offer& each) {
      return are_the_same(each.alternative.changes, alternative.changes);
    });
    found.push_back({std::move(alternative), std::move(same->foresight)});
  }
  return found;
}

}  // namespace gpumod
